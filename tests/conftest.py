"""Shared pieces of the tests: the CPU environment, tiny tokenizers and pairs. No mocks of verl anywhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Before anything imports verl: the suite runs on the CPU platform unless a GPU run says otherwise.
from contextrl_verl.cpu.environment import cpu_environment

if "CONTEXTRL_TEST_DEVICE" not in os.environ:
    os.environ.update(cpu_environment())
sys.path.insert(0, str(Path(__file__).parent))

import pytest

from contextrl_verl.pairs import Context, ContrastivePair


def text_pair(number: int, confounders: int = 1, length: int = 3) -> ContrastivePair:
    """A small text pair; contexts differ in one number."""
    contexts = [Context(kind="text", text=f"{'log line. ' * length}value {number + i}") for i in range(confounders + 1)]
    return ContrastivePair(
        pair_id=f"p{number}",
        domain="test",
        query="what is the value?",
        answer=str(number),
        supporting=contexts[0],
        confounders=contexts[1:],
        provenance={"number": number},
    )


@pytest.fixture(scope="session")
def demo_tokenizer():
    from contextrl_verl.demo.tiny_model import make_tokenizer

    return make_tokenizer()


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parent.parent
