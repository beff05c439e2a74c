"""One optimiser step's gradient equals autograd of L_GRPO + lambda * mean(L_CA): relative error <= 1e-5 in fp32."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from contextrl_verl.cpu.environment import cpu_environment

SCRIPT = Path(__file__).with_name("joint_gradient.py")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run_ranks(script: Path, ranks: int, *arguments: str) -> list[dict]:
    """Run a script on some gloo ranks; the JSON lines of rank 0."""
    base = {**cpu_environment(), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
    base |= {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(script.parent), os.environ.get("PYTHONPATH", "")]),
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
    outputs = [process.communicate(timeout=800)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), outputs[0][-3000:] + outputs[-1][-3000:]
    return [json.loads(line) for line in outputs[0].splitlines() if line.startswith("{")]


@pytest.mark.parametrize("ranks", [1, 2])
def test_gradient_equals_autograd(tmp_path, ranks):
    cases = run_ranks(SCRIPT, ranks, str(tmp_path / "model"))
    assert len(cases) == 3 * 2 * 2 * 2
    wrong = [case for case in cases if not case["error"] <= 1e-5]
    assert not wrong, wrong
    # Every mini-batch knows the pairs of all ranks; together they are the eight of the batch.
    for case in cases:
        assert sum(values[0] for values in case["pairs"]) == 8, case
