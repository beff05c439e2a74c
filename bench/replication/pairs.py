"""The one kind of contrastive pair that is trained: two tool calls that differ in one digit."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator

from bench.replication.tasks import call, trace
from contextrl_verl.demo.evidence_pairs import DIGITS
from contextrl_verl.pairs import Context, ContrastivePair

DOMAIN = "replication"
CALLS = 1


def held_out(key: str, values: tuple[str, str]) -> bool:
    """Whether the cell (key, the two values) is held out: one in five; its wordings are in no training pair."""
    return hashlib.sha256("|".join((key, *sorted(values))).encode()).digest()[0] % 5 == 0


def pairs(count: int, seed: int, split: str, *, calls: int = CALLS) -> Iterator[ContrastivePair]:
    """``count`` pairs of a split (``train`` or ``heldout``).

    Each couple of contexts serves twice, with either context as the supporting one, so that no context is more often
    right than wrong.
    """
    rng = random.Random(f"replication/pairs/{split}/{seed}")
    for number in itertools.count():
        lines = trace(rng, calls)
        at = rng.randrange(calls)
        tool, key, value, ending = lines[at]
        other = rng.choice([digit for digit in DIGITS if digit not in {line[2] for line in lines}])
        while held_out(key, (value, other)) != (split == "heldout"):
            value, other = rng.sample(
                [d for d in DIGITS if d not in {line[2] for n, line in enumerate(lines) if n != at}], 2
            )
        texts = {}
        for shown in (value, other):
            changed = [*lines[:at], (tool, key, shown, ending), *lines[at + 1 :]]
            texts[shown] = "".join(call(*line) for line in changed).rstrip("\n")
        for direction, (right, wrong) in enumerate(((value, other), (other, value))):
            if 2 * number + direction >= count:
                return
            yield ContrastivePair(
                pair_id=f"{split}-{seed}-{number:05d}-{direction}",
                domain=DOMAIN,
                query=f"what is {key}?",
                answer=right,
                supporting=Context(kind="text", text=texts[right]),
                confounders=[Context(kind="text", text=texts[wrong])],
                provenance={"generator": "bench.replication.pairs", "seed": seed, "couple": number},
                split="train" if split == "train" else "validation",
            )
