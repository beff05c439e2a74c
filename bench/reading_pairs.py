"""Opening a file of image pairs: our scan next to reading the whole file with pandas, in time and memory.

    python bench/reading_pairs.py [--pairs 20000] [--image-kib 8]

Each of the two runs in its own process, so that peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def write(path: Path, pairs: int, image_kib: int) -> None:
    from contextrl_verl.pairs import Context, ContrastivePair, ImageRef
    from contextrl_verl.pairs.files import write_pairs

    def context() -> Context:
        return Context(kind="images", images=[ImageRef(bytes=os.urandom(image_kib << 10))])

    write_pairs(
        (
            ContrastivePair(
                pair_id=f"p{number}",
                domain="image",
                query="which?",
                answer="this",
                supporting=context(),
                confounders=[context()],
            )
            for number in range(pairs)
        ),
        path,
    )


def measure(how: str, path: str) -> None:
    started = time.perf_counter()
    if how == "scan":
        from contextrl_verl.pairs.files import PairCollection

        count = len(PairCollection([path]).ids)
    else:
        import pandas as pd

        count = len(pd.read_parquet(path)["pair_id"].tolist())
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"how": how, "pairs": count, "seconds": round(seconds, 3), "peak_mib": round(peak)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20000)
    parser.add_argument("--image-kib", type=int, default=8)
    parser.add_argument("--measure", nargs=2, metavar=("HOW", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.parquet"
        write(path, arguments.pairs, arguments.image_kib)
        results = {}
        for how in ("scan", "pandas"):
            command = [sys.executable, __file__, "--measure", how, str(path)]
            line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            results[how] = json.loads(line)
            print(line)
        print(f"file: {path.stat().st_size / 2**20:.0f} MiB")
    for what in ("seconds", "peak_mib"):
        print(f"{what}: scan / pandas = {results['scan'][what] / results['pandas'][what]:.2f}")


if __name__ == "__main__":
    main()
