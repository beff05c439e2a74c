"""PyPI's torchvision, a CUDA build, can be imported beside a CPU torch, in every process; and needs help to be."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from contextrl_verl.patches.cpu import torchvision_ops
from contextrl_verl.patches.cpu.environment import AUTOLOAD

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision", reason="needs torchvision (make setup)")
extension = pytest.importorskip("torchvision.extension")

if torch.version.cuda or extension._has_ops():
    pytest.skip("torchvision has its operators here", allow_module_level=True)

ON_CPU = {"VERL_PLATFORM": "cpu", "PYTHONPATH": AUTOLOAD}
RESIZED = """
import torchvision.transforms.v2.functional as F
import torch
picture = torch.arange(48, dtype=torch.uint8).view(3, 4, 4)
assert F.resize(picture, [8, 8]).shape == (3, 8, 8)
"""
PROCESSED = """
import qwen_vl_utils
from transformers import Qwen2VLImageProcessor
assert "image_processing_qwen2_vl" in Qwen2VLImageProcessor.__module__
"""


def test_without_the_platform_nothing_of_ours_is_in_import_torch(run_python):
    code = (
        "import sys, torch; print([m for m in sys.modules if m.startswith(('contextrl', 'reward_fns', 'data_prep'))])"
    )
    assert run_python(code).stdout.strip() == "[]"
    assert "contextrl_verl.patches.cpu.torchvision_ops" in run_python(code, **ON_CPU).stdout


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
    run_python(code)


@pytest.mark.parametrize(
    ("first", "images", "environment"),
    [
        ("", RESIZED + PROCESSED, ON_CPU),
        ("import verl", RESIZED, {"VERL_PLATFORM": "cpu"}),
        pytest.param(
            *("from contextrl_verl.cli import app; app(['forge', '--help'], standalone_mode=False)", RESIZED, {}),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_images_are_processed_here_and_in_a_process_that_is_started(run_python, first, images, environment):
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {images!r}], check=True)"
    run_python(f"{first}\n{images}\n{child}", **environment)


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
    run_python(code, **ON_CPU)


def test_it_is_installed_once_and_waits_for_torchvision(run_python):
    code = """
import sys
import torch
from contextrl_verl.patches.cpu import torchvision_ops
finders, path = list(sys.meta_path), list(sys.path)
torchvision_ops.install()
assert (sys.meta_path, sys.path) == (finders, path)
assert "torchvision" not in sys.modules
assert not torchvision_ops._libraries
"""
    run_python(code, **ON_CPU)


@pytest.mark.parametrize(("cuda", "operators"), [("13.0", False), (None, True)])
def test_with_an_accelerator_or_operators_nothing_is_declared(monkeypatch, cuda, operators):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torchvision_ops, "_libraries", [])
    torchvision_ops._declare(SimpleNamespace(_has_ops=lambda: operators))
    assert not torchvision_ops._libraries
