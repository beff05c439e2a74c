"""Questions about made-up tool traces, and the files of a seed; the pairs are those of the demonstration.

One task is trained by every arm, five others by none. Every answer is one digit; contexts are short "long" contexts,
some 20 to 90 tokens, which a model of 0.1 to 1 million weights can hold. Everything is a pure function of (task, split,
seed, number), and no prompt is in both splits.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.replication.plan import Data
from contextrl_verl.demo.evidence_pairs import DIGITS, ENDINGS, KEYS, SPLITS, TOOLS, evidence_pairs, question_row
from contextrl_verl.demo.job import write_data
from contextrl_verl.demo.tiny_model import Turn

DATA_SOURCE = "contextrl/exact_match/replication"
# The evaluation asks other held-out items than the trainer's validation: seeds of their own.
VALIDATION, EVALUATION = 10_000, 20_000

# A context and what can be asked about it: (word of the question, its answer).
Asked = tuple[str, list[tuple[str, str]]]


def _calls(rng: random.Random, count: int, asked: int) -> Asked:
    """Calls with what they printed, asked for by their tool (0) or key (1); no tool, key or value twice."""
    calls = list(zip(*(rng.sample(list(words), count) for words in (TOOLS, KEYS, DIGITS)), strict=True))
    text = "".join(f"$ {tool} {key}\n{value} {rng.choice(ENDINGS)}\n" for tool, key, value in calls)
    return text, [(call[asked], call[2]) for call in calls]


def _among_lines(rng: random.Random, needles: int, others: int) -> Asked:
    """Some lines that tell a key's value, at random places among others that tell nothing."""
    told = [(key, rng.choice(DIGITS)) for key in rng.sample(KEYS, needles)]
    lines = [f"say {key} is {value}\n" for key, value in told]
    for _ in range(others):
        filler = f"$ {rng.choice(TOOLS)} {rng.choice(KEYS)}\n{rng.choice(ENDINGS)}\n"
        lines.insert(rng.randint(0, len(lines)), filler)
    return "".join(lines), told


def _variable_tracking(rng: random.Random) -> Asked:
    """Two chains of assignments; an asked variable stands one to three assignments from its digit."""
    keys, half = rng.sample(KEYS, len(KEYS)), len(KEYS) // 2
    lines, asked = [], []
    for chain, value in zip((keys[:half], keys[half:]), rng.sample(DIGITS, 2), strict=True):
        lines.append([f"$ {new} = {old}\n" for new, old in zip(chain, [value, *chain[:-1]], strict=True)])
        asked += [(key, value) for key in chain[1:]]
    # The chains interleave; each stays in its order.
    order = rng.sample([0] * half + [1] * half, 2 * half)
    return "".join(lines[which].pop(0) for which in order), asked


def _last_write_wins(rng: random.Random) -> Asked:
    keys = rng.sample(KEYS, 2)
    writes = [*keys, *(rng.choice(keys) for _ in range(rng.randint(1, 3)))]
    written = [(key, rng.choice(DIGITS)) for key in writes]
    return "".join(f"$ {key} = {value}\n" for key, value in written), list(dict(written).items())


MAIN = "reading"
_MAKERS: dict[str, Callable[[random.Random], Asked]] = {
    MAIN: lambda rng: _calls(rng, 2, 1),
    "needle": lambda rng: _among_lines(rng, 1, rng.randint(5, 12)),
    "multi_key_needle": lambda rng: _among_lines(rng, rng.randint(2, 4), rng.randint(3, 6)),
    "variable_tracking": _variable_tracking,
    "trace_qa": lambda rng: _calls(rng, rng.choice((2, 3)), 0),
    "last_write_wins": _last_write_wins,
}
TASKS = tuple(_MAKERS)
OTHERS = tuple(name for name in TASKS if name != MAIN)


def split_of(prompt: str) -> str:
    """Which split a prompt belongs to; one in four is held out."""
    return SPLITS[hashlib.sha256(prompt.encode()).digest()[0] % 4 == 0]


def items(task: str, count: int, seed: int, split: str) -> list[list[Turn]]:
    """``count`` different items of a task: its prompt and the digit that answers it, then the other questions that the
    same context answers, with their answers."""
    rng = random.Random(f"replication/{task}/{split}/{seed}")
    form = "what did {} say?" if task == "trace_qa" else "what is {}?"
    found: dict[str, list[Turn]] = {}
    while len(found) < count:
        context, asked = _MAKERS[task](rng)
        (question, answer), *more = ((form.format(word), digit) for word, digit in rng.sample(asked, len(asked)))
        if split_of(context + question) == split:
            found.setdefault(context + question, [(context + question, answer), *more])
    return list(found.values())


def write_material(folder: Path, data: Data, seed: int) -> None:
    """Write the four files of a seed that every arm trains on and is validated with."""

    def rows(count: int, seed: int, split: str) -> list[dict[str, Any]]:
        asked = items(MAIN, count, seed, split)
        return [question_row(number, *turns[0], DATA_SOURCE) for number, turns in enumerate(asked)]

    later = seed + VALIDATION
    train = rows(data.rows, seed, "train"), evidence_pairs(data.pairs, seed)
    held_out = rows(data.held_out_rows, later, "heldout"), evidence_pairs(data.held_out_pairs, later, "heldout")
    write_data(folder, *train, *held_out)
