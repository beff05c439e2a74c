"""Shortcut audit of contrastive pairs: can the label be told without the evidence?"""

from importlib import import_module
from typing import Any

# Where each public name is; imported when asked for, so that the command line's --help needs neither scipy nor sklearn.
_HOMES = {
    "AuditResult": "result",
    "FeatureGroup": "registry",
    "GroupRow": "result",
    "PairView": "view",
    "audit": "run",
    "known_groups": "groups",
    "register": "registry",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
