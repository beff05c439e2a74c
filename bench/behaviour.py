"""What the project made before the house was rebuilt, and what it makes now: pairs, audit, runs of the forge.

    python -m bench.behaviour OUT.json [RUNS.jsonl.xz [OPTION...]]     # in the old clone and in the new one
    python -m bench.behaviour --compare OLD.json NEW.json

Goes when the rebuilding is done.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

IMAGES = ["--source", "easy_vqa", "--questions", "1500", "--seed", "1", "--workers", "2"]


def main(arguments: list[str]) -> int:
    if arguments[0] == "--compare":
        return compare(*(json.loads(Path(path).read_text()) for path in arguments[1:]))
    out, runs = arguments[0], arguments[1:]
    found: dict = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _run("forge", "--runs", "40", "--out", str(folder / "forged.jsonl"))
        found["forge"] = hashlib.sha256((folder / "forged.jsonl").read_bytes()).hexdigest()
        jobs = {"images": ["pairs", "images", *IMAGES], "forged": ["pairs", "trajectories", "--input", "forged.jsonl"]}
        if runs:
            jobs["runs"] = ["pairs", "trajectories", "--input", str(Path(runs[0]).resolve()), *runs[1:]]
        for name, command in jobs.items():
            _run(*command, "--out", f"{name}.parquet", cwd=folder)
            found[name] = digests(folder / f"{name}.parquet")
            done = _run("audit", f"{name}.parquet", "--out", name, "--repeats", "1", cwd=folder, check=False)
            rows = json.loads((folder / name / "audit.json").read_text())["rows"] if done.returncode < 2 else []
            found[f"{name} audit"] = {f"{row['group']} {row['sees']}": row["accuracy"] for row in rows}
    Path(out).write_text(json.dumps(found, indent=1))
    return 0


def digests(path: Path) -> dict[str, list[str]]:
    """Of each pair by its id: hashes of the question and answer, of the supporting context, and of the confounders."""
    from contextrl_verl.pairs.files import PairFile

    def digest(value) -> str:
        return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]

    return {
        pair.pair_id: [
            digest([pair.query, pair.answer, pair.split]),
            digest(pair.supporting.model_dump()),
            digest([context.model_dump() for context in pair.confounders]),
        ]
        for pair in PairFile(path)
    }


def _run(*command: str, cwd=None, check=True):
    done = subprocess.run(
        [sys.executable, "-m", "contextrl_verl.cli", *command], cwd=cwd, capture_output=True, text=True
    )
    if check and done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done


def compare(old: dict, new: dict) -> int:
    differences = 0
    for name in old:
        if isinstance(old[name], str):
            print(f"{name}: {'the same' if old[name] == new[name] else 'DIFFERENT'}")
        elif name.endswith("audit"):
            far = {key: (old[name].get(key), value) for key, value in new[name].items() if old[name].get(key) != value}
            print(f"{name}: {len(new[name]) - len(far)} of {len(new[name])} figures the same; others (old, new): {far}")
        else:
            both = set(old[name]) & set(new[name])
            told = Counter(
                part
                for pair in both
                for part, a, b in zip(PARTS, old[name][pair], new[name][pair], strict=True)
                if a != b
            )
            print(
                f"{name}: {len(old[name])} -> {len(new[name])} pairs, {len(both)} ids in both, differing {dict(told)}"
            )
            differences += len(old[name]) + len(new[name]) - 2 * len(both) + told.total()
    return int(differences > 0)


PARTS = ("question and answer", "supporting context", "confounders")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
