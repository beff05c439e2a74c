"""Runs a script on several ranks, as the trainer's workers would be.

On a CPU the ranks are forked from a process that has imported verl once, which takes a rank longer than most checks.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
import traceback
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path

from contextrl_verl.patches.cpu.environment import cpu_environment, cpu_selected

TIMEOUT = 800.0
_processes = multiprocessing.get_context("forkserver")
# On a GPU nothing: importing verl asks CUDA, and a process that has done so must not be forked.
_processes.set_forkserver_preload(["rank_imports"] if cpu_selected() else [])


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run_ranks(
    script: Path, ranks: int, *arguments: str, environment: dict[str, str] | None = None, attention: str = "sdpa"
) -> list[dict]:
    """Run a script on some ranks, on the CPU unless another environment is given; the JSON lines of rank 0."""
    base = {
        **(environment or cpu_environment()),
        "OMP_NUM_THREADS": "1",
        "CONTEXTRL_TEST_ATTENTION": attention,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(ranks),
    }
    _start_the_parent()
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        logs = [Path(folder, f"rank_{rank}") for rank in range(ranks)]
        processes = [
            _processes.Process(
                target=_rank, args=(script, arguments, {**base, "RANK": str(rank), "LOCAL_RANK": str(rank)}, log)
            )
            for rank, log in enumerate(logs)
        ]
        for process in processes:
            process.start()
        running = {process.sentinel: process for process in processes}
        while running:
            ended = [running.pop(sentinel) for sentinel in wait(list(running), TIMEOUT)]
            # A rank that fails takes the others along, which would wait for it in a collective for ever.
            if not ended or any(process.exitcode for process in ended):
                for process in running.values():
                    process.kill()
        outputs = [log.read_text() for log in logs]
    assert all(process.exitcode == 0 for process in processes), "\n".join(output[-3000:] for output in outputs)
    return [json.loads(line) for line in outputs[0].splitlines() if line.startswith("{")]


def _start_the_parent() -> None:
    """Start the process that ranks are forked from; Python 3.11 does not tell it where modules to preload lie."""
    before = dict(os.environ)
    here = str(Path(__file__).parent)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([here, before.get("PYTHONPATH", "")])}
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _rank(script: Path, arguments: tuple[str, ...], environment: dict[str, str], log: Path) -> None:
    """The process of a rank: the script as ``python SCRIPT ARGUMENTS`` would run it, its output in a file."""
    stream = os.open(log, os.O_WRONLY | os.O_CREAT)
    for standard in (1, 2):
        os.dup2(stream, standard)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(script), *arguments]
    sys.path[:0] = [str(script.parent), str(Path(__file__).parent)]
    if cpu_selected():
        assert "rank_imports" in sys.modules, "nothing was preloaded"
    try:
        runpy.run_path(str(script), run_name="__main__")
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    # Without the exit handlers of a process that was never meant to be forked.
    os._exit(0)
