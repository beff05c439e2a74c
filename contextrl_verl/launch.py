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
from contextlib import contextmanager
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


def run_trainer(
    keys: Mapping[str, Any],
    folder: Path,
    *,
    config_name: str = "contextrl_trainer_cpu",
    on_metrics: OnMetrics | None = None,
    stop: Callable[[int], bool] | None = None,
    timeout: float = 3600,
) -> list[tuple[int, dict[str, Any]]]:
    """Run the trainer on the CPU and return what it logged.

    Args:
        keys: Hydra overrides.
        folder: gets ``trainer.log`` and ``metrics.jsonl``.
        on_metrics: called with (step, metrics) as each step is logged.
        stop: asked after each step; True kills the run with SIGKILL (to test resuming).
        timeout: seconds.

    Returns:
        (step, metrics) in logged order.

    Raises:
        JobError: a non-zero exit, or the timeout.
    """
    command = command_of(TRAINER, config_name, keys)
    return watch(command, folder, cpu_environment(), cwd=folder, on_metrics=on_metrics, stop=stop, timeout=timeout)


def command_of(trainer: str, config_name: str, keys: Mapping[str, Any]) -> list[str]:
    """One of verl's trainers with one of our configs and Hydra overrides."""
    where = ["--config-path=pkg://contextrl_verl.config", f"--config-name={config_name}"]
    return [sys.executable, "-m", trainer, *where, *overrides_of(keys)]


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
    """Run one of verl's trainers as ``command``, which must log to ``file``; arguments and result as `run_trainer`.

    Nothing of it outlives this call, also when it is left by an exception or by SIGTERM (a Slurm job's end).
    """
    folder.mkdir(parents=True, exist_ok=True)
    log, metrics_file = folder / "trainer.log", folder / "metrics.jsonl"
    metrics_file.unlink(missing_ok=True)
    environment = {
        **environment,
        "VERL_FILE_LOGGER_PATH": str(metrics_file.resolve()),
        "HYDRA_FULL_ERROR": "1",
        "RAY_DEDUP_LOGS": "0",
    }
    started, seen = time.monotonic(), []
    with log.open("w") as stream, _sigterm_is_an_exit():
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while True:
                ended = process.poll() is not None
                for step, metrics in _new_lines(metrics_file, len(seen)):
                    seen.append((step, metrics))
                    if on_metrics:
                        on_metrics(step, metrics)
                    if stop and stop(step):
                        return seen
                if ended:
                    break
                if time.monotonic() - started > timeout:
                    raise JobError(f"the trainer took longer than {timeout:.0f} s; its log is {log}.\n{_tail(log)}")
                time.sleep(0.3)
        finally:
            _kill(process)
    if process.returncode != 0:
        raise JobError(f"the trainer stopped with exit status {process.returncode}; its log is {log}.\n{_tail(log)}")
    return seen


@contextmanager
def _sigterm_is_an_exit() -> Iterator[None]:
    """By default SIGTERM ends Python without ``finally``, and the trainer lives in a session of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _new_lines(path: Path, known: int) -> list[tuple[int, dict[str, Any]]]:
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    complete = [line for line in lines if line.endswith("\n")]
    return [(record["step"], record["data"]) for record in map(json.loads, complete[known:])]


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _kill(process: subprocess.Popen) -> None:
    """End the trainer and every Ray process of its session, which would outlive a killed driver."""
    import psutil

    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for child in family:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)
