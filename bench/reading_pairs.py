"""Opening a file of image pairs: our scan next to reading the whole file with pandas, in time and memory.

    python -m bench.reading_pairs [--pairs 20000] [--image-kib 8]

Each of the two runs in its own process, so that peak memory is its own.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from bench.common import fresh
from contextrl_verl.pairs import Context, ContrastivePair, ImageRef
from contextrl_verl.pairs.files import write_pairs

_MEASURED = """
import json, resource, sys, time
started = time.perf_counter()
{code}
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(dict(pairs=count, seconds=round(seconds, 3), peak_mib=round(peak))))
"""
_WAYS = {
    "scan": "from contextrl_verl.pairs.files import PairCollection\ncount = len(PairCollection([sys.argv[1]]).ids)",
    "pandas": "import pandas\ncount = len(pandas.read_parquet(sys.argv[1])['pair_id'].tolist())",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20000)
    parser.add_argument("--image-kib", type=int, default=8)
    given = parser.parse_args()

    def context() -> Context:
        return Context(kind="images", images=[ImageRef(bytes=os.urandom(given.image_kib << 10))])

    same = {"domain": "image", "query": "which?", "answer": "this"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.parquet"
        write_pairs(
            (
                ContrastivePair(pair_id=f"p{number}", supporting=context(), confounders=[context()], **same)
                for number in range(given.pairs)
            ),
            path,
        )
        results = {how: fresh("-c", _MEASURED.format(code=code), str(path)) for how, code in _WAYS.items()}
        for how, found in results.items():
            print(how, found)
        print(f"file: {path.stat().st_size / 2**20:.0f} MiB")
    for what in ("seconds", "peak_mib"):
        print(f"{what}: scan / pandas = {results['scan'][what] / results['pandas'][what]:.2f}")


if __name__ == "__main__":
    main()
