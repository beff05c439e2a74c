"""Opening a file of image pairs: our scan next to reading the whole file with pandas, in time and memory.

    python -m bench.reading_pairs [--pairs 20000] [--image-kib 8]

Each of the two runs in its own process, so that peak memory is its own.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from bench.common import compare
from contextrl_verl.pairs import Context, ContrastivePair, ImageRef
from contextrl_verl.pairs.files import write_pairs

_WAYS = {
    "scan": "from contextrl_verl.pairs.files import PairCollection as read\nfound = len(read([sys.argv[1]]).ids)",
    "pandas": "import pandas\nfound = len(pandas.read_parquet(sys.argv[1])['pair_id'].tolist())",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20000)
    parser.add_argument("--image-kib", type=int, default=8)
    given = parser.parse_args()

    def pair(number: int) -> ContrastivePair:
        right, wrong = (
            Context(kind="images", images=[ImageRef(bytes=os.urandom(given.image_kib << 10))]) for _ in range(2)
        )
        what = {"pair_id": f"p{number}", "domain": "image", "query": "which?", "answer": "this"}
        return ContrastivePair(supporting=right, confounders=[wrong], **what)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.parquet"
        write_pairs(map(pair, range(given.pairs)), path)
        print(f"file: {path.stat().st_size / 2**20:.0f} MiB")
        compare(_WAYS, str(path))


if __name__ == "__main__":
    main()
