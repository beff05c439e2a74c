"""Runs the two jobs in turns and collects what verl logged about every step, and the memory of their processes."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.overhead.jobs import ARMS, Sizes, job_keys, write_material
from contextrl_verl.errors import ConfigError
from contextrl_verl.launch import run_trainer

# Both jobs are there at the same time, though only one works.
NEEDED_GIB = 12
# Ray names its processes; the one that holds the model, its gradients and the optimizer.
WORKER = "WorkerDict"


@dataclass
class Measured:
    """What was seen of one job.

    Resident sizes are added over a job's processes (the trainer, Ray, vLLM), so pages that they share count more than
    once, in both jobs alike.

    Attributes:
        steps: verl's metrics of every step, in order.
        peak_bytes: the largest sum of resident sizes seen.
        worker_peak_bytes: of the process that trains.
    """

    steps: list[dict[str, Any]] = field(default_factory=list)
    peak_bytes: int = 0
    worker_peak_bytes: int = 0

    def sample(self, family: list[psutil.Process]) -> None:
        """Look at the job's processes once."""
        total = 0
        for process in family:
            with suppress(psutil.Error):
                resident = process.memory_info().rss
                total += resident
                if WORKER in process.name() or any(WORKER in part for part in process.cmdline()[:1]):
                    self.worker_peak_bytes = max(self.worker_peak_bytes, resident)
        self.peak_bytes = max(self.peak_bytes, total)


def processes_of(folder: Path) -> list[psutil.Process]:
    """The processes of the job that this process started in a folder."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.cwd() == str(folder):
                found += [child, *child.children(recursive=True)]
    return found


def measure(sizes: Sizes, folder: Path, on_step: Callable[[int, int], None]) -> tuple[Measured, Measured]:
    """Run both jobs and return what they logged, first the one without pairs.

    Args:
        folder: gets the material and, per arm, ``trainer.log`` and ``metrics.jsonl``.
        on_step: called with (job, step) as each step is logged.

    Raises:
        ConfigError: too little memory is free.
        JobError: a job failed; the other is ended too.
    """
    free = psutil.virtual_memory().available / 2**30
    if free < NEEDED_GIB:
        raise ConfigError(
            f"{free:.1f} GiB of memory are free, and two jobs of verl's trainer side by side need {NEEDED_GIB}. "
            "Fix: end what else runs on this machine."
        )
    folders = [folder.resolve() / arm for arm in ARMS]
    for each in folders:
        each.mkdir(parents=True, exist_ok=True)
    write_material(sizes, folder.resolve())
    found, lock, ended = (Measured(), Measured()), threading.Lock(), threading.Event()

    def watch_memory() -> None:
        while not ended.wait(1.0):
            for each, job in zip(folders, found, strict=True):
                job.sample(processes_of(each))

    def run(job: int, turns: Path) -> None:
        def seen(step: int, metrics: dict[str, Any]) -> None:
            if step > 0:
                with lock:
                    found[job].steps.append(metrics)
                    on_step(job, step)

        try:
            run_trainer(job_keys(sizes, job, folder.resolve(), turns), folders[job], on_metrics=seen)
        except BaseException:
            (turns / "stop").touch()
            raise

    with tempfile.TemporaryDirectory(prefix="turns-", dir=folder) as turns, ThreadPoolExecutor(3) as pool:
        pool.submit(watch_memory)
        jobs = [pool.submit(run, job, Path(turns).resolve()) for job in (0, 1)]
        try:
            done, left = wait(jobs, return_when=FIRST_EXCEPTION)
            # The job that failed says why; the other would only say that it was stopped.
            for job in (*done, *left):
                job.result()
        except BaseException:
            for process in [process for each in folders for process in processes_of(each)]:
                with suppress(psutil.Error):
                    process.kill()
            raise
        finally:
            ended.set()
    return found
