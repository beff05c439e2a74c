"""The base of a seed: a tiny Qwen2, warmed up in plain PyTorch so that it has something to gain and to lose.

From random weights no arm would get a reward. The warm-up teaches, by cross entropy on the replies:

- every task of :mod:`bench.replication.material`, each to a partial skill: at ``REST_AT`` it leaves the mixture;
- ``pointing``: two contexts as in a selection, and "which? 1 or 2" instead of "which? A or B": the base can tell which
  context supports an answer, and does not when it is asked for a label;
- ``reading both``: in the same place, the digits of the two contexts;
- with ``first_habit``, the form of a selection's reply and nothing of its content: the label is drawn.

Selection itself is never taught, so it starts at chance.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.replication.material import TASKS, items
from bench.replication.plan import Base
from contextrl_verl.demo import tiny_model
from contextrl_verl.demo.evidence_pairs import evidence_pairs
from contextrl_verl.demo.tiny_model import Turn
from contextrl_verl.pairs import ContrastivePair

POINTING, READING_BOTH, SELECTING = "pointing", "reading both", "selecting"
# Accuracy at which a task leaves the mixture until it falls below, and steps between two looks at it.
REST_AT, CHECK_EVERY = 0.6, 100


def pair_example(kind: str, pair: ContrastivePair, rng: random.Random, first_habit: float | None = None) -> list[Turn]:
    """One question about a pair, for its number, both digits, or (by habit and without a look) a label."""
    order = rng.choice(tiny_model.ORDERS)
    prompt = tiny_model.selection_prompt(pair, order)
    context = prompt.removesuffix("which? A or B")
    if kind == POINTING:
        return [(context + "which? 1 or 2", "12"[order.index(0)])]
    if kind == READING_BOTH:
        digits = [next(filter(str.isdigit, pair.contexts[at].text)) for at in order]
        return [(context + "what do they say?", " ".join(digits))]
    return [(prompt, "A" if rng.random() < first_habit else "B")]


def examples_of(base: Base, seed: int, count: int = 3000) -> dict[str, list[list[Turn]]]:
    """Everything that the warm-up draws from, by task; all of it of the train split."""
    rng = random.Random(f"replication/base/examples/{seed}")
    pairs = evidence_pairs(2 * count, seed)
    of_pairs = (POINTING, READING_BOTH, *([] if base.first_habit is None else [SELECTING]))
    found = {name: items(name, count, seed, "train") for name in TASKS}
    return found | {kind: [pair_example(kind, pair, rng, base.first_habit) for pair in pairs] for kind in of_pairs}


def shares(base: Base, accuracies: dict[str, float]) -> dict[str, float]:
    """How often each task is drawn; one that reached its mark rarely, until it falls below."""
    wanted = dict.fromkeys(TASKS, (1.0, REST_AT)) | {POINTING: (6.0, 0.95), READING_BOTH: (2.0, 1.0)}
    if base.first_habit is not None:
        wanted[SELECTING] = (1.0, 1.0)
    return {name: share if accuracies.get(name, 0.0) < mark else 0.15 for name, (share, mark) in wanted.items()}


def make_base(folder: Path, base: Base, seed: int, log: Callable[[int, dict[str, float]], None]) -> None:
    """Write the base of a seed to ``folder``; the same arguments give the same weights on the same machine.

    Args:
        log: called with the step and the accuracy of each task and of pointing.
    """
    import torch

    torch.manual_seed(seed)
    torch.set_num_threads(1)  # for so small a model a second thread waits more than it works
    tokenizer = tiny_model.make_tokenizer()
    model = tiny_model.make_model(None, tokenizer, layers=base.layers, heads=base.heads, seed=seed)
    rng, examples, drawn = random.Random(f"replication/base/{seed}"), examples_of(base, seed), shares(base, {})
    # Of the train split, so that nothing held out is looked at.
    asked = {name: found for name, found in examples_of(base, seed + 10**6, 100).items() if name in (*TASKS, POINTING)}

    def loss_of() -> torch.Tensor:
        names = rng.choices(list(drawn), list(drawn.values()), k=base.batch_size)
        return tiny_model.reply_loss(model, tokenizer, [rng.choice(examples[name]) for name in names])

    for step, *_ in tiny_model.learn(model, loss_of, steps=base.steps, rate=base.learning_rate, warm_up=50):
        if step % CHECK_EVERY == 0:
            accuracies = {name: accuracy(model, tokenizer, of) for name, of in asked.items()}
            drawn = shares(base, accuracies)
            log(step, accuracies)
    tiny_model.save(model, tokenizer, folder)


def accuracy(model: Any, tokenizer: Any, examples: Sequence[list[Turn]]) -> float:
    """Share of first turns whose reply begins with the likeliest token."""
    import torch

    prompts, replies = zip(*(turns[0] for turns in examples), strict=True)
    gold = torch.tensor([tokenizer.encode(reply, add_special_tokens=False)[0] for reply in replies])
    with torch.no_grad():
        logits = tiny_model.next_token_logits(model, tokenizer, prompts)
    return float((logits.argmax(-1) == gold).float().mean())
