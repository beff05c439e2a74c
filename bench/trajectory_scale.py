"""`contextrl pairs trajectories` on many runs: seconds and peak memory, and how both grow when the runs double.

    python -m bench.trajectory_scale RUNS.jsonl[.xz] [--runs 66000] [--folder DIR] [-- OPTION...]

RUNS are real runs; they are written again and again under new ids and repositories until there are enough, as one
JSONL file of about 90 kB a run. The command runs on half of them and on all of them, each in its own process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from data_prep.trajectories.readers.files import raw_records
from data_prep.trajectories.readers.records import record_of


def multiply(source: Path, target: Path, runs: int) -> None:
    """Write ``runs`` records: copies of the source's, each round under another repository's name."""
    records = [record_of(raw) for raw in raw_records(source)]
    with target.open("w") as stream:
        for number in range(runs):
            record = records[number % len(records)]
            copy, (owner, rest) = number // len(records), record["instance_id"].split("__", 1)
            stream.write(json.dumps({**record, "instance_id": f"{owner}{copy}__{rest}"}) + "\n")


def measure(source: Path, out: Path, arguments: list[str]) -> tuple[float, float, str]:
    """Seconds, peak MiB of all processes together (shared pages once), and the command's last line."""
    command = [sys.executable, "-m", "contextrl_verl.cli", "pairs", "trajectories", "--input", str(source)]
    command += ["--out", str(out), "--set", "cascade.commit=any", *arguments]
    started, peak = time.monotonic(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
        watched = psutil.Process(job.pid)
        while job.poll() is None:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                family = [watched, *watched.children(recursive=True)]
                peak = max(peak, sum(process.memory_full_info().pss for process in family))
            time.sleep(0.5)
        output = job.stdout.read()
    if job.returncode:
        raise SystemExit(output)
    return time.monotonic() - started, peak / 2**20, output.strip().splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--runs", type=int, default=66_000)
    parser.add_argument("--folder", type=Path, help="for the multiplied runs (about 6 GB); default a temporary one")
    parser.add_argument("rest", nargs="*", help="options for the command, after --")
    given = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        source = Path(folder) / "runs.jsonl"
        for runs in (given.runs // 2, given.runs):
            multiply(given.source, source, runs)
            *figures, line = measure(source, Path(folder) / "pairs.parquet", given.rest)
            results.append(figures)
            told = "{:,} runs, {:.2f} GiB: {:.0f} s, {:.0f} MiB; {}"
            print(told.format(runs, source.stat().st_size / 2**30, *figures, line), flush=True)
    seconds, memory = (whole / half for half, whole in zip(*results, strict=True))
    print(f"twice the runs: {seconds:.2f} times the seconds, {memory:.2f} times the memory")


if __name__ == "__main__":
    main()
