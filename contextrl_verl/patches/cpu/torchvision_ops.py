"""Lets PyPI's torchvision be imported beside a CPU build of torch, in processes on the CPU platform.

Blocker: PyPI's torchvision is a CUDA build. Beside a CPU torch its C++ operators do not load; torchvision carries on
without them, but ``torchvision/_meta_registrations.py`` then registers shapes for two operators that do not exist, so
``import torchvision`` fails, and with it transformers' image processors, qwen-vl-utils and vLLM's vision models. Here
the operators' names are declared, without an implementation, once ``torchvision.extension``, which tries to load them
first of all, is imported. Decoding, resizing and normalising use none of them; an operator that is called still raises
torchvision's own error.
May go when torchvision skips these registrations without its operators, or PyPI has a CPU build.

Every process must be reached: the driver, Ray's workers, vLLM's server and engine, and the fresh interpreter in which
vLLM inspects a model class before it loads any plugin. All of them import torch, and torch calls the entry points
``torch.backends`` at the end of its own import. This package has none: it would run in everybody's ``import torch``.
The folder ``autoload`` names one, and only the CPU platform's environment has that folder on its PYTHONPATH.
Where torch has an accelerator, or torchvision its operators, nothing happens.
"""

import os
import re
import sys
from pathlib import Path
from types import ModuleType

from contextrl_verl.patches.cpu.environment import AUTOLOAD, cpu_environment
from contextrl_verl.patches.on_import import when_imported

_DECLARED = re.compile(r"""register_fake\(\s*["']torchvision::(\w+)["']""")
# Kept for ever: the declarations end with the object.
_libraries: list = []


def install() -> None:
    """In this process; called by torch at the end of its import, too, and raises nothing, for that would break it."""
    # A process that is spawned gets this one's path, not PYTHONPATH.
    if AUTOLOAD not in sys.path:
        sys.path.append(AUTOLOAD)
    when_imported("torchvision.extension", _declare)


def allow_torchvision() -> None:
    """In this process and in those that it starts."""
    install()
    os.environ["PYTHONPATH"] = cpu_environment()["PYTHONPATH"]


def _declare(extension: ModuleType) -> None:
    import torch

    accelerator = torch.version.cuda or torch.version.hip or getattr(torch.version, "xpu", None)
    if accelerator or extension._has_ops():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    _libraries.append(library)
    source = Path(extension.__file__).with_name("_meta_registrations.py").read_text(encoding="utf-8")
    for name in _DECLARED.findall(source):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
