"""One thing done in two ways, each in processes of its own: seconds, peak memory, and their ratios.

    python -m bench.side_by_side read [--pairs 20000] [--kib 8]    # opening a file of image pairs, beside pandas
    python -m bench.side_by_side audit [--pairs 2000] [--kib 60]   # all groups, beside all but the contexts' words
    python -m bench.side_by_side import                            # what the plugin adds to verl's own import
    python -m bench.side_by_side reward                            # the selection reward, beside the rightmost letter

On one thread each.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.common import compare
from contextrl_verl.pairs import Context, ContrastivePair, ImageRef, Message
from contextrl_verl.pairs.files import write_pairs

READ = {
    "scan": "from contextrl_verl.pairs.files import PairCollection as read\nfound = len(read([sys.argv[1]]).ids)",
    "pandas": "import pandas\nfound = len(pandas.read_parquet(sys.argv[1])['pair_id'].tolist())",
}
_AUDIT = """
from contextrl_verl.pairs.files import PairFile
from data_prep.audit.features import GROUPS
from data_prep.audit.run import audit
result = audit(PairFile(sys.argv[1]), [name for name in GROUPS if name != {left_out!r}])
found = dict(pairs=result.audited, false_alarms=len(result.shortcuts))
"""
AUDIT = {"all groups": _AUDIT.format(left_out=""), "no words of contexts": _AUDIT.format(left_out="context alone")}
# verl loads every ``verl.plugins`` entry point when it is imported, in every process of a job; here none.
IMPORT = {
    "the plugin": "import contextrl_verl.patches.cpu.verl_plugin\nfound = 'imported'",
    "verl without it": """
from importlib import metadata
real, none = metadata.entry_points, metadata.EntryPoints()
metadata.entry_points = lambda **wanted: none if wanted.get("group") == "verl.plugins" else real(**wanted)
import verl
assert "contextrl_verl.patches.cpu.verl_plugin" not in sys.modules
found = "imported"
""",
}
_SCORED = "from reward_fns import compute_score\nfound = 0\nfor _ in range(100_000):\n    found += {}"
REWARD = {
    "reward": _SCORED.format("compute_score('contextrl/selection', sys.argv[1], 'B', {'labels': ['A', 'B']})['score']"),
    "the released code's rule": _SCORED.format("sys.argv[1].rfind('B') > sys.argv[1].rfind('A')"),
}
RESPONSE = "Both show a kitchen, and only a kettle on the stove supports it. " * 7 + "The answer is \\boxed{B}."


def image_pairs(count: int, kib: int) -> Iterator[ContrastivePair]:
    """Pairs of pictures of random bytes."""
    for number in range(count):
        right, wrong = (Context(kind="images", images=[ImageRef(bytes=os.urandom(kib << 10))]) for _ in range(2))
        what = {"pair_id": f"p{number}", "domain": "image", "query": "which?", "answer": "this"}
        yield ContrastivePair(supporting=right, confounders=[wrong], **what)


def couples_of_runs(count: int, kib: int) -> Iterator[ContrastivePair]:
    """Couples in both directions of made-up runs: words by a power law, some code marks, masks and return codes."""
    rng, turns = random.Random(0), 20
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz_", k=rng.randint(2, 10))) for _ in range(20000)]
    weights = [1 / (rank + 5) for rank in range(len(words))]

    def text(size: int) -> str:
        drawn = rng.choices(words, weights, k=size // 5)
        return "".join(word + rng.choice((" ", " ", " ", "\n", "(", ") ", ".", " = ")) for word in drawn)[:size]

    def turn(number: int) -> Message:
        content = f"<returncode>{number % 3 == 0:d}</returncode>\n{text((kib << 10) // turns)}<PATCH_MASKED>"
        return Message(role=("assistant", "user")[number % 2], content=content)

    for couple in range(count // 2):
        contexts = [Context(kind="messages", messages=[turn(n) for n in range(turns)]) for _ in range(2)]
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
    parser.add_argument("what", choices=("read", "audit", "import", "reward"))
    parser.add_argument("--pairs", type=int, help="of the file that is read")
    parser.add_argument("--kib", type=int, help="of each of their contexts")
    given = parser.parse_args()
    if given.what == "reward":
        return compare(REWARD, RESPONSE)
    if given.what == "import":
        # Off the CPU platform: there the plugin's shims are wanted, and are no overhead.
        os.environ.pop("VERL_PLATFORM", None)
        return compare(IMPORT, rounds=7)
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    reads = given.what == "read"
    make, ways, pairs, kib = (image_pairs, READ, 20000, 8) if reads else (couples_of_runs, AUDIT, 2000, 60)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.parquet"
        write_pairs(make(given.pairs or pairs, given.kib or kib), path)
        print(f"file: {path.stat().st_size / 2**20:.0f} MiB")
        return compare(ways, str(path))


if __name__ == "__main__":
    main()
