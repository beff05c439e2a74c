"""Runs a recipe up to the point where verl's trainer would start, and tells what it would be started with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RECIPES = Path(__file__).parents[2] / "recipes"
MODELS = sorted(RECIPES.glob("*/run_*.sh"))
FILES = {"ROWS": "rows.parquet", "VAL_ROWS": "val.parquet", "PAIRS": "a.parquet,b.parquet", "VAL_PAIRS": "held.parquet"}
# Stands before the trainers and passes everything else on to Python.
_PYTHON = """#!/bin/bash
case "$*" in
  *verl.trainer.main_ppo*) printf '%s\\n' "$@" >"$TOLD" ;;
  *contextrl_verl.sft.run*) printf '%s\\n' "$@" >"$TOLD.sft"; echo "noise"; echo "/trained/by/sft" ;;
  *) exec "$REAL_PYTHON" "$@" ;;
esac
"""


def tell(script: Path, folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Run a recipe; ``folder`` gets ``told`` and ``told.sft``, the arguments of the trainers it would start."""
    python = folder / "python"
    python.write_text(_PYTHON)
    python.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "REAL_PYTHON": sys.executable}
    environment |= {"PYTHON": str(python), "TOLD": str(folder / "told"), "OUT": str(folder / "out"), **variables}
    command = ["bash", str(script), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def told(folder: Path, name: str = "told") -> list[str]:
    """The arguments of a trainer, without ``-m module``."""
    return (folder / name).read_text().splitlines()[2:]
