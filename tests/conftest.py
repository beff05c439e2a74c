"""Shared pieces of the tests: the CPU environment, tiny tokenizers and pairs. No mocks of verl anywhere."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# Before anything imports verl: the suite runs on the CPU platform unless a GPU run says otherwise.
from contextrl_verl.patches.cpu import torchvision_ops
from contextrl_verl.patches.cpu.environment import cpu_environment

if "CONTEXTRL_CACHE" not in os.environ:
    # Of this process and those that it starts.
    _cache = tempfile.TemporaryDirectory(prefix="contextrl-tests-")
    os.environ["CONTEXTRL_CACHE"] = _cache.name

if "CONTEXTRL_TEST_DEVICE" not in os.environ:
    os.environ.update(cpu_environment())
    torchvision_ops.install()

import pytest
from hypothesis import settings

# The same examples in every run, so that a failure is the change's; no deadline, for machines are shared.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items):
    """Runs of the trainer first, then engines on several ranks: what is short fills the gaps at the end."""
    folders = ("e2e", "engine", "slurm")
    items.sort(key=lambda item: next((at for at, name in enumerate(folders) if name in item.path.parts), len(folders)))


@pytest.fixture(scope="session")
def demo_tokenizer():
    from contextrl_verl.demo.tiny_model import make_tokenizer

    return make_tokenizer()


@pytest.fixture(scope="session")
def verl_tokenizer(demo_tokenizer, tmp_path_factory):
    """The same tokenizer as verl loads it from a checkpoint."""
    from verl.utils import hf_tokenizer

    from contextrl_verl.demo.tiny_model import make_model

    folder = tmp_path_factory.mktemp("model")
    make_model(folder, demo_tokenizer)
    return hf_tokenizer(str(folder))


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parent.parent
