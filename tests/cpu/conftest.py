"""Subprocesses of the CPU tests: what they check is the state of a fresh interpreter."""

import os
import subprocess
import sys

import pytest

from contextrl_verl.patches.cpu.environment import ENVIRONMENT


@pytest.fixture(scope="session")
def run_python():
    """``run_python(code, **environment)``: a fresh interpreter, on the default platform unless told otherwise."""

    def run(code: str, *, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        clean = {key: value for key, value in os.environ.items() if key not in {*ENVIRONMENT, "PYTHONPATH"}}
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, env={**clean, **environment}, check=check, capture_output=True, text=True, timeout=240
        )

    return run
