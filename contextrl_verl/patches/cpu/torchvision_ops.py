"""Lets PyPI's torchvision be imported beside a CPU build of torch, in processes on the CPU platform.

Blocker: PyPI's torchvision is a CUDA build. Beside a CPU torch its C++ operators do not load; torchvision carries on
without them, but ``torchvision/_meta_registrations.py`` then registers shapes for two operators that do not exist, so
``import torchvision`` fails, and with it transformers' image processors, qwen-vl-utils and vLLM's vision models. Here
the operators' names are declared, without an implementation, right before that module is executed. Decoding, resizing
and normalising use none of them; an operator that is called still raises torchvision's own error.
May go when torchvision skips these registrations without its operators, or PyPI has a CPU build.

Every process must be reached: the driver, Ray's workers, vLLM's server and engine, and the fresh interpreter in which
vLLM inspects a model class before it loads any plugin. All of them import torch, and torch calls the entry points
``torch.backends`` at the end of its own import. This package has none: it would run in everybody's ``import torch``.
The folder ``autoload`` names one, and only the CPU platform's environment has that folder on its PYTHONPATH.
Where torch has an accelerator, or torchvision its operators, nothing happens.
"""

import re
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder

from contextrl_verl.patches.cpu.environment import AUTOLOAD

_MODULE = "torchvision._meta_registrations"
_DECLARED = re.compile(r"""register_fake\(\s*["']torchvision::(\w+)["']""")
# Kept for ever: the declarations end with the object.
_libraries: list = []


class _DeclareBeforeImport(MetaPathFinder):
    """Declares the missing operators when ``torchvision._meta_registrations`` is about to be imported."""

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        if fullname != _MODULE or _has_accelerator() or _has_operators():
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            with open(spec.origin, encoding="utf-8") as source:
                _declare(_DECLARED.findall(source.read()))
        return spec


def _has_accelerator() -> bool:
    import torch

    return bool(torch.version.cuda or torch.version.hip or getattr(torch.version, "xpu", None))


def _has_operators() -> bool:
    # Imported by torchvision before anything else of it.
    extension = sys.modules.get("torchvision.extension")
    return extension is None or extension._has_ops()


def _declare(names: list[str]) -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    _libraries.append(library)
    for name in names:
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def install() -> None:
    """In this process; called by torch at the end of its import, too, and raises nothing, for that would break it."""
    # A process that is spawned gets this one's path, not PYTHONPATH.
    if AUTOLOAD not in sys.path:
        sys.path.append(AUTOLOAD)
    if not any(isinstance(finder, _DeclareBeforeImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _DeclareBeforeImport())
