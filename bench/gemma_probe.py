"""Probe Gemma 3 270M, a real language model that needs no hub, on pairs of real agent runs, on a CPU.

    PYTHONPATH=PACKAGES python -m bench.gemma_probe --runs RUNS.jsonl.xz --folder FOLDER

PACKAGES holds what bench/gemma_checkpoint.py names; Gemma's terms of use apply. FOLDER receives the checkpoint, the
pairs and the result; what is there already is not made again, and a probe that was stopped goes on. It is a base model,
so it is asked with --plain. Runs of any issue of a repository that edit the same file are paired, so that enough of
them fit into a budget a CPU can read.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from bench.gemma_checkpoint import checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="agent runs, as for contextrl pairs trajectories")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--budget", type=int, default=2048, help="tokens of a context at most")
    parser.add_argument("--limit", type=int, default=0, help="pairs to ask; 0 for all")
    given = parser.parse_args()
    model, pairs = checkpoint(given.folder / "checkpoint"), given.folder / f"pairs_{given.budget}.parquet"
    if not pairs.is_file():
        made = ["--set", "cascade.commit=any", "--set", "cascade.level=file", "--set", "splits=probe=1.0"]
        made += ["--max-tokens", str(given.budget)]
        _contextrl("pairs", "trajectories", "--input", str(given.runs), "--out", str(pairs), *made)
    # float32: without bfloat16 units, a CPU is three times slower in bfloat16.
    how = ["--plain", "--device", "cpu", "--dtype", "float32", "--batch-tokens", "3000", "--limit", str(given.limit)]
    kept = ["--cache", str(given.folder / "answers"), "--out", str(given.folder / "probe")]
    _contextrl("probe", str(pairs), "--model", str(model), *how, *kept)


def _contextrl(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "contextrl_verl.cli", *arguments], check=True)


if __name__ == "__main__":
    main()
