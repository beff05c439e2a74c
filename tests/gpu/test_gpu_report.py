"""``make test-gpu`` as far as a CPU tells: its table on plain torch, what it says of a machine that lacks things."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("report.py")


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=600)


# Minutes; what it reports is tested line by line.
@pytest.mark.slow
def test_the_table_of_plain_torch_goes_into_a_document(tmp_path):
    document = tmp_path / "cost.md"
    document.write_text("before\n<!-- gpu: begin -->\nold\n<!-- gpu: end -->\nafter\n")
    done = run("--device", "cpu", "--quick", "--append", str(document))
    assert done.returncode == 0, done.stdout + done.stderr
    text = document.read_text()
    assert text.startswith("before\n<!-- gpu: begin -->\n| part |")
    assert text.endswith("\n<!-- gpu: end -->\nafter\n")
    assert "old" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 2 + 3 * 2 * 2 + 2 * 2
    assert all(row.endswith("| good |") for row in rows)
    assert sum("plain torch, FSDP2" in row and "fp32" in row for row in rows) == 6
    assert f"{len(rows)} lines, 0 wrong, 0 not run" in text


def test_without_a_gpu_it_says_so():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = run()
    assert done.returncode == 2
    assert "sees no CUDA device" in done.stderr
    assert "Fix: " in done.stderr


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import report

    return report


def test_without_verl_the_engine_is_named_as_not_run(report, monkeypatch):
    monkeypatch.setattr(report, "has", lambda module: module not in ("verl", "ray"))
    (line,) = report.through_verl("cpu")
    assert line.said == "not run: verl, ray not installed"
    assert line.good is None
    assert "| not run |" in report.table([line])


@pytest.mark.parametrize(
    ("case", "good"),
    [
        ({"error": 1e-5, "cosine": 1.0}, True),
        ({"error": 1e-3, "cosine": 1.0}, False),
        ({"error": float("nan"), "cosine": 1.0}, False),
        ({"failed": "RuntimeError: no kernel"}, False),
    ],
)
def test_a_line_is_judged_by_its_precision(report, case, good):
    assert report.judged("part", "what", "fp32", case).good is good
    assert report.judged("part", "what", "bf16", {"error": 0.3, "cosine": 0.98}).good


def test_a_script_that_fails_is_a_line_and_not_an_end(report, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('no such card')\n")
    (case,) = report.script(broken, device="cpu", attention="sdpa", precision="fp32", ranks=1)
    assert "no such card" in case["failed"]


@pytest.mark.slow
def test_the_engine_passes_through_the_same_report(report):
    lines = list(report.through_verl("cpu"))
    assert len(lines) > 10
    assert all(line.good for line in lines), [line for line in lines if not line.good]
