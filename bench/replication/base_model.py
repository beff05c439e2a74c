"""The base of a seed: a tiny Qwen2, warmed up in plain PyTorch so that it has something to gain and to lose.

From random weights no arm would get a reward. The warm-up teaches, by cross entropy on the replies:

- every task of :mod:`bench.replication.material`, each to a partial skill: at ``rest_at`` it leaves the mixture;
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
from typing import TYPE_CHECKING, Any

from bench.replication.material import TASKS, items, pairs
from contextrl_verl.pairs import ContrastivePair
from contextrl_verl.pairs.prompting import PromptConfig, PromptRenderer

if TYPE_CHECKING:
    from bench.replication.plan import Base, TinyModel

TEMPLATE = "short"
POINTING, READING_BOTH, SELECTING = "pointing", "reading both", "selecting"
# Shares of the mixture: a task that still learns, pointing, reading both, selecting, and a task that rests.
_LEARNING, _POINTING, _READING_BOTH, _SELECTING, _RESTING = 1.0, 6.0, 2.0, 1.0, 0.15
_CHECK_AT = 0.95
_EXAMPLES, _PAIRS, _CHECK_ITEMS = 3000, 6000, 100

# A user message and its reply; an example of the warm-up is one or more of them about the same context.
Turn = tuple[str, str]
_renderer = PromptRenderer(PromptConfig(template=TEMPLATE))


def selection_prompt(pair: ContrastivePair, order: list[int]) -> str:
    """The user message of a pair, as the trainer renders it."""
    return _renderer.messages(pair, order)[0]["content"]


def _other_question(pair: ContrastivePair, order: list[int], question: str) -> str:
    text, _, ends = selection_prompt(pair, order).rpartition("\n")
    if ends != "which? A or B":
        raise AssertionError(
            f"the template {TEMPLATE} ends with {ends!r}, and a selection's question is expected there"
        )
    return f"{text}\n{question}"


def pointing_example(pair: ContrastivePair, rng: random.Random) -> list[Turn]:
    """Asks which of a pair's contexts supports the answer, for its number and not its label."""
    order = rng.choice(([0, 1], [1, 0]))
    return [(_other_question(pair, order, "which? 1 or 2"), "12"[order.index(0)])]


def reading_example(pair: ContrastivePair, rng: random.Random) -> list[Turn]:
    """Asks for the digits of both contexts, in their order; it stands where a selection's question stands."""
    order = rng.choice(([0, 1], [1, 0]))
    digits = [" ".join(filter(str.isdigit, pair.contexts[at].text)) for at in order]
    return [(_other_question(pair, order, "what do they say?"), " ".join(digits))]


def selecting_example(pair: ContrastivePair, rng: random.Random, first_habit: float) -> list[Turn]:
    """A selection whose reply says nothing about the contexts."""
    label = "A" if rng.random() < first_habit else "B"
    return [(selection_prompt(pair, rng.choice(([0, 1], [1, 0]))), label)]


def examples_of(base: Base, seed: int) -> dict[str, list[list[Turn]]]:
    """Everything that the warm-up draws from, by task; all of it of the train split."""
    rng = random.Random(f"replication/base/examples/{seed}")
    found = {
        name: [[(item.prompt, item.answer), *item.more] for item in items(name, _EXAMPLES, seed, "train")]
        for name in TASKS
    }
    drawn = list(pairs(_PAIRS, seed, "train"))
    found[POINTING] = [pointing_example(pair, rng) for pair in drawn]
    found[READING_BOTH] = [reading_example(pair, rng) for pair in drawn]
    if base.first_habit is not None:
        found[SELECTING] = [selecting_example(pair, rng, base.first_habit) for pair in drawn]
    return found


def shares(base: Base, accuracies: dict[str, float]) -> dict[str, float]:
    """How often each task is drawn; one that reached its mark rarely, until it falls below."""
    found = {name: _LEARNING if accuracies.get(name, 0.0) < base.rest_at else _RESTING for name in TASKS}
    found[POINTING] = _POINTING if accuracies.get(POINTING, 0.0) < _CHECK_AT else _RESTING
    found[READING_BOTH] = _READING_BOTH
    return found if base.first_habit is None else found | {SELECTING: _SELECTING}


