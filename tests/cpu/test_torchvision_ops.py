"""PyPI's torchvision, a CUDA build, can be imported beside a CPU torch, in every process; and needs help to be."""

from __future__ import annotations

import pytest

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
        ("from contextrl_verl.cli import app; app(['forge', '--help'], standalone_mode=False)", RESIZED, {}),
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


def test_nothing_happens_before_torchvision_is_imported_nor_where_it_has_its_operators(run_python):
    code = """
import sys, types
import torch
from contextrl_verl.patches.cpu import torchvision_ops
assert "torchvision" not in sys.modules
finders = [f for f in sys.meta_path if type(f).__name__ == "_DeclareBeforeImport"]
torchvision_ops.install()
assert len(finders) == 1
assert len([f for f in sys.meta_path if type(f).__name__ == "_DeclareBeforeImport"]) == 1
assert finders[0].find_spec("torchvision") is None
sys.modules["torchvision.extension"] = types.SimpleNamespace(_has_ops=lambda: True)
assert finders[0].find_spec("torchvision._meta_registrations") is None
assert not torchvision_ops._libraries
"""
    run_python(code, **ON_CPU)


def test_with_an_accelerator_nothing_happens(run_python):
    code = """
import sys
import torch
torch.version.cuda = "13.0"
(finder,) = [f for f in sys.meta_path if type(f).__name__ == "_DeclareBeforeImport"]
assert finder.find_spec("torchvision._meta_registrations") is None
"""
    run_python(code, **ON_CPU)
