"""One run of verl's own ``verl.trainer.main_ppo`` as a subprocess, watched through verl's file logger."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from contextrl_verl.errors import UserError
from contextrl_verl.patches.cpu.environment import cpu_environment

TRAINER = "verl.trainer.main_ppo"
OnMetrics = Callable[[int, dict[str, Any]], None]


class JobError(UserError, RuntimeError):
    """The trainer stopped; the message ends with the last lines of its log."""


def overrides_of(keys: Mapping[str, Any]) -> list[str]:
    """Hydra overrides from a mapping; values are written as JSON, which Hydra's grammar reads."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in keys.items()]


def command_of(trainer: str, config_name: str, keys: Mapping[str, Any]) -> list[str]:
    """One of verl's trainers with one of our configs and Hydra overrides."""
    where = ["--config-path=pkg://contextrl_verl.config", f"--config-name={config_name}"]
    return [sys.executable, "-m", trainer, *where, *overrides_of(keys)]


def run_trainer(keys: Mapping[str, Any], folder: Path, **how: Any) -> list[tuple[int, dict[str, Any]]]:
    """Run the trainer on the CPU in ``folder`` with these Hydra overrides; ``how`` and the result as of `watch`."""
    command = command_of(TRAINER, "contextrl_trainer_cpu", keys)
    return watch(command, folder, cpu_environment(), cwd=folder, **how)


def watch(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    *,
    cwd: Path | None = None,
    on_metrics: OnMetrics | None = None,
    stop: Callable[[int], bool] | None = None,
    timeout: float = 3600,
) -> list[tuple[int, dict[str, Any]]]:
    """Run one of verl's trainers as ``command``, which must log to ``file``, and return (step, metrics) as logged.

    Nothing of it outlives this call, also when it is left by an exception or by SIGTERM (a Slurm job's end).

    Args:
        folder: gets ``trainer.log`` and ``metrics.jsonl``.
        on_metrics: called with (step, metrics) as each step is logged.
        stop: asked after each step; True kills the run with SIGKILL (to test resuming).
        timeout: seconds.

    Raises:
        JobError: a non-zero exit, or the timeout.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log, metrics_file = folder / "trainer.log", folder / "metrics.jsonl"
    metrics_file.write_text("")
    own = {"VERL_FILE_LOGGER_PATH": str(metrics_file.resolve()), "HYDRA_FULL_ERROR": "1", "RAY_DEDUP_LOGS": "0"}
    ends, status, seen = time.monotonic() + timeout, None, []
    with log.open("w") as stream, _sigterm_is_an_exit():
        streams = {"stdout": stream, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, cwd=cwd, env={**environment, **own}, start_new_session=True, **streams)
        try:
            while status is None and time.monotonic() < ends:
                time.sleep(0.3)
                status = process.poll()
                lines = metrics_file.read_text().splitlines(keepends=True)
                for line in [line for line in lines if line.endswith("\n")][len(seen) :]:
                    record = json.loads(line)
                    seen.append((record["step"], record["data"]))
                    if on_metrics:
                        on_metrics(*seen[-1])
                    if stop and stop(record["step"]):
                        return seen
        finally:
            _kill(process)
    if status == 0:
        return seen
    why = f"took longer than {timeout:.0f} s" if status is None else f"stopped with exit status {status}"
    last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise JobError(f"the trainer {why}; its log is {log}.\n{last}")


@contextmanager
def _sigterm_is_an_exit() -> Iterator[None]:
    """By default SIGTERM ends Python without ``finally``, and the trainer lives in a session of its own."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _kill(process: subprocess.Popen) -> None:
    """End the trainer, if it runs, and every Ray process of its session, which would outlive a killed driver."""
    import psutil

    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for child in family:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(family, timeout=10)
