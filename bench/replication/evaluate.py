"""What a checkpoint can do: greedy answers to held-out items of every task, and its choice on held-out pairs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.replication.base_model import TEMPLATE
from bench.replication.data import DATA_SOURCE, EVALUATION
from bench.replication.pairs import pairs
from bench.replication.tasks import TASKS, items
from contextrl_verl.pairs.prompting import PromptConfig
from data_prep.probe.questions import Questions
from data_prep.probe.run import probe
from data_prep.probe.transformers_backend import TransformersBackend
from reward_fns import compute_score

if TYPE_CHECKING:
    from bench.replication.plan import Evaluation

_BATCH, _NEW_TOKENS = 64, 4


def evaluate(
    model: Path | str, sizes: Evaluation, seed: int, log: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Ask a Hugging Face checkpoint.

    Returns:
        ``tasks``: 0 or 1 for every item of every task, in the items' order, which is the same for all arms of a seed;
        ``selection``: 0 or 1 for every question of every held-out pair (in both orders), by pair and order;
        ``option_mass``, ``position_bias``: as the probe reports them.
    """
    backend = TransformersBackend(str(model), PromptConfig(template=TEMPLATE))
    backend.load()
    scores = {}
    for task in TASKS:
        if log:
            log(task)
        asked = items(task, sizes.items, seed + EVALUATION, "heldout")
        replies = greedy(backend.model, backend.tokenizer, [item.prompt for item in asked])
        scores[task] = [
            int(compute_score(DATA_SOURCE, reply, item.answer)["score"])
            for reply, item in zip(replies, asked, strict=True)
        ]
    if log:
        log("held-out pairs")
    found = probe(list(pairs(sizes.pairs, seed + EVALUATION, "heldout")), backend, Questions(backend.prompt, seed))
    return {
        "tasks": scores,
        "selection": [int(credit) for credit in found.questions["credit"]],
        "option_mass": found.overall["option_mass"],
        "position_bias": found.overall["position_bias"],
    }


def greedy(model: Any, tokenizer: Any, prompts: list[str]) -> list[str]:
    """The likeliest reply to each user message, a few tokens, in the order of the prompts."""
    import torch

    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": p}], tokenize=False, add_generation_prompt=True)
        for p in prompts
    ]
    replies = [""] * len(texts)
    by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for start in range(0, len(texts), _BATCH):
        part = by_length[start : start + _BATCH]
        batch = tokenizer(
            [texts[index] for index in part],
            return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False,
        ).to(model.device)  # fmt: skip
        with torch.inference_mode():
            out = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                do_sample=False,
                max_new_tokens=_NEW_TOKENS,
                pad_token_id=tokenizer.pad_token_id,
            )
        new = out[:, batch["input_ids"].shape[1] :]
        for index, reply in zip(part, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
            replies[index] = reply
    return replies
