"""Questions about made-up tool traces: the main task that every arm trains, and five others that none of them trains.

Every answer is one digit. Contexts are short "long" contexts, some 20 to 90 tokens, which a model of 0.1 to 1 million
weights can hold. Everything is a pure function of (task, split, seed, number); no prompt is in both splits.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from contextrl_verl.demo.evidence_pairs import DIGITS, ENDINGS, KEYS, TOOLS
from contextrl_verl.errors import ConfigError

SPLITS = ("train", "heldout")
# One prompt in four is held out.
_HELD_OUT_OF = 4


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


# A context and the questions that can be asked about it, each with its answer.
Asked = tuple[str, list[tuple[str, str]]]


def _reading(rng: random.Random) -> Asked:
    calls = trace(rng, 2)
    return "".join(call(*one) for one in calls), [(f"what is {key}?", value) for _, key, value, _ in calls]


def _needle(rng: random.Random) -> Asked:
    key, value = rng.choice(KEYS), rng.choice(DIGITS)
    lines = [_filler(rng) for _ in range(rng.randint(5, 12))]
    lines.insert(rng.randint(0, len(lines)), f"say {key} is {value}\n")
    return "".join(lines), [(f"what is {key}?", value)]


def _multi_key_needle(rng: random.Random) -> Asked:
    told = {key: rng.choice(DIGITS) for key in rng.sample(KEYS, rng.randint(2, 4))}
    lines = [f"say {key} is {value}\n" for key, value in told.items()]
    for _ in range(rng.randint(3, 6)):
        lines.insert(rng.randint(0, len(lines)), _filler(rng))
    return "".join(lines), [(f"what is {key}?", value) for key, value in told.items()]


def _filler(rng: random.Random) -> str:
    return f"$ {rng.choice(TOOLS)} {rng.choice(KEYS)}\n{rng.choice(ENDINGS)}\n"


def _variable_tracking(rng: random.Random) -> Asked:
    """Two chains of assignments; an asked variable stands one to three assignments from its digit."""
    keys = rng.sample(KEYS, len(KEYS))
    values, half = rng.sample(DIGITS, 2), len(KEYS) // 2
    chains, lines, asked = (keys[:half], keys[half:]), [], []
    for chain, value in zip(chains, values, strict=True):
        given = [value, *chain[:-1]]
        lines.append([f"$ {new} = {old}\n" for new, old in zip(chain, given, strict=True)])
        asked += [(f"what is {key}?", value) for key in chain[1:]]
    # The chains interleave; each stays in its order.
    order = rng.sample([0] * half + [1] * half, 2 * half)
    return "".join(lines[which].pop(0) for which in order), asked


def _last_write_wins(rng: random.Random) -> Asked:
    keys = rng.sample(KEYS, 2)
    writes = [*keys, *(rng.choice(keys) for _ in range(rng.randint(1, 3)))]
    written = [(key, rng.choice(DIGITS)) for key in writes]
    text = "".join(f"$ {key} = {value}\n" for key, value in written)
    return text, [(f"what is {key}?", value) for key, value in dict(written).items()]


def _trace_qa(rng: random.Random) -> Asked:
    """Asks by the tool and not, as the main task does, by the key."""
    calls = trace(rng, rng.choice((2, 3)))
    return "".join(call(*one) for one in calls), [(f"what did {tool} say?", value) for tool, _, value, _ in calls]


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
    """Which split a prompt belongs to."""
    return SPLITS[hashlib.sha256(prompt.encode()).digest()[0] % _HELD_OUT_OF == 0]


def items(task: str, count: int, seed: int, split: str) -> list[Item]:
    """``count`` different items of a task.

    Raises:
        ConfigError: no such task or split.
    """
    if task not in _MAKERS:
        raise ConfigError(f"the task is {task!r}, and there is no such task. Fix: one of {', '.join(TASKS)}.")
    if split not in SPLITS:
        raise ConfigError(f"the split is {split!r}, and there is no such split. Fix: one of {', '.join(SPLITS)}.")
    rng = random.Random(f"replication/{task}/{split}/{seed}")
    found: dict[str, Item] = {}
    while len(found) < count:
        context, asked = _MAKERS[task](rng)
        (question, answer), *more = rng.sample(asked, len(asked))
        prompt = context + question
        if split_of(prompt) == split:
            found.setdefault(prompt, Item(task, prompt, answer, tuple(more)))
    return list(found.values())
