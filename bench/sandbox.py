"""Boxes: what they cost, whether they leave anything behind, and whether they hold.

    python -m bench.sandbox episodes [--episodes 200] [--at-once 16]  # six commands and a diff each; what is left after
    python -m bench.sandbox reset [--rounds 10]     # a fresh box, beside a fresh clone and its installation
    python -m bench.sandbox attacks                 # every attack of bench/attacks.py, with its seconds

The repository is a clone of the one that this file lies in, or ``--repository``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles

import psutil

from bench.attacks import ATTACKS, LIMITS, attack, host
from bench.common import ROOT, median_ratio, table
from contextrl_verl.sandbox import Base, Limits, Sandbox, open_sandbox

# Found again whatever becomes of its parents.
_BACKGROUND = f"1000.{os.getpid()}"
COMMANDS = [
    "ls",
    "git log --oneline | head -3",
    "grep -rn 'def ' --include=*.py . | head -20",
    "f=$(git ls-files '*.py' | head -1); echo $f > /tmp/f; sed -n 1,60p $f",
    "f=$(cat /tmp/f); sed -i '1i # edited' $f && python -c 'import ast; ast.parse(open(0).read())' < $f",
    f"(sleep {_BACKGROUND} &) ; git add -A && git diff --cached | head -c 2000",
]


def left(folder: Path) -> dict[str, int]:
    """What is there of ours: processes, mounts of this machine, files of ours, descriptors of this process."""
    below = len(psutil.Process().children(recursive=True))
    strays = sum(_BACKGROUND in process.info["cmdline"] for process in psutil.process_iter(["cmdline"]))
    mounts = sum("testbed" in line for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return {
        **{"processes below": below, "strays": strays, "mounts": mounts},
        **{"files": len(list(folder.iterdir())), "descriptors": len(os.listdir("/proc/self/fd"))},
    }


def episodes(sandbox: Sandbox, repository: Path, count: int, at_once: int) -> None:
    """Print how long all took, and each part; what is left must be what was there before."""
    folder = Path(tempfile.gettempdir())
    before = left(folder)

    def episode(number: int) -> list[float]:
        began = time.perf_counter()
        box = sandbox.start(Base(repository))
        seconds = [time.perf_counter() - began]
        for command in COMMANDS:
            done = box.run(command, seconds=60)
            assert (done.returncode, done.ended) == (0, ""), (command, done)
            seconds.append(done.seconds)
        began = time.perf_counter()
        patch = box.diff()
        assert patch.count("diff --git") == 1, patch
        assert "+# edited\n" in patch
        seconds.append(time.perf_counter() - began)
        box.close()
        return seconds

    began = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        told = list(pool.map(episode, range(count)))
    print(f"{count} episodes, {at_once} at a time: {time.perf_counter() - began:.1f} s")
    parts = {
        "start": [seconds[0] for seconds in told],
        "command": [one for seconds in told for one in seconds[1:-1]],
        "diff": [seconds[-1] for seconds in told],
    }
    rows = [(name, f"{median(ms) * 1e3:.0f}", f"{quantiles(ms, n=100)[98] * 1e3:.0f}") for name, ms in parts.items()]
    print(table(("part", "median ms", "99th percentile"), rows))
    after = left(folder)
    print(f"left before {before}, after {after}")
    assert after == before


def reset(sandbox: Sandbox, repository: Path, rounds: int) -> None:
    """Print the ratio of a fresh box and a command in it to a fresh clone, its installation and the command."""

    def box() -> None:
        fresh = sandbox.start(Base(repository))
        assert fresh.run("true").returncode == 0
        fresh.close()

    def clone() -> None:
        with tempfile.TemporaryDirectory(prefix="contextrl-clone-") as folder:
            subprocess.run(["git", "clone", "-q", "--no-local", repository, f"{folder}/it"], check=True)
            install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
            subprocess.run([*install, "--target", f"{folder}/installed", f"{folder}/it"], check=True)
            subprocess.run("true", shell=True, check=True, cwd=f"{folder}/it")

    def timed(what: Callable[[], None]) -> float:
        began = time.perf_counter()
        what()
        return time.perf_counter() - began

    seconds = [(timed(clone), timed(box)) for _ in range(rounds)]
    clones, boxes = zip(*seconds, strict=True)
    print(f"clone and install {median(clones) * 1e3:.0f} ms, box {median(boxes) * 1e3:.0f} ms (medians of {rounds})")
    print(f"box / clone and install = {median_ratio(clones, boxes)}")


def attacks(sandbox: Sandbox, repository: Path) -> None:
    """Print how each attack ended; every one must be held, and the next command fare as ever."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="contextrl-host-") as folder, host(Path(folder)) as at:
        for what in ATTACKS:
            began = time.perf_counter()
            done, held, following = attack(sandbox, repository, what, at)
            fine = held and following.returncode == 0
            over = done.seconds - what.seconds
            rows.append((what.name, done.ended or done.returncode, f"{done.seconds:.2f}", f"{max(over, 0):.2f}", fine))
            rows[-1] += (f"{time.perf_counter() - began:.2f}",)
    print(table(("attack", "ended", "seconds", "beyond its limit", "held", "with its box"), rows))
    assert all(row[4] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["episodes", "reset", "attacks"])
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--repository", type=Path, default=ROOT)
    arguments = parser.parse_args()
    sandbox = open_sandbox("bubblewrap", LIMITS if arguments.what == "attacks" else Limits())
    with tempfile.TemporaryDirectory(prefix="bench-sandbox-") as folder:
        tempfile.tempdir = folder
        repository = Path(folder, "repository")
        subprocess.run(["git", "clone", "-q", "--no-local", arguments.repository, repository], check=True)
        if arguments.what == "episodes":
            episodes(sandbox, repository, arguments.episodes, arguments.at_once)
        elif arguments.what == "reset":
            reset(sandbox, repository, arguments.rounds)
        else:
            # What the attacks look for lies at the top of it.
            (repository / "code.py").write_text("one = 1\n")
            attacks(sandbox, repository)


if __name__ == "__main__":
    main()
