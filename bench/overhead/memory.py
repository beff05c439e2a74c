"""Memory of a job's processes, sampled from outside."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil

# Ray names its processes; the one that holds the model, its gradients and the optimizer.
WORKER = "WorkerDict"


def jobs_in(folders: list[Path]) -> list[tuple[str, list[psutil.Process]]]:
    """Of every job that this process started in one of the folders: the folder, and the job's processes."""
    wanted, found = {str(folder.resolve()) for folder in folders}, []
    for child in psutil.Process().children():
        try:
            if child.cwd() in wanted:
                found.append((child.cwd(), [child, *child.children(recursive=True)]))
        except psutil.Error:
            continue
    return found


class MemorySampler:
    """Peak resident memory of the jobs started by this process, each known by its working directory.

    Resident sizes are added over a job's processes (the trainer, Ray, vLLM), so pages that they share count more
    than once, in both jobs alike.

    Attributes:
        peak: folder -> bytes, the largest sum seen.
        worker_peak: folder -> bytes, of the training worker alone.
    """

    def __init__(self, folders: list[Path], every: float = 1.0) -> None:
        self.folders = folders
        self.every = every
        self.peak = {str(folder.resolve()): 0 for folder in folders}
        self.worker_peak = dict(self.peak)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> MemorySampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self.every):
            for folder, family in jobs_in(self.folders):
                self._sample(folder, family)

    def _sample(self, folder: str, family: list[psutil.Process]) -> None:
        total, worker = 0, 0
        for process in family:
            try:
                resident = process.memory_info().rss
                total += resident
                if WORKER in process.name() or any(WORKER in part for part in process.cmdline()[:1]):
                    worker = max(worker, resident)
            except psutil.Error:
                continue
        self.peak[folder] = max(self.peak[folder], total)
        self.worker_peak[folder] = max(self.worker_peak[folder], worker)
