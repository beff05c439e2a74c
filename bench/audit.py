"""Time and memory of the shortcut audit, all groups next to all but the words of the contexts.

    python bench/audit.py [--pairs 2000] [--context-kib 60]

Each of the two runs in its own process on one thread, so that peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from contextrl_verl.pairs import Context, ContrastivePair, Message
from contextrl_verl.pairs.files import PairFile, write_pairs

TURNS = 20


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


def measure(how: str, path: Path) -> dict:
    """Seconds, peak memory and false alarms of one audit, in a process of its own."""
    from data_prep.audit import audit, known_groups

    names = [name for name in known_groups() if how == "all" or name != "context alone"]
    started, cpu = time.perf_counter(), time.process_time()
    result = audit(PairFile(path), names)
    return {
        "groups": how,
        "pairs": result.audited,
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "false_alarms": len(result.shortcuts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--context-kib", type=int, default=60)
    arguments = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.parquet"
        write_pairs(couples(arguments.pairs // 2, arguments.context_kib), path)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
            found = [pool.submit(measure, how, path).result() for how in ("all", "no words of contexts")]
        print(*map(json.dumps, found), f"file: {path.stat().st_size / 2**20:.0f} MiB", sep="\n")
    for what in ("seconds", "cpu_seconds", "peak_mib"):
        print(f"{what}: all / without = {found[0][what] / found[1][what]:.2f}")


if __name__ == "__main__":
    main()
