"""Runs the two jobs in turns and collects what verl logged about every step."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.overhead.material import write_material
from bench.overhead.memory import MemorySampler, jobs_in
from bench.overhead.sizes import ARMS, Sizes, job_keys
from contextrl_verl.errors import ConfigError
from contextrl_verl.launch import run_trainer

# Both jobs are there at the same time, though only one works.
NEEDED_GIB = 12


@dataclass(frozen=True)
class Measured:
    """What was seen of one job.

    Attributes:
        steps: verl's metrics of every step, in order.
        peak_bytes: see :class:`bench.overhead.memory.MemorySampler`.
        worker_peak_bytes: of the process that trains.
    """

    steps: list[dict[str, Any]]
    peak_bytes: int
    worker_peak_bytes: int


def check_machine() -> None:
    """Raises ConfigError when two jobs do not fit into the memory that is free."""
    free = psutil.virtual_memory().available / 2**30
    if free < NEEDED_GIB:
        raise ConfigError(
            f"{free:.1f} GiB of memory are free, and two jobs of verl's trainer side by side need {NEEDED_GIB}. "
            "Fix: end what else runs on this machine."
        )


def measure(sizes: Sizes, folder: Path, on_step: Callable[[int, int], None] | None = None) -> tuple[Measured, Measured]:
    """Run both jobs and return what they logged, first the one without pairs.

    Args:
        sizes: of the jobs.
        folder: gets the material and, per arm, ``trainer.log`` and ``metrics.jsonl``.
        on_step: called with (job, step) as each step is logged.

    Raises:
        ConfigError: too little memory.
        JobError: a job failed; the other is ended too.
    """
    check_machine()
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_material(sizes, folder)
    folders = [folder / arm for arm in ARMS]
    lock = threading.Lock()
    with tempfile.TemporaryDirectory(prefix="turns-", dir=folder) as turns:

        def run(job: int) -> list[tuple[int, dict[str, Any]]]:
            def seen(step: int, _: dict[str, Any]) -> None:
                if on_step and step > 0:
                    with lock:
                        on_step(job, step)

            try:
                return run_trainer(job_keys(sizes, job, folder, Path(turns)), folders[job], on_metrics=seen)
            except BaseException:
                (Path(turns) / "stop").touch()
                raise

        for each in folders:
            each.mkdir(exist_ok=True)
        with MemorySampler(folders) as memory, ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(run, job) for job in (0, 1)]
            try:
                done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
                # The job that failed says why; the other would only say that it was stopped.
                for job in done:
                    job.result()
                logged = [job.result() for job in jobs]
            except BaseException:
                for _, family in jobs_in(folders):
                    for process in family:
                        with suppress(psutil.Error):
                            process.kill()
                raise
    results = []
    for each, lines in zip(folders, logged, strict=True):
        steps = [metrics for step, metrics in lines if step > 0]
        results.append(Measured(steps, memory.peak[str(each)], memory.worker_peak[str(each)]))
    return results[0], results[1]
