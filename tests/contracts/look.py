"""Looking at verl: parameter names and, where nothing else shows it, source text."""

from __future__ import annotations

import inspect

import pytest


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def source(function, ours: str) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError) as error:
        pytest.fail(f"the source that {ours} relies on cannot be read: {error}")
