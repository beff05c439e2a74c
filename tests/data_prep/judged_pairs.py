"""Couples of pairs for the judge."""

from __future__ import annotations

from contextrl_verl.pairs import Context, ContrastivePair, Message


def couple(number: int, words: int = 30) -> list[ContrastivePair]:
    """Two directions of one couple of agent runs."""
    runs = [
        Context(
            kind="messages",
            messages=[
                Message(role="assistant", content=f"look at part {number}.{side} " + "word " * words),
                Message(role="user", content=f"it fails in function f{number}_{side}"),
            ],
        )
        for side in (0, 1)
    ]
    return [
        ContrastivePair(
            pair_id=f"c{number}-{side}",
            domain="trajectory",
            query=f"which run made this patch? ({number})",
            answer=f"@@ -1,1 +1,1 @@\n-old\n+a new and distinctive line {number} {side}\n",
            supporting=runs[side],
            confounders=[runs[1 - side]],
        )
        for side in (0, 1)
    ]


def couples(count: int, words: int = 30) -> list[ContrastivePair]:
    return [pair for number in range(count) for pair in couple(number, words)]
