"""What verifiers judge: the repository of cheats.py, in the best sandbox of this machine."""

import pytest
from cheats import make_repository

from contextrl_verl.sandbox import open_sandbox


@pytest.fixture(scope="module")
def sandbox():
    return open_sandbox()


@pytest.fixture(scope="module")
def lib(tmp_path_factory):
    return make_repository(tmp_path_factory.mktemp("lib"))
