"""PyPI's torchvision, a CUDA build, can be imported beside a CPU torch, in every process; and needs help to be."""

from __future__ import annotations

import importlib.metadata

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision", reason="needs torchvision (make setup)")
extension = pytest.importorskip("torchvision.extension")

if torch.version.cuda or extension._has_ops():
    pytest.skip("torchvision has its operators here", allow_module_level=True)

PLAIN = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
NO_PLATFORM = {"VERL_PLATFORM": ""}


def test_torch_calls_the_entry_point():
    names = [point.name for point in importlib.metadata.entry_points(group="torch.backends")]
    assert "contextrl_torchvision" in names, "pyproject.toml"


def test_still_needed(run_python):
    """When this fails, torchvision imports by itself: delete contextrl_verl/patches/cpu/torchvision_ops.py."""
    code = """
try:
    import torchvision
except RuntimeError as error:
    assert "torchvision::nms does not exist" in str(error), error
else:
    raise SystemExit("torchvision imports by itself now: delete contextrl_verl/patches/cpu/torchvision_ops.py")
"""
    run_python(code, **PLAIN)


def test_images_are_processed_in_any_process(run_python):
    """Without a word to this package, and without VERL_PLATFORM."""
    code = """
import torchvision.transforms.v2.functional as F
import torch
picture = torch.arange(48, dtype=torch.uint8).view(3, 4, 4)
assert F.resize(picture, [8, 8]).shape == (3, 8, 8)
import qwen_vl_utils
from transformers import Qwen2VLImageProcessor
assert "image_processing_qwen2_vl" in Qwen2VLImageProcessor.__module__
"""
    run_python(code, **NO_PLATFORM)


def test_a_compiled_operator_still_says_that_it_is_missing(run_python):
    code = """
import torch
from torchvision.ops import nms
try:
    nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
except RuntimeError as error:
    assert "Couldn't load custom C++ ops" in str(error)
else:
    raise SystemExit("nms ran")
"""
    run_python(code)


def test_nothing_happens_before_torchvision_is_imported_nor_where_it_has_its_operators(run_python):
    code = """
import sys, types
import torch
from contextrl_verl.patches.cpu import torchvision_ops
assert "torchvision" not in sys.modules
finders = [f for f in sys.meta_path if type(f).__name__ == "_DeclareBeforeImport"]
torchvision_ops.autoload()
assert len(finders) == 1
assert len([f for f in sys.meta_path if type(f).__name__ == "_DeclareBeforeImport"]) == 1
assert finders[0].find_spec("torchvision") is None
sys.modules["torchvision.extension"] = types.SimpleNamespace(_has_ops=lambda: True)
assert finders[0].find_spec("torchvision._meta_registrations") is None
assert not torchvision_ops._libraries
"""
    run_python(code)


def test_with_an_accelerator_nothing_is_installed(run_python):
    code = """
import sys
import torch
torch.version.cuda = "13.0"
sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "_DeclareBeforeImport"]
from contextrl_verl.patches.cpu.torchvision_ops import autoload
before = list(sys.meta_path)
autoload()
assert sys.meta_path == before
"""
    run_python(code)
