"""Pairs as supervised examples, "output the correct option": the data set of verl's supervised trainer (arm da_sft)."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch.utils.data import Dataset, DistributedSampler
from verl.utils.tokenizer import get_processor_token_id

from contextrl_verl.errors import ConfigError, JobRefused
from contextrl_verl.grpo.batch_plan import Slot, check_pairs_of_a_batch, drawn
from contextrl_verl.grpo.pair_source import PairSource
from contextrl_verl.pairs.prompting import PromptConfig, encode_images, encode_prompt, images_of
from contextrl_verl.settings import Settings, listed, parse_settings

_MARK = "contextrl-reply"


class SelectionDataset(Dataset):
    """``data.custom_cls`` of verl's supervised trainer.

    Training: every pair once an epoch, in an order drawn from ``contextrl.seed``; all epochs of ``contextrl.epochs``
    lie in one pass, as in the GRPO job. Validation: every held-out pair in every order, filled up to whole batches from
    the start, for verl leaves out an incomplete one.

    An item holds ``input_ids`` and ``loss_mask`` (tokens,), ``position_ids`` (tokens,) or (4, tokens) for M-RoPE, and,
    if some pair shows images, ``multi_modal_inputs``. The reply is the supporting option's token and the end of the
    turn; the loss mask is 1 on these two and 0 before.

    Raises:
        SystemExit: with one paragraph, if files, labels or counts are wrong; verl would wrap any other error in pages.
    """

    def __init__(self, parquet_files, tokenizer, config, processor=None, max_samples: int = -1) -> None:
        # verl's trainer sets it to true, and the loader forks: a tokenizer would then wait for threads left behind.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self.tokenizer, self.processor = tokenizer, processor
        try:
            self.settings = parse_settings(config.get("contextrl"))
            self.is_train = listed(parquet_files) == listed(config.get("train_files"))
            name = "train_files" if self.is_train else "val_files"
            files, key = getattr(self.settings.pairs, name), f"contextrl.pairs.{name}"
            self.pairs = PairSource(files, self.settings, tokenizer, processor, key)
            count = min(len(self.pairs), max_samples) if max_samples > 0 else len(self.pairs)
            self.end = end_of_turn(tokenizer, self.settings.prompt_config)
            if self.is_train:
                self.items = before_sampler(_training_order(self.settings, self.pairs, count))
            else:
                self.items = _held_out(self.pairs, count, self.settings.run.train_batch_size)
        except ConfigError as error:
            raise JobRefused(error) from None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: int) -> dict[str, Any]:
        _, index, epoch, rotation = self.items[item]
        messages, order = self.pairs.messages(self.pairs[index], epoch, rotation)
        prompt, images = encode_with_images(messages, self.tokenizer, self.pairs.prompt, self.processor)
        reply = [self.pairs.option_ids[order.index(0)], self.end]
        ids = torch.tensor(prompt + reply)
        row = {
            "input_ids": ids,
            "loss_mask": torch.tensor([0] * len(prompt) + [1] * len(reply)),
            "position_ids": position_ids(ids, images, self.processor),
        }
        if self.pairs.most_images:
            # On every row, text too: verl's collator takes a batch's keys from any row.
            row["multi_modal_inputs"] = images
        return row


def end_of_turn(tokenizer: Any, config: PromptConfig) -> int:
    """The token that ends an assistant's reply; raises ConfigError if there is none.

    It is the special token that the chat template writes right after a reply, such as ``<|im_end|>`` or
    ``<end_of_turn>``; where the template treats an assistant like a user or writes none, the tokenizer's eos token.
    """

    def after_reply(role: str) -> tuple[str, str]:
        messages = [{"role": "user", "content": "?"}, {"role": role, "content": _MARK}]
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, **config.chat_template_kwargs)
        except Exception:  # templates raise whatever they like on roles they do not know
            return "", ""
        before, _, after = text.rpartition(_MARK)
        return before, after

    reply = after_reply("assistant")
    if reply[1] and reply != after_reply("user"):
        first = tokenizer(reply[1].lstrip(), add_special_tokens=False)["input_ids"][:1]
        if first and first[0] in tokenizer.all_special_ids:
            return int(first[0])
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"the tokenizer of model.path={getattr(tokenizer, 'name_or_path', '')!r} has no eos token, and its chat "
            "template writes no special token after a reply, so a reply cannot end. Fix: set eos_token in its "
            "tokenizer_config.json."
        )
    return int(tokenizer.eos_token_id)


def encode_with_images(
    messages: list[dict[str, Any]], tokenizer: Any, config: PromptConfig, processor: Any
) -> tuple[list[int], dict[str, torch.Tensor]]:
    """The prompt's token ids, those of :func:`encode_prompt`, and what the model gets for its images."""
    if not images_of(messages):
        return encode_prompt(messages, tokenizer, config, processor), {}
    encoded = dict(encode_images(messages, tokenizer, config, processor, return_tensors="pt"))
    ids = encoded.pop("input_ids")[0].tolist()
    for name in ("attention_mask", "mm_token_type_ids"):
        encoded.pop(name, None)
    return ids, encoded


