"""Runs a script on several ranks, as the trainer's workers would be."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from contextrl_verl.patches.cpu.environment import cpu_environment


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
        "CONTEXTRL_TEST_ATTENTION": attention,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(ranks),
    }
    base |= {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(script.parent), str(Path(__file__).parent), base.get("PYTHONPATH", "")]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env={**base, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    # Read side by side; a rank that fails takes the others along, which would wait for it in a collective for ever.
    with ThreadPoolExecutor(ranks) as pool:
        outputs = list(pool.map(lambda process: _finish(process, processes), processes))
    assert all(process.returncode == 0 for process in processes), "\n".join(output[-3000:] for output in outputs)
    return [json.loads(line) for line in outputs[0].splitlines() if line.startswith("{")]


def _finish(process: subprocess.Popen, processes: list[subprocess.Popen]) -> str:
    output = process.communicate(timeout=800)[0]
    if process.returncode != 0:
        for other in processes:
            other.kill()
    return output
