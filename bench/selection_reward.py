"""Scorings per second of the selection reward on one core, beside a naive "last letter" baseline in the same run.

Usage: python -m bench.selection_reward
"""

from __future__ import annotations

import time
from collections.abc import Callable
from timeit import Timer

from reward_fns import compute_score, parse_choice
from reward_fns.selection import score_selection

_REASONING = (
    "Both images show a kitchen. In the first the kettle stands on the stove and steam rises from it; in the second "
    "the stove is empty and the kettle is on the shelf. The question asks whether water is being heated, and only a "
    "kettle on the stove supports that. The other details, such as the time on the clock and the colour of the tiles, "
    "are the same in both and do not help. "
)
RESPONSES = {
    "bare label": "A",
    "one sentence": "The correct option is **B**.",
    "500 characters": (_REASONING * 2)[: 500 - len("Therefore, the answer is A.")] + "Therefore, the answer is A.",
    "think, 500 in all": f"<think>{_REASONING[:440]}</think>\n\nThe answer is \\boxed{{B}}."[:500],
}
# What a megabyte of is read without end by a careless pattern.
PIECES = ("answer is ", "answer is A ", "I will ", "\\boxed{", "<answer>", "not A, ", "<think>", "A or ", " ", "(")


def rate(call: Callable[[], object]) -> float:
    """Calls per second, the best of three measurements."""
    timer = Timer(call)
    count, _ = timer.autorange()
    return count / min(timer.repeat(3, count))


def main() -> None:
    """Print one row per kind of response, then adversarial megabytes in seconds each."""
    print(f"{'response':<20}{'dispatch/s':>12}{'reward/s':>12}{'last letter/s':>15}{'reward/naive':>14}")
    for name, text in RESPONSES.items():
        through = rate(lambda text=text: compute_score("contextrl/selection", text, "A", {"labels": ["A", "B"]}))
        direct = rate(lambda text=text: score_selection("contextrl/selection", text, "A"))
        naive = rate(lambda text=text: "A" if text.rfind("A") > text.rfind("B") else "B")
        print(f"{name:<20}{through:>12,.0f}{direct:>12,.0f}{naive:>15,.0f}{direct / naive:>14.4f}")
    for piece in PIECES:
        start = time.perf_counter()
        parse_choice(piece * (1_000_000 // len(piece)) + ".")
        print(f"1 MB of {piece!r:<16}{time.perf_counter() - start:>8.3f} s")


if __name__ == "__main__":
    main()
