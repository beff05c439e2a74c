"""Time and memory of the shortcut audit, all groups next to all but the words of the contexts.

    python -m bench.audit [--pairs 2000] [--context-kib 60]

Each of the two runs in its own process on one thread, so that peak memory is its own.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.common import compare
from contextrl_verl.pairs import Context, ContrastivePair, Message
from contextrl_verl.pairs.files import write_pairs

TURNS = 20
_CODE = """
from contextrl_verl.pairs.files import PairFile
from data_prep.audit.features import GROUPS
from data_prep.audit.run import audit
result = audit(PairFile(sys.argv[1]), [name for name in GROUPS if name != {left_out!r}])
found = dict(pairs=result.audited, false_alarms=len(result.shortcuts))
"""


def couples(count: int, context_kib: int) -> Iterator[ContrastivePair]:
    """Couples in both directions of made-up runs: words by a power law, some code marks, masks and return codes."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz_", k=rng.randint(2, 10))) for _ in range(20000)]
    weights = [1 / (rank + 5) for rank in range(len(words))]

    def text(size: int) -> str:
        drawn = rng.choices(words, weights, k=size // 5)
        return "".join(word + rng.choice((" ", " ", " ", "\n", "(", ") ", ".", " = ")) for word in drawn)[:size]

    def turn(number: int) -> Message:
        content = f"<returncode>{number % 3 == 0:d}</returncode>\n{text((context_kib << 10) // TURNS)}<PATCH_MASKED>"
        return Message(role=("assistant", "user")[number % 2], content=content)

    for couple in range(count):
        contexts = [Context(kind="messages", messages=[turn(n) for n in range(TURNS)]) for _ in range(2)]
        for right in (0, 1):
            yield ContrastivePair(
                pair_id=f"{couple}-{right}",
                domain="trajectory",
                query="Which run produced this patch?",
                answer=f"--- a/x.py\n+++ b/x.py\n@@ -1,2 +1,3 @@\n+{text(1200)}",
                supporting=contexts[right],
                confounders=[contexts[1 - right]],
                provenance={"supporting_run": f"{couple}-{right}", "confounding_run": f"{couple}-{1 - right}"},
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--context-kib", type=int, default=60)
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.parquet"
        write_pairs(couples(given.pairs // 2, given.context_kib), path)
        print(f"file: {path.stat().st_size / 2**20:.0f} MiB")
        left_out = {"all groups": "", "no words of contexts": "context alone"}
        compare({name: _CODE.format(left_out=group) for name, group in left_out.items()}, str(path))


if __name__ == "__main__":
    main()