def position_ids(ids: torch.Tensor, images: dict[str, torch.Tensor], processor: Any) -> torch.Tensor:
    """Positions of an unpadded sequence as verl's agent loop computes them: (tokens,), or (4, tokens) for M-RoPE.

    Args:
        ids: (tokens,).
        images: second result of :func:`encode_with_images`.
    """
    plain = torch.arange(len(ids))
    if processor is None or not hasattr(processor, "get_rope_index"):
        return plain
    if not images:
        # Text alone has the same position in all of M-RoPE's sections.
        return plain.expand(4, -1).clone()
    kinds = torch.zeros_like(ids)
    kinds[ids == get_processor_token_id(processor, "image")] = 1
    vision, _ = processor.get_rope_index(
        input_ids=ids[None],
        attention_mask=torch.ones_like(ids)[None],
        image_grid_thw=images["image_grid_thw"],
        video_grid_thw=None,
        mm_token_type_ids=kinds[None],
    )
    return torch.cat([plain[None], vision[:, 0]])


def _training_order(settings: Settings, pairs: PairSource, count: int) -> list[Slot]:
    rotations, size, steps = pairs.rotations(), settings.run.train_batch_size, settings.run.total_training_steps
    check_pairs_of_a_batch("data.train_batch_size", size, count, rotations)
    steps = count * rotations * settings.epochs // size if steps is None else steps
    seed = settings.seed if settings.shuffle else None
    order = selection_order(count, batch_size=size, steps=steps, rotations=rotations, seed=seed)
    print(
        f"contextrl: {steps} batches of {size} selections, from {count} pairs in {order[-1].epoch + 1} epoch(s); "
        f"left out: {pairs.left_out()}"
    )
    return order


def selection_order(pairs: int, *, batch_size: int, steps: int, rotations: int = 1, seed: int | None = 1) -> list[Slot]:
    """All items of a run in the order they are trained on; item i belongs to batch i // batch_size.

    Args:
        pairs: number of usable pairs.
        rotations: 1, or the number of options when every order of a pair is asked in the same batch.
        seed: draws a new order of pairs in every pass; None: as they stand.
    """
    key = None if seed is None else (seed,)
    return [drawn("pair", number, pairs, key, rotations) for number in range(steps * batch_size)]


def before_sampler(items: list[Slot]) -> list[Slot]:
    """The items laid out so that verl's sampler reads them in the order given.

    verl's supervised trainer reads a data set through torch's DistributedSampler, which shuffles with a fixed seed of
    its own: the seed of the job would not matter, orders of one pair would be torn apart, and passes mixed.
    """
    laid = list(items)
    for position, index in enumerate(DistributedSampler(items, num_replicas=1, rank=0, shuffle=True)):
        laid[index] = items[position]
    return laid


def _held_out(pairs: PairSource, count: int, batch_size: int) -> list[Slot]:
    questions = [question for question in pairs.questions() if question.index < count]
    size = -(-len(questions) // batch_size) * batch_size
    print(f"contextrl: {len(questions)} held-out selections; {size - len(questions)} of them again, to fill batches")
    return [questions[at % len(questions)] for at in range(size)]
