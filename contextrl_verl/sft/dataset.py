"""Pairs as supervised examples, "output the correct option": the data set of verl's supervised trainer (arm da_sft)."""

from __future__ import annotations

import os
from typing import Any

import torch
from omegaconf import ListConfig
from torch.utils.data import Dataset
from verl.utils.tokenizer import get_processor_token_id

from contextrl_verl.errors import ConfigError, JobRefused
from contextrl_verl.pairs.prompting import PromptConfig, encode_prompt, images_of, prompt_text
from contextrl_verl.pairs.source import PairSource
from contextrl_verl.settings import Settings, parse_settings
from contextrl_verl.sft.plan import Selection, before_sampler, selection_order

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
            self.is_train = _listed(parquet_files) == _listed(config.get("train_files"))
            self.pairs = open_pairs(self.settings, tokenizer, processor, train=self.is_train)
            count = min(len(self.pairs), max_samples) if max_samples > 0 else len(self.pairs)
            self.end = end_of_turn(tokenizer, self.settings.prompt_config)
            if self.is_train:
                order = _training_order(self.settings, self.pairs, count)
                self.items = before_sampler(order)
                print(_describe(order, self.settings, self.pairs, count))
            else:
                self.items = _held_out(self.pairs, count, self.settings.run.train_batch_size)
        except ConfigError as error:
            raise JobRefused(error) from None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: int) -> dict[str, Any]:
        index, epoch, rotation = self.items[item]
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


def open_pairs(settings: Settings, tokenizer: Any, processor: Any, *, train: bool) -> PairSource:
    """The usable pairs of training or validation. Raises ConfigError, see :class:`PairSource`."""
    name = "train_files" if train else "val_files"
    files = getattr(settings.pairs, name)
    if not files:
        raise ConfigError(
            f"contextrl.pairs.{name} is empty, and there is nothing to train on. "
            f"Fix: contextrl.pairs.{name}=[path.parquet]."
        )
    return PairSource(files, settings, tokenizer, processor, f"contextrl.pairs.{name}")


def end_of_turn(tokenizer: Any, config: PromptConfig) -> int:
    """The token that ends an assistant's reply.

    It is the special token that the chat template writes right after a reply, such as ``<|im_end|>`` or
    ``<end_of_turn>``; where the template treats an assistant like a user or writes none, the tokenizer's eos token.

    Raises:
        ConfigError: there is neither.
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
    images = images_of(messages)
    if not images:
        return encode_prompt(messages, tokenizer, config, processor), {}
    text = prompt_text(processor, messages, config)
    encoded = dict(processor(text=[text], images=images, add_special_tokens=False, return_tensors="pt"))
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


def _training_order(settings: Settings, pairs: PairSource, count: int) -> list[Selection]:
    return selection_order(
        count,
        batch_size=settings.run.train_batch_size,
        rotations=pairs.rotations(),
        epochs=settings.epochs,
        steps=settings.run.total_training_steps,
        seed=settings.seed,
        shuffle=settings.shuffle,
    )


def _held_out(pairs: PairSource, count: int, batch_size: int) -> list[Selection]:
    questions = [Selection(index, 0, rotation) for index in range(count) for rotation in range(pairs.options_of(index))]
    size = -(-len(questions) // batch_size) * batch_size
    print(f"contextrl: {len(questions)} held-out selections; {size - len(questions)} of them again, to fill batches")
    return [questions[at % len(questions)] for at in range(size)]


def _describe(order: list[Selection], settings: Settings, pairs: PairSource, count: int) -> str:
    size = settings.run.train_batch_size
    return (
        f"contextrl: {len(order) // size} batches of {size} selections, from {count} pairs in {order[-1].epoch + 1} "
        f"epoch(s); left out: {sum(pairs.dropped.values())} pairs too long"
    )


def _listed(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list | tuple | ListConfig) else [str(value)]