def make_base(
    folder: Path, tiny: TinyModel, base: Base, seed: int, log: Callable[[int, dict[str, float]], None] | None = None
) -> None:
    """Write the base of a seed to ``folder``; the same arguments give the same weights on the same machine.

    Args:
        log: called with the step and the accuracy of each task and of pointing, on items the warm-up does not train.
    """
    import torch

    from contextrl_verl.demo import tiny_model

    torch.manual_seed(seed)
    torch.set_num_threads(1)  # for so small a model a second thread waits more than it works
    tokenizer = tiny_model.make_tokenizer()
    sizes = {"hidden_size": tiny.hidden_size, "layers": tiny.layers, "heads": tiny.heads}
    model = tiny_model.make_model(None, tokenizer, **sizes, seed=seed)
    rng = random.Random(f"replication/base/{seed}")
    rows = {name: _encoded(tokenizer, found) for name, found in examples_of(base, seed).items()}
    asked, drawn = _asked(seed), shares(base, {})
    optimizer = torch.optim.AdamW(model.parameters(), lr=base.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 50))
    for step in range(1, base.steps + 1):
        names = rng.choices(list(drawn), list(drawn.values()), k=base.batch_size)
        optimizer.zero_grad()
        _backward(model, tokenizer, [rng.choice(rows[name]) for name in names])
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % base.check_every == 0:
            accuracies = {name: accuracy(model, tokenizer, turns) for name, turns in asked.items()}
            drawn = shares(base, accuracies)
            if log:
                log(step, accuracies)
    tiny_model.save(model, tokenizer, folder)


def accuracy(model: Any, tokenizer: Any, turns: Sequence[Turn]) -> float:
    """Share of single turns whose reply is the likeliest first token."""
    import torch

    from contextrl_verl.demo import tiny_model

    gold = torch.tensor([tokenizer.encode(reply, add_special_tokens=False)[0] for _, reply in turns])
    with torch.no_grad():
        texts = [tiny_model.chat_text(tokenizer, prompt) for prompt, _ in turns]
        logits = tiny_model.next_token_logits(model, tokenizer, texts)
    return float((logits.argmax(-1) == gold).float().mean())


def _asked(seed: int) -> dict[str, list[Turn]]:
    """Single questions to follow the warm-up by: of the train split, so that nothing held out is looked at."""
    rng, other = random.Random(f"replication/base/check/{seed}"), seed + 10**6
    asked = {name: [(item.prompt, item.answer) for item in items(name, _CHECK_ITEMS, other, "train")] for name in TASKS}
    return asked | {POINTING: [pointing_example(pair, rng)[0] for pair in pairs(_CHECK_ITEMS, other, "train")]}


def _encoded(tokenizer: Any, examples: Sequence[Sequence[Turn]]) -> list[tuple[list[int], list[int]]]:
    """Of each example the token ids, and the positions whose next token belongs to a reply or ends it."""
    # Written out, and held against the tokenizer's template once: 40,000 renderings of that take most of a minute.
    form = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n"
    texts = ["".join(form.format(*turn) for turn in turns) for turns in examples]
    messages = [
        {"role": role, "content": text}
        for turn in examples[0]
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    if texts[0] != tokenizer.apply_chat_template(messages, tokenize=False):
        raise AssertionError("the tiny model's chat template is no longer ChatML")
    start = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)
    rows = []
    for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
        where, inside = [], False
        for at in range(len(start), len(ids)):
            inside = inside or ids[at - len(start) : at] == start
            if inside:
                where.append(at - 1)
                inside = ids[at] != tokenizer.eos_token_id
        rows.append((ids, where))
    return rows


def _backward(model: Any, tokenizer: Any, rows: Sequence[tuple[list[int], list[int]]]) -> None:
    """Gradients of the mean cross entropy over all reply tokens of a batch."""
    import torch

    total = sum(len(where) for _, where in rows)
    # In two halves of similar length: padding would be half of the work.
    rows = sorted(rows, key=lambda row: len(row[0]))
    for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
        ids = tokenizer.pad({"input_ids": [row for row, _ in half]}, padding_side="right", return_tensors="pt")
        ids = ids["input_ids"]
        at = [number for number, (_, where) in enumerate(half) for _ in where]
        where = torch.tensor([position for _, positions in half for position in positions])
        # No mask: the padding stands to the right, where a causal model does not look.
        hidden = model.model(input_ids=ids).last_hidden_state[at, where]
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden).float(), ids[at, where + 1], reduction="sum")
        (loss / total).backward()
