"""A model made here, and stand-ins for models that need no reading."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The server of the tests of data_prep.models.
sys.path.append(str(Path(__file__).parent.parent / "data_prep"))


@pytest.fixture(scope="session")
def tiny_model(demo_tokenizer, tmp_path_factory) -> str:
    from contextrl_verl.demo.tiny_model import make_model

    folder = tmp_path_factory.mktemp("probed")
    make_model(folder, demo_tokenizer, seed=3)
    return str(folder)
