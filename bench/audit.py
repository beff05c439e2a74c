"""Time and memory of the shortcut audit, all groups next to all but the words of the contexts.

    python bench/audit.py [--pairs 2000] [--context-kib 60]

Each of the two runs in its own process on one thread, so that peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TURNS = 20


def write(path: Path, pairs: int, context_kib: int) -> None:
    """Couples in both directions of made-up runs: words by a power law, some code marks, masks and return codes."""
    from contextrl_verl.pairs import Context, ContrastivePair, Message
    from contextrl_verl.pairs.files import write_pairs

    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz_", k=rng.randint(2, 10))) for _ in range(20000)]
    weights = [1 / (rank + 5) for rank in range(len(words))]

    def text(size: int) -> str:
        drawn = rng.choices(words, weights, k=size // 5)
        return "".join(word + rng.choice((" ", " ", " ", "\n", "(", ") ", ".", " = ")) for word in drawn)[:size]

    def context() -> Context:
        size = (context_kib << 10) // TURNS
        roles = ("assistant", "user")
        return Context(
            kind="messages",
            messages=[
                Message(
                    role=roles[n % 2], content=f"<returncode>{n % 3 == 0:d}</returncode>\n{text(size)}<PATCH_MASKED>"
                )
                for n in range(TURNS)
            ],
        )

    def stream():
        for couple in range(pairs // 2):
            contexts = [context(), context()]
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

    write_pairs(stream(), path)


def measure(how: str, path: str) -> None:
    from contextrl_verl.pairs.files import PairFile
    from data_prep.audit import audit, known_groups

    names = [name for name in known_groups() if how == "all" or name != "context alone"]
    started, cpu = time.perf_counter(), time.process_time()
    result = audit(PairFile(path), names)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "groups": how,
                "pairs": result.audited,
                "seconds": round(seconds, 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
                "peak_mib": round(peak),
                "false_alarms": len(result.shortcuts),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--context-kib", type=int, default=60)
    parser.add_argument("--measure", nargs=2, metavar=("HOW", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.parquet"
        write(path, arguments.pairs, arguments.context_kib)
        results = {}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        for how in ("all", "no words of contexts"):
            command = [sys.executable, __file__, "--measure", how, str(path)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            line = done.stdout.splitlines()[-1]
            results[how] = json.loads(line)
            print(line)
        print(f"file: {path.stat().st_size / 2**20:.0f} MiB")
    for what in ("seconds", "cpu_seconds", "peak_mib"):
        print(f"{what}: all / without = {results['all'][what] / results['no words of contexts'][what]:.2f}")


if __name__ == "__main__":
    main()
