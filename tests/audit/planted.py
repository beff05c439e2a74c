"""Synthetic couples without any shortcut, and ways to plant one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from contextrl_verl.pairs import Context, ContrastivePair, Message

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "lmnrstk"]


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


def run_messages(rng: random.Random, secret: str) -> list[Message]:
    """A small run: random turns, one of which holds the evidence."""
    turns = []
    for _ in range(rng.randint(4, 12)):
        role = rng.choice(["assistant", "user"])
        text = words(rng, rng.randint(10, 60)).replace(" ", "\n", rng.randint(0, 4))
        turns.append(Message(role=role, content=text + rng.choice(["", ".", "\n```\nls\n```", " <PATCH_MASKED> done"])))
    at = rng.randrange(len(turns))
    turns[at] = Message(role=turns[at].role, content=f"{turns[at].content} {secret} seen")
    return turns


def as_context(messages: list[Message], kind: str) -> Context:
    if kind == "messages":
        return Context(kind="messages", messages=messages)
    return Context(kind="text", text="\n".join(message.content for message in messages))


# Changes the contexts of one pair, the supporting one first; told the row and the answer.
Plant = Callable[[random.Random, list[Context], int, str], list[Context]]


def couples(
    count: int,
    seed: int,
    *,
    plant: Plant | None = None,
    contexts: int = 2,
    kind: str = "messages",
    directions: bool = True,
    runs: Callable[[random.Random, int], list[str]] | None = None,
    domain: str = "test",
) -> Iterator[ContrastivePair]:
    """Couples of random runs; every context supports once (or only the first, without ``directions``).

    Args:
        runs: (rng, couple) -> names of the couple's runs; own runs for each couple by default.
    """
    rng = random.Random(seed)
    row = 0
    for couple in range(count):
        # Numbers in random order: were the first run always number 0, its name would tell in one-sided couples.
        names = runs(rng, couple) if runs else [f"run-{couple}-{n}" for n in rng.sample(range(contexts), contexts)]
        secrets = [f"x{rng.randrange(10**9):09d}" for _ in names]
        made = [as_context(run_messages(rng, secret), kind) for secret in secrets]
        for right in range(contexts if directions else 1):
            order = [right, *(n for n in range(contexts) if n != right)]
            shown = [made[n].model_copy(deep=True) for n in order]
            answer = f"{words(rng, rng.randint(1, 30))} {secrets[right]}"
            if plant is not None:
                shown = plant(rng, shown, row, answer)
            yield ContrastivePair(
                pair_id=f"{domain}-{couple:05d}-{right}",
                domain=domain,
                query="which run is it?",
                answer=answer,
                supporting=shown[0],
                confounders=shown[1:],
                provenance={
                    "supporting_run": names[order[0]],
                    "confounding_runs": [names[n] for n in order[1:]],
                    "couple": f"{domain}-{couple}",
                },
            )
            row += 1


def add_text(context: Context, text: str) -> Context:
    """The context with text at the end of its last turn."""
    changed = context.model_copy(deep=True)
    if changed.messages:
        changed.messages[-1].content += text
    else:
        changed.text = (changed.text or "") + text
    return changed


def size(context: Context) -> int:
    return len(context.text or "") + sum(len(m.content) for m in context.messages or ())
