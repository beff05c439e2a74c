"""Every pair with a cosine of at least 0.85 among 200,000 vectors: this package, faiss and sentence-transformers.

    python bench/similarity_search.py [--rows 200000] [--dimensions 1024] [--threshold 0.85] [--data cone]

Each contender runs in a process of its own on the same file, with the same number of threads, one after the other.
Near-duplicates are planted, so that there is something to find. The pairs found are compared with faiss's complete
list, decided in float64, and some rows are compared with all others in float64.
Data: ``random`` directions; ``cone``: a common mean and a falling spectrum, as real encoders have.
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

import numpy as np

CONTENDERS = ("contextrl", "faiss", "sentence-transformers")
# faiss scores in float32; what it finds just below the threshold is decided in float64.
_FLOAT32 = 1e-4


def make(path: Path, rows: int, dimensions: int, data: str, seed: int) -> None:
    """Write (rows, dimensions) float32 rows of length 1; one row in fifty is a near-duplicate of another."""
    draw = np.random.default_rng(seed)
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (rows, dimensions))
    spectrum = np.arange(1, dimensions + 1, dtype=np.float32) ** -0.3
    for start in range(0, rows, 4096):
        part = draw.standard_normal((min(4096, rows - start), dimensions), dtype=np.float32)
        if data == "cone":
            part *= spectrum
            part /= np.linalg.norm(part, axis=1, keepdims=True)
            part[:, 0] += 1.0
        vectors[start : start + 4096] = part / np.linalg.norm(part, axis=1, keepdims=True)
    pairs = draw.choice(rows, (rows // 50, 2), replace=False)
    for one, other in pairs:
        noise = draw.standard_normal(dimensions, dtype=np.float32) / np.sqrt(np.float32(dimensions))
        near = vectors[one] + np.float32(draw.uniform(0.0, 0.8)) * noise
        vectors[other] = near / np.linalg.norm(near)
    vectors.flush()


def run(contender: str, path: Path, threshold: float, out: Path) -> None:
    """One contender in this process: seconds, pairs and peak memory as JSON; pairs found into ``out``."""
    vectors = np.load(path)
    # What it imports is not its work.
    if contender == "contextrl":
        from data_prep.images.search import pairs_above
    elif contender == "faiss":
        import faiss
    else:
        import torch
        from sentence_transformers import util
    started = time.perf_counter()
    if contender == "contextrl":
        blocks = [(found.i, found.j) for found in pairs_above(vectors, threshold)]
        i, j = (np.concatenate(part) for part in zip(*blocks, strict=True))
    elif contender == "faiss":
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        held = []
        for start in range(0, len(vectors), 4096):
            ends, _, other = index.range_search(vectors[start : start + 4096], threshold - _FLOAT32)
            one = np.repeat(np.arange(start, start + len(ends) - 1), np.diff(ends).astype(np.int64))
            held.append((one[other > one], other[other > one]))
        i, j = (np.concatenate(part) for part in zip(*held, strict=True))
    else:
        found = util.paraphrase_mining_embeddings(torch.from_numpy(vectors))
        found = [(one, other) for score, one, other in found if score >= threshold]
        i, j = np.array(found or np.zeros((0, 2)), dtype=np.int64).T
    seconds = time.perf_counter() - started
    np.save(out, np.stack([np.minimum(i, j), np.maximum(i, j)], axis=1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "pairs": len(i), "peak_gib": peak}))


def compare(path: Path, threshold: float, found: dict[str, Path], rows: int, seed: int) -> list[str]:
    """Sentences on what the exact contenders found; raises SystemExit where they differ."""
    vectors = np.load(path, mmap_mode="r")

    def exact(pairs: np.ndarray) -> np.ndarray:
        parts = np.array_split(pairs, max(1, len(pairs) // 4096))
        scores = [np.einsum("ij,ij->i", *(vectors[part[:, at]].astype(np.float64) for at in (0, 1))) for part in parts]
        return pairs[np.concatenate(scores) >= threshold]

    def names(pairs: np.ndarray) -> np.ndarray:
        return np.sort(pairs[:, 0] * len(vectors) + pairs[:, 1])

    ours, theirs = names(np.load(found["contextrl"])), names(exact(np.load(found["faiss"])))
    if not np.array_equal(ours, theirs):
        raise SystemExit(f"different results: {len(ours)} pairs, but {len(theirs)} by faiss and float64")
    looked_at = np.sort(np.random.default_rng(seed).choice(len(vectors), min(rows, len(vectors)), replace=False))
    left = vectors[looked_at].astype(np.float64)
    true = []
    for start in range(0, len(vectors), 4096):
        at, other = np.nonzero(left @ vectors[start : start + 4096].astype(np.float64).T >= threshold)
        true.append(np.stack([looked_at[at], other + start], axis=1))
    true = np.concatenate(true)
    true = true[true[:, 0] != true[:, 1]]
    true = np.unique(names(np.sort(true, axis=1)))
    among = ours[np.isin(ours // len(vectors), looked_at) | np.isin(ours % len(vectors), looked_at)]
    if not np.array_equal(among, true):
        raise SystemExit(f"different results for {len(looked_at)} rows: {len(among)} pairs, {len(true)} in float64")
    return [
        f"same {len(ours):,} pairs as faiss IndexFlatIP, decided in float64",
        f"same {len(true):,} pairs as brute force in float64 for {len(looked_at):,} rows against all",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--threshold", type=float, default=0.85)
    parser.add_argument("--data", choices=("random", "cone"), default="cone")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--checked", type=int, default=2000, help="rows compared with all others in float64")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--patience", type=float, default=0, help="stop sentence-transformers after so many times our time; 0: never"
    )
    parser.add_argument("--folder", type=Path, help="for the vectors (0.8 GB by default); default a temporary one")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        run(arguments.contender, arguments.folder / "vectors.npy", arguments.threshold,
            arguments.folder / f"{arguments.contender}.npy")  # fmt: skip
        return
    threads = str(arguments.threads)
    environ = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "vectors.npy"
        make(path, arguments.rows, arguments.dimensions, arguments.data, arguments.seed)
        print(f"{arguments.rows:,} x {arguments.dimensions} ({arguments.data}), cosine >= {arguments.threshold}, "
              f"{threads} threads", flush=True)  # fmt: skip
        seconds = {}
        for contender in CONTENDERS:
            command = [sys.executable, __file__, "--contender", contender, "--folder", folder]
            command += ["--threshold", str(arguments.threshold)]
            # Its import and the reading of the file are in the time given, not in the time measured.
            limit = arguments.patience * seconds["contextrl"] + 30 if arguments.patience and len(seconds) == 2 else None
            try:
                done = subprocess.run(
                    command, env=environ, stdout=subprocess.PIPE, text=True, check=True, timeout=limit
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                print(f"{contender:24} stopped after {limit - 30:.1f} s, {arguments.patience:g} times our time")
                continue
            result = json.loads(done.stdout.splitlines()[-1])
            seconds[contender] = result["seconds"]
            line = f"{contender:24} {result['seconds']:8.1f} s {result['peak_gib']:6.2f} GiB"
            print(f"{line} {result['pairs']:>12,} pairs", flush=True)
        found = {name: Path(folder) / f"{name}.npy" for name in CONTENDERS}
        for sentence in compare(path, arguments.threshold, found, arguments.checked, arguments.seed):
            print(sentence, flush=True)
    own, slowest = seconds["contextrl"], seconds.get(CONTENDERS[2])
    times = f"{slowest / own:.1f} times" if slowest else f"more than {arguments.patience:g} times"
    print(f"time: {own / seconds['faiss']:.3f} of faiss; sentence-transformers {times}")


if __name__ == "__main__":
    main()
