"""Parts on processes and on Ray, failures, and kills at random moments."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from pipeline_job import parts, squares, text

from data_prep.common.pipeline import PipelineError, fingerprint, run_parts, total

EXPECTED = "".join(f"{number * number}\n" for number in range(0, 60, 2))


@pytest.mark.parametrize("workers", [1, 2])
def test_parts_come_back_in_order_with_counts_that_add_up(tmp_path, workers):
    done = run_parts(tmp_path, parts(6), squares, title="t", workers=workers, progress=False)
    assert text(done) == EXPECTED
    (stage,) = total(done)
    assert stage.summary() == {"name": "even", "unit": "numbers", "in": 60, "out": 30, "dropped": {"odd": 30}}
    assert len(stage.samples["odd"]) == 3


def test_done_parts_are_not_done_again(tmp_path):
    run_parts(tmp_path, parts(3), squares, title="t", workers=1, progress=False)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    done = run_parts(tmp_path, parts(6), squares, title="t", workers=1, progress=False)
    assert text(done) == EXPECTED
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in times} == times


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_names_the_part_and_keeps_the_others(tmp_path, workers):
    jobs = parts(6)
    jobs[4]["fail"] = True
    with pytest.raises(PipelineError, match=r"part-000004 .*ValueError: a planted failure.*Fix:"):
        run_parts(tmp_path, jobs, squares, title="t", workers=workers, progress=False)
    assert not (tmp_path / "part-000004.parquet").exists()
    assert text(run_parts(tmp_path, parts(6), squares, title="t", workers=1, progress=False)) == EXPECTED


def test_ray_gives_the_same_bytes(tmp_path):
    ray = pytest.importorskip("ray")
    here = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=here)
    try:
        done = run_parts(tmp_path / "ray", parts(6), squares, title="t", engine="ray", progress=False)
        assert text(done) == EXPECTED
        assert [stage.summary()["in"] for stage in total(done)] == [60]
        jobs = parts(2)
        jobs[1]["fail"] = True
        with pytest.raises(PipelineError, match=r"part-000001 .*a planted failure"):
            run_parts(tmp_path / "failing", jobs, squares, title="t", engine="ray", progress=False)
    finally:
        ray.shutdown()


def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(tmp_path):
    script = Path(__file__).with_name("pipeline_job.py")
    draw = random.Random(5)
    kills = 0
    for _ in range(60):
        job = subprocess.Popen([sys.executable, str(script), str(tmp_path), "12"], stderr=subprocess.DEVNULL)
        workers = []
        # Longer from try to try: a busy machine takes seconds to start Python.
        end = time.monotonic() + (0.5 + 1.5 * draw.random()) * (1 + kills / 10)
        while time.monotonic() < end and job.poll() is None:
            workers = psutil.Process(job.pid).children(recursive=True) or workers
            time.sleep(0.05)
        if job.poll() is not None:
            assert job.returncode == 0
            break
        job.send_signal(signal.SIGKILL)
        job.wait()
        kills += 1
        # Workers notice that their parent is gone.
        assert not psutil.wait_procs(workers, timeout=10)[1]
    else:
        pytest.fail("sixty tries did not finish the job")
    assert kills >= 1
    done = run_parts(tmp_path, parts(12, 0.02), squares, title="t", workers=1, progress=False)
    assert text(done) == "".join(f"{number * number}\n" for number in range(0, 120, 2))
    assert not list(tmp_path.glob(".*.part"))


def test_a_fingerprint_tells_jobs_apart():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
