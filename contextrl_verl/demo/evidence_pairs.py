"""Made-up tool traces for the demonstration: two contexts that differ in one digit, the one the answer names.

Everything here is a pure function of its arguments: the same (n, seed, split) gives the same rows on every machine.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator

DATA_SOURCE = "contextrl/exact_match/demo"
DOMAIN = "demo"
SPLITS = ("train", "heldout")

TOOLS = ("read", "grep", "query", "fetch", "list", "probe")
KEYS = ("port", "limit", "depth", "retry", "count", "level", "width", "batch")
ENDINGS = ("done", "ok", "exit", "end")
DIGITS = "0123456789"

# One cell in five is held out. A cell is (key, the two values): no wording of a held-out cell is ever in train.
_HELD_OUT_OF = 5


def context_text(tool: str, key: str, value: str, ending: str) -> str:
    """One call of a tool and what it printed."""
    return f"$ {tool} {key}\n{value} {ending}"


def _split_of(key: str, values: tuple[str, str]) -> str:
    digest = hashlib.sha256("|".join((key, *sorted(values))).encode()).digest()
    return "heldout" if digest[0] % _HELD_OUT_OF == 0 else "train"


def _couples(split: str) -> list[tuple[str, str, str, tuple[str, str]]]:
    """Every (tool, key, ending, the two values) of a split, in a fixed order."""
    cells = [
        (key, values)
        for key, values in itertools.product(KEYS, itertools.combinations(DIGITS, 2))
        if _split_of(key, values) == split
    ]
    return [(tool, key, end, values) for (key, values), tool, end in itertools.product(cells, TOOLS, ENDINGS)]


def evidence_pairs(n: int, seed: int = 0, split: str = "train") -> Iterator[dict]:
    """Yield n pairs: query, answer, the context that supports the answer, and one that differs in the decisive digit.

    Each couple of contexts serves twice, once for each value as the answer, so no context is more often right than
    wrong (with an odd n the last couple serves once). No two rows of one call have the same content.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; use one of {', '.join(SPLITS)}")
    if n < 0:
        raise ValueError(f"n is {n}; use 0 or more")
    couples = _couples(split)
    if n > 2 * len(couples):
        raise ValueError(f"n is {n}, but split {split!r} has {2 * len(couples)} different pairs; ask for fewer")
    return _rows(couples, n, seed, split)


def _rows(couples: list, n: int, seed: int, split: str) -> Iterator[dict]:
    chosen = random.Random(f"{DATA_SOURCE}/{split}/{seed}").sample(couples, (n + 1) // 2)
    directions = itertools.product(chosen, (0, 1))
    for index, ((tool, key, ending, values), direction) in enumerate(itertools.islice(directions, n)):
        right, wrong = values[direction], values[1 - direction]
        yield {
            "pair_id": f"demo-{split}-{seed}-{index:05d}",
            "domain": DOMAIN,
            "query": f"what is {key}?",
            "answer": right,
            "supporting": {"kind": "text", "text": context_text(tool, key, right, ending)},
            "confounders": [{"kind": "text", "text": context_text(tool, key, wrong, ending)}],
            "provenance": {
                "generator": "contextrl_verl.demo.evidence_pairs",
                "seed": seed,
                "couple": index // 2,
                "direction": direction,
            },
            "split": split,
        }


def rl_prompt(digit: str) -> str:
    """The ordinary task's question."""
    return f"say {digit}"


def rl_rows(n: int, seed: int = 0, split: str = "train") -> list[dict]:
    """n rows of an ordinary GRPO task in verl's columns: say one digit; the ground truth is that digit."""
    rng = random.Random(f"{DATA_SOURCE}/rl/{split}/{seed}")
    rows = []
    for index in range(n):
        digit = rng.choice(DIGITS)
        rows.append(
            {
                "data_source": DATA_SOURCE,
                "prompt": [{"role": "user", "content": rl_prompt(digit)}],
                "ability": "copy",
                "reward_model": {"style": "rule", "ground_truth": digit},
                "extra_info": {"index": index, "split": split},
            }
        )
    return rows
