"""A registry and a memory of the test's own in place of the process-wide ones."""

from __future__ import annotations

import pytest

from reward_fns import dispatch, registry
from reward_fns.registry import Registry


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Registry:
    table = Registry()
    monkeypatch.setattr(registry, "DEFAULT", table)
    monkeypatch.setattr(dispatch, "_overlay", (None, table))
    monkeypatch.setattr(dispatch, "_seen", {})
    return table
