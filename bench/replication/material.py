"""Questions and contrastive pairs about made-up tool traces, and the files of a seed.

One task is trained by every arm, five others by none. Every answer is one digit; contexts are short "long" contexts,
some 20 to 90 tokens, which a model of 0.1 to 1 million weights can hold. Everything is a pure function of (task, split,
seed, number), and no prompt is in both splits.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from contextrl_verl.demo.evidence_pairs import DIGITS, ENDINGS, KEYS, TOOLS
from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import Context, ContrastivePair
from contextrl_verl.pairs.files import write_pairs

if TYPE_CHECKING:
    from bench.replication.plan import Data

SPLITS = ("train", "heldout")
DATA_SOURCE = "contextrl/exact_match/replication"
PAIRS, HELD_OUT_PAIRS = "pairs.parquet", "held_out_pairs.parquet"
ROWS, HELD_OUT_ROWS = "rows.parquet", "held_out_rows.parquet"
# The evaluation asks other held-out items than the trainer's validation: seeds of their own.
VALIDATION, EVALUATION = 10_000, 20_000
# Calls in a pair's contexts.
_CALLS = 1


@dataclass(frozen=True)
class Item:
    """One question: the user message and the digit that answers it.

    ``more`` are the other questions that the same context answers, with their answers.
    """

    task: str
    prompt: str
    answer: str
    more: tuple[tuple[str, str], ...] = ()


def call(tool: str, key: str, value: str, ending: str) -> str:
    """One call of a tool and what it printed."""
    return f"$ {tool} {key}\n{value} {ending}\n"


def trace(rng: random.Random, calls: int) -> list[tuple[str, str, str, str]]:
    """(tool, key, value, ending) of each call; no key, tool or value twice while there are enough."""
    tools, keys, values = (rng.sample(list(words), calls) for words in (TOOLS, KEYS, DIGITS))
    return [(tool, key, value, rng.choice(ENDINGS)) for tool, key, value in zip(tools, keys, values, strict=True)]


# A context and what can be asked about it: (word of the question, its answer).
Asked = tuple[str, list[tuple[str, str]]]


def _reading(rng: random.Random) -> Asked:
    calls = trace(rng, 2)
    return "".join(call(*one) for one in calls), [(key, value) for _, key, value, _ in calls]


def _needle(rng: random.Random) -> Asked:
    key, value = rng.choice(KEYS), rng.choice(DIGITS)
    lines = [_filler(rng) for _ in range(rng.randint(5, 12))]
    lines.insert(rng.randint(0, len(lines)), f"say {key} is {value}\n")
    return "".join(lines), [(key, value)]


def _multi_key_needle(rng: random.Random) -> Asked:
    told = {key: rng.choice(DIGITS) for key in rng.sample(KEYS, rng.randint(2, 4))}
    lines = [f"say {key} is {value}\n" for key, value in told.items()]
    for _ in range(rng.randint(3, 6)):
        lines.insert(rng.randint(0, len(lines)), _filler(rng))
    return "".join(lines), list(told.items())


def _filler(rng: random.Random) -> str:
    return f"$ {rng.choice(TOOLS)} {rng.choice(KEYS)}\n{rng.choice(ENDINGS)}\n"


def _variable_tracking(rng: random.Random) -> Asked:
    """Two chains of assignments; an asked variable stands one to three assignments from its digit."""
    keys = rng.sample(KEYS, len(KEYS))
    values, half = rng.sample(DIGITS, 2), len(KEYS) // 2
    lines, asked = [], []
    for chain, value in zip((keys[:half], keys[half:]), values, strict=True):
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


def _trace_qa(rng: random.Random) -> Asked:
    """Asks by the tool and not, as the main task does, by the key."""
    calls = trace(rng, rng.choice((2, 3)))
    return "".join(call(*one) for one in calls), [(tool, value) for tool, _, value, _ in calls]


MAIN = "reading"
_MAKERS: dict[str, Callable[[random.Random], Asked]] = {
    MAIN: _reading,
    "needle": _needle,
    "multi_key_needle": _multi_key_needle,
    "variable_tracking": _variable_tracking,
    "trace_qa": _trace_qa,
    "last_write_wins": _last_write_wins,
}
TASKS = tuple(_MAKERS)
OTHERS = tuple(name for name in TASKS if name != MAIN)


def split_of(prompt: str) -> str:
    """Which split a prompt belongs to; one in four is held out."""
    return SPLITS[hashlib.sha256(prompt.encode()).digest()[0] % 4 == 0]


def items(task: str, count: int, seed: int, split: str) -> list[Item]:
    """``count`` different items of a task.

    Raises:
        ConfigError: no such task or split.
    """
    for what, given, known in (("task", task, TASKS), ("split", split, SPLITS)):
        if given not in known:
            raise ConfigError(f"the {what} is {given!r}, and there is no such {what}. Fix: one of {', '.join(known)}.")
    rng, form = random.Random(f"replication/{task}/{split}/{seed}"), "what is {}?"
    if task == "trace_qa":
        form = "what did {} say?"
    found: dict[str, Item] = {}
    while len(found) < count:
        context, asked = _MAKERS[task](rng)
        (question, answer), *more = ((form.format(word), digit) for word, digit in rng.sample(asked, len(asked)))
        prompt = context + question
        if split_of(prompt) == split:
            found.setdefault(prompt, Item(task, prompt, answer, tuple(more)))
    return list(found.values())


def held_out(key: str, values: tuple[str, str]) -> bool:
    """Whether the cell (key, the two values) is held out: one in five; its wordings are in no training pair."""
    return hashlib.sha256("|".join((key, *sorted(values))).encode()).digest()[0] % 5 == 0


def pairs(count: int, seed: int, split: str) -> Iterator[ContrastivePair]:
    """``count`` pairs of a split (``train`` or ``heldout``): two tool calls that differ in one digit.

    Each couple of contexts serves twice, with either context as the supporting one, so that no context is more often
    right than wrong.
    """
    rng = random.Random(f"replication/pairs/{split}/{seed}")
    for number in itertools.count():
        lines = trace(rng, _CALLS)
        at = rng.randrange(_CALLS)
        tool, key, value, ending = lines[at]
        others = {line[2] for place, line in enumerate(lines) if place != at}
        other = rng.choice([digit for digit in DIGITS if digit not in others | {value}])
        while held_out(key, (value, other)) != (split == "heldout"):
            value, other = rng.sample([digit for digit in DIGITS if digit not in others], 2)
        texts = {}
        for shown in (value, other):
            changed = [*lines[:at], (tool, key, shown, ending), *lines[at + 1 :]]
            texts[shown] = "".join(call(*line) for line in changed).rstrip("\n")
        for direction, (right, wrong) in enumerate(((value, other), (other, value))):
            if 2 * number + direction >= count:
                return
            yield ContrastivePair(
                pair_id=f"{split}-{seed}-{number:05d}-{direction}",
                domain="replication",
                query=f"what is {key}?",
                answer=right,
                supporting=Context(kind="text", text=texts[right]),
                confounders=[Context(kind="text", text=texts[wrong])],
                provenance={"generator": "bench.replication.pairs", "seed": seed, "couple": number},
                split="train" if split == "train" else "validation",
            )


def write_data(folder: Path, data: Data, seed: int) -> None:
    """Write the four files of a seed that every arm trains on and is validated with, rows in verl's columns."""
    folder.mkdir(parents=True, exist_ok=True)
    write_pairs(pairs(data.pairs, seed, "train"), folder / PAIRS)
    write_pairs(pairs(data.held_out_pairs, seed + VALIDATION, "heldout"), folder / HELD_OUT_PAIRS)
    for name, asked in (
        (ROWS, (data.rows, seed, "train")),
        (HELD_OUT_ROWS, (data.held_out_rows, seed + VALIDATION, "heldout")),
    ):
        rows = [
            {
                "data_source": DATA_SOURCE,
                "prompt": [{"role": "user", "content": item.prompt}],
                "ability": item.task,
                "reward_model": {"style": "rule", "ground_truth": item.answer},
                "extra_info": {"index": index, "split": asked[2]},
            }
            for index, item in enumerate(items(MAIN, *asked))
        ]
        pd.DataFrame(rows).to_parquet(folder / name)
