"""Made-up tool traces for the demonstration: two contexts that differ in one digit, the one the answer names.

Everything here is a pure function of its arguments: the same (n, seed, split) gives the same rows on every machine.
"""

from __future__ import annotations

import hashlib
import random
from itertools import combinations, product
from typing import Any

from contextrl_verl.pairs import Context, ContrastivePair

DATA_SOURCE = "contextrl/exact_match/demo"
SPLITS = ("train", "heldout")

TOOLS = ("read", "grep", "query", "fetch", "list", "probe")
KEYS = ("port", "limit", "depth", "retry", "count", "level", "width", "batch")
ENDINGS = ("done", "ok", "exit", "end")
DIGITS = "0123456789"


def text_pair(
    pair_id: str,
    query: str,
    answer: str,
    right: str,
    wrong: str,
    split: str = "train",
    domain: str = "demo",
    **made: Any,
) -> ContrastivePair:
    """A pair of two texts; what is not ``train`` is its ``validation``, and ``made`` its provenance."""
    supporting, confounder = (Context(kind="text", text=text) for text in (right, wrong))
    what = {"pair_id": pair_id, "domain": domain, "query": query, "answer": answer, "provenance": made}
    what["split"] = "train" if split == "train" else "validation"
    return ContrastivePair(supporting=supporting, confounders=[confounder], **what)


def question_row(index: int, question: str, answer: str, source: str = DATA_SOURCE, **more: Any) -> dict[str, Any]:
    """An ordinary row of GRPO in verl's columns, scored against the answer; ``more`` are columns of its own."""
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": question}],
        "ability": "copy",
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {"index": index},
        **more,
    }


def held_out(key: str, values: tuple[str, ...]) -> bool:
    """Whether the cell (key, the two values) is held out: one in five, and no wording of it is ever in train."""
    return hashlib.sha256("|".join((key, *sorted(values))).encode()).digest()[0] % 5 == 0


def evidence_pairs(n: int, seed: int = 0, split: str = "train") -> list[ContrastivePair]:
    """n pairs: a question for a key, and two calls of a tool that printed different digits for it.

    Each couple of contexts serves twice, once for each digit as the answer, so no context is more often right than
    wrong (with an odd n the last couple serves once). No two pairs have the same content.

    Raises:
        ValueError: an unknown split, or more pairs than there are.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; use one of {', '.join(SPLITS)}")
    cells = [cell for cell in product(KEYS, combinations(DIGITS, 2)) if held_out(*cell) == (split == "heldout")]
    couples = list(product(cells, TOOLS, ENDINGS))
    if not 0 <= n <= 2 * len(couples):
        raise ValueError(f"n is {n}, but split {split!r} has {2 * len(couples)} different pairs; ask for fewer")
    chosen = random.Random(f"{DATA_SOURCE}/{split}/{seed}").sample(couples, (n + 1) // 2)
    found = []
    for index, (((key, values), tool, ending), direction) in enumerate(product(chosen, (0, 1))):
        right, wrong = (f"$ {tool} {key}\n{values[which]} {ending}" for which in (direction, 1 - direction))
        made = {"generator": __name__, "seed": seed, "couple": index // 2, "direction": direction}
        name = f"demo-{split}-{seed}-{index:05d}"
        found.append(text_pair(name, f"what is {key}?", values[direction], right, wrong, split, **made))
    return found[:n]


def rl_rows(n: int, seed: int = 0, split: str = "train") -> list[dict[str, Any]]:
    """n rows of an ordinary GRPO task: say one digit; the ground truth is that digit."""
    rng = random.Random(f"{DATA_SOURCE}/rl/{split}/{seed}")
    return [
        question_row(index, f"say {digit}", digit, extra_info={"index": index, "split": split})
        for index, digit in enumerate(rng.choice(DIGITS) for _ in range(n))
    ]
