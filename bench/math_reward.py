r"""The mathematical reward beside verl's own math_verify scorer, in one run on one core.

    python -m bench.math_reward speed [--answers 10000]   # ordinary answers (verl's scorer: 1,000 of them)
    python -m bench.math_reward table                     # both on the table of answers in tests/
    python -m bench.math_reward hang [--seconds 5]        # formulas that take hours: what each took, and who is left

Seconds of CPU are those of this process and its workers, so that a machine which others use matters little.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import psutil

from bench.common import ROOT

TABLES = ROOT / "tests" / "reward_fns"


class Row(NamedTuple):
    wanted: float
    truth: str
    response: str
    source: str


def read_hanging() -> list[list[str]]:
    """References and answers of tests/reward_fns/math_hanging.tsv."""
    return _lines("math_hanging.tsv")


def read_table() -> list[Row]:
    """The rows of tests/reward_fns/math_answers.tsv."""
    rows = _lines("math_answers.tsv")
    return [Row(float(wanted), truth, response.replace("¶", "\n"), source) for wanted, truth, response, source in rows]


def _lines(name: str) -> list[list[str]]:
    lines = (TABLES / name).read_text("utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


def ordinary(count: int) -> Iterator[tuple[str, str]]:
    """References and responses as a job has them: four different answers to each reference, the first one right.

    Two of three references are numbers.
    """
    for number in range(count):
        group, off = divmod(number, 4)
        rng = random.Random(group)
        a, b, c = (rng.randint(2, 999) for _ in range(3))
        truth, answer = (
            (f"{a}", f"{a + off}.0"),
            (rf"\frac{{{a}}}{{{b}}}", f"{a + off}/{b}"),
            (f"{a / 8}", rf"\frac{{{a + off}}}{{8}}"),
            (rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b + off}}}"),
            (f"x^2+{a}x+{b}", f"x(x+{a})+{b + off}"),
            (f"({a}, {b})", rf"\left({a}, {b + off}.0\right)"),
            (f"{a}, {a + b}", rf"{a + b + off} \text{{ and }} {a}"),
            (f"x={a}{b}", f"{a}{b + off}.0"),
            (rf"{a}\pi", rf"\pi\cdot {a + off}"),
            (f"x>{a}", rf"({a + off}, \infty)"),
        )[group % 20 if group % 20 < 10 else group % 3]
        yield truth, f"We add {b} and {c}, so the result is $\\boxed{{{answer}}}$."


def _cpu_seconds() -> float:
    here = psutil.Process()
    times = [process.cpu_times() for process in (here, *here.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def _measure(name: str, score: Callable[[str, str], float], rows: list[tuple[str, str]]) -> float:
    """Print and return answers per second of CPU, after warming up."""
    for truth, response in rows[:20]:
        score(truth, response)
    started, cpu = time.perf_counter(), _cpu_seconds()
    paid = sum(score(truth, response) for truth, response in rows)
    seconds, cpu = time.perf_counter() - started, _cpu_seconds() - cpu
    rates = f"{len(rows) / seconds:.0f} a second, {len(rows) / cpu:.0f} a second of CPU"
    print(f"{name}: {len(rows):,} answers, {paid:.0f} paid, {rates}", flush=True)
    return len(rows) / cpu


def speed(count: int) -> None:
    from verl.utils.reward_score import math_verify as verls

    from reward_fns.math_answer import score_math

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = list(ordinary(count))
    ours = _measure("contextrl/math", lambda truth, response: score_math("", response, truth)["score"], rows)
    theirs = _measure("verl's math_verify", lambda truth, response: verls.compute_score(response, truth), rows[:1000])
    print(f"contextrl/math / verl's math_verify = {ours / theirs:.3g} (answers per second of CPU, one core)")


def table() -> None:
    from verl.utils.reward_score.math_verify import compute_score

    from reward_fns.math_answer import score_math

    rows = read_table()
    scores = {
        "contextrl/math": [score_math("", row.response, row.truth, verification_seconds=60)["score"] for row in rows],
        "verl's math_verify": [compute_score(row.response, row.truth) for row in rows],
    }
    for name, given in scores.items():
        paid_wrong = sum(score > row.wanted for score, row in zip(given, rows, strict=True))
        missed = sum(score < row.wanted for score, row in zip(given, rows, strict=True))
        print(f"{name}: {len(rows)} answers, {paid_wrong} wrong ones paid, {missed} right ones missed")


def hang(seconds: float) -> None:
    from reward_fns.math_answer import score_math

    before, slowest, hanging = set(psutil.Process().children(recursive=True)), 0.0, read_hanging()
    score_math("", r"\boxed{\frac{2}{4}}", "1/2")
    for number, (truth, answer) in enumerate(hanging):
        started = time.perf_counter()
        result = score_math("", rf"\boxed{{{answer}}}", truth, verification_seconds=seconds)
        took = time.perf_counter() - started
        slowest = max(slowest, took)
        next_one = score_math("", rf"\boxed{{\frac{{{2 * number}}}{{4}}}}", f"{number}/2")
        print(
            f"{took:6.2f} s  {result['verification']:10}  next: {next_one['verification']:9}  {answer[:70]}", flush=True
        )
    from reward_fns import math_answer

    math_answer._pool.close()
    left = [process.pid for process in psutil.Process().children(recursive=True) if process not in before]
    print(
        f"{len(hanging)} inputs, limit {seconds:g} s, the slowest {slowest:.2f} s; processes left after close: {left}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "table", "hang"))
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="limit of one verification")
    given = parser.parse_args()
    if given.what == "speed":
        return speed(given.answers)
    return table() if given.what == "table" else hang(given.seconds)


if __name__ == "__main__":
    main()
