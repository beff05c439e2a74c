"""Changing a module of another package when it is imported, without importing it."""

import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_MARK = "_contextrl_replacement"


class _PatchAfterImport(MetaPathFinder):
    """Runs ``patch(module)`` right after ``name`` has been imported, so that a shim need not import it itself."""

    def __init__(self, name: str, patch: Callable[[ModuleType], None]) -> None:
        self.name = name
        self.patch = patch

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_patch(module: ModuleType) -> None:
                execute(module)
                self.patch(module)

            spec.loader.exec_module = execute_and_patch
        return spec


def when_imported(name: str, patch: Callable[[ModuleType], None]) -> None:
    """Run ``patch(module)`` now if module ``name`` is imported, else right after its import. Once a name."""
    if name in sys.modules:
        patch(sys.modules[name])
    elif not any(isinstance(finder, _PatchAfterImport) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _PatchAfterImport(name, patch))


def replace(module: str, name: str, make: Callable[[Any], Any]) -> None:
    """``name`` of ``module`` becomes ``make(the original)``, now or when it is imported; safe to call again."""

    def patch(imported: ModuleType) -> None:
        original = getattr(imported, name)
        if not hasattr(original, _MARK):
            setattr(imported, name, replacement := make(original))
            setattr(replacement, _MARK, True)

    when_imported(module, patch)
