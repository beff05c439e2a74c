"""The mixed-task data set: ordinary RL rows and contrastive pairs, an exact number of pairs in every batch."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import torch
from omegaconf import OmegaConf, open_dict
from verl.utils.dataset.rl_dataset import RLHFDataset

from contextrl_verl.errors import ConfigError
from contextrl_verl.grpo.batch_column import ANSWER, CARRIER, COLUMN, OTHER_ORDERS, REPLY, ordinary_row, pair_row
from contextrl_verl.grpo.batch_plan import BatchPlan, Slot
from contextrl_verl.grpo.pair_source import PairSource, held_out_pairs, training_pairs
from contextrl_verl.pairs.prompting import images_of
from contextrl_verl.settings import Settings, listed, parse_settings

DATA_SOURCE = "contextrl/selection"
QUESTION_SOURCE = "contextrl/question_answering"
STATE = "contextrl_plan"  # in what a checkpoint's data loader remembers


class MixedTaskDataset(RLHFDataset):
    """``data.custom_cls`` of a ContextRL job, for training and for validation.

    In training, item i is given by :class:`contextrl_verl.grpo.batch_plan.BatchPlan`. In validation, the ordinary
    rows come first, then every held-out pair in every order. Reads ``data.contextrl`` (the block) next to
    verl's own keys. A data set of your own keeps its rows beside pairs as
    ``class Both(MixedTaskDataset, YourDataset): pass``.

    Raises:
        ConfigError: see :class:`PairSource` and :class:`BatchPlan`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # dill takes a user's class to the processes that filter prompts, and reads its bases from the __orig_bases__
        # that torch's Dataset leaves to all its heirs: without its own it arrives as an heir of nothing.
        cls.__orig_bases__ = cls.__bases__

    def __init__(self, data_files, tokenizer, config, processor=None, max_samples: int = -1) -> None:
        self.settings: Settings = parse_settings(config.get("contextrl"))
        self.is_train = _is_train(data_files, config)
        self.pairs: PairSource | None = None
        if self.is_train:
            _one_pass(config)
        super().__init__(data_files, tokenizer, config, processor, max_samples)

    def _read_files_and_tokenize(self) -> None:
        super()._read_files_and_tokenize()
        self._labels = len(self.settings.prompt_config.labels)
        rows = len(self.dataframe)
        if self.is_train:
            self.pairs = training_pairs(self.settings, self.tokenizer, self.processor)
            self._slots = self.plan = make_plan(self.settings, rows, self.pairs)
            self._content = _content(self.dataframe.select_columns([self.prompt_key]), self.pairs)
            print(describe_plan(self.plan, self.pairs))
            return
        self._slots = [Slot("rl", row, 0) for row in range(rows)]
        if self.settings.pairs.val_files:
            self.pairs = held_out_pairs(self.settings, self.tokenizer, self.processor)
            self._slots += self.pairs.questions()

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, item: int) -> dict[str, Any]:
        kind, *place = self._slots[item]
        return self._ordinary(place[0]) if kind == "rl" else self._pair(*place)

    def _ordinary(self, index: int) -> dict[str, Any]:
        row = super().__getitem__(index)
        row[COLUMN] = ordinary_row(self._labels)
        row["agent_name"] = row.get("agent_name") or self.settings.run.default_agent_loop
        if self.is_train:
            row["__rollout_n__"] = self.settings.run.rollout_n
        return row

    def _pair(self, index: int, epoch: int, rotation: int) -> dict[str, Any]:
        pair = self.pairs[index]
        messages, order = self.pairs.messages(pair, epoch, rotation)
        others: list[Any] = []
        if self.is_train and self.settings.averages_margins:
            for turn in range(1, len(order)):
                more, order = self.pairs.messages(pair, epoch, turn)
                others.append(more)
        supporting = order.index(0)  # in the order shown last
        labels = list(self.pairs.prompt.labels[: len(order)])
        source, truth = DATA_SOURCE, labels[supporting]
        if self.pairs.as_questions:
            source, truth = f"{QUESTION_SOURCE}/{pair.domain}", pair.answer
        # verl stacks columns, so a pair has every column that the ordinary rows have.
        row: dict[str, Any] = {name: None for name in self.dataframe.column_names}
        for name in (self.image_key, self.video_key, self.audio_key):
            row.pop(name, None)
        row |= {
            "data_source": source,
            self.prompt_key: None,
            "raw_prompt": messages,
            "ability": "contextrl",
            "reward_model": {"style": "rule", "ground_truth": truth},
            "extra_info": {
                "index": index,
                "pair_id": pair.pair_id,
                "domain": pair.domain,
                "labels": labels,
                "supporting_position": supporting,
                "epoch": epoch,
                "images": len(images_of(messages)),
                **({OTHER_ORDERS: others} if others else {}),
            },
            "dummy_tensor": torch.tensor([0], dtype=torch.uint8),
            "index": index,
            "tools_kwargs": {},
            "interaction_kwargs": {},
            COLUMN: ordinary_row(self._labels)
            if self.pairs.as_questions
            else pair_row(self.pairs.option_ids, len(order), supporting),
        }
        carried, run = self.settings.objective == "context_awareness", self.settings.run
        replies = run.default_agent_loop if self.pairs.prompt.special_tokens_in_text == "keep" else REPLY
        if self.is_train:
            row["agent_name"] = CARRIER if carried else replies
            row["__rollout_n__"] = 1 if carried else run.rollout_n
        else:
            row["agent_name"] = ANSWER if self.settings.pairs.val_by == "choice" else replies
        # A user's own data set may add columns.
        return {name: row.get(name) for name in self._columns}

    @cached_property
    def _columns(self) -> list[str]:
        return list(self._ordinary(0))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must agree with for its position to mean the same rows."""
        if not self.is_train:
            return {}
        plan = self.plan
        return {
            STATE: [plan.rl_rows, plan.pairs, plan.batch_size, plan.pairs_per_batch, plan.rotations],
            "contextrl_seed": [plan.seed, plan.shuffle],
            "contextrl_content": self._content,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ConfigError if the data or the seed changed since the checkpoint."""
        if state and state != self.state_dict():
            raise ConfigError(
                f"the checkpoint was written with {state}, and this job has {self.state_dict()} (rows, pairs, batch, "
                "pairs per batch, rotations; seed, shuffle; digest of the data): the loader's position would mean "
                "other rows. Fix: resume with the same data and settings, or start anew with "
                "trainer.resume_mode=disable."
            )


def _one_pass(config: Any) -> None:
    """Tell verl's trainer that one pass of its loader is the whole run, whatever ``trainer.total_epochs`` says.

    verl makes the data set before it reads the key, and multiplies the length of the data set by it, in which
    ``contextrl.epochs`` are laid out already.
    """
    root = config._get_root() if OmegaConf.is_config(config) else {}
    if root.get("trainer") is not None and root.trainer.get("total_epochs", 1) != 1:
        with open_dict(root):
            root.trainer.total_epochs = 1


def _content(rows: Any, pairs: PairSource | None) -> str:
    """Digest of every pair id and of up to some 256 prompts spread over the rows: tells data of equal size apart."""
    digest = hashlib.blake2b(digest_size=8)
    for index in range(0, len(rows), max(1, len(rows) // 256)):
        digest.update(repr(rows[index]).encode())
    for pair_id in pairs.ids() if pairs is not None else ():
        digest.update(f"{pair_id}\n".encode())
    return digest.hexdigest()


def _is_train(data_files: Any, config: Any) -> bool:
    val = listed(config.get("val_files"))
    check_lists(listed(config.get("train_files")), val)
    return listed(data_files) != val


def check_lists(train: list[str] | None, val: list[str] | None) -> None:
    """Raises ConfigError unless training and validation have other files."""
    if train == val:
        raise ConfigError(
            f"data.train_files and data.val_files are the same list {train}; verl does not tell a data set which of "
            "the two it serves. Fix: give validation its own file, data.val_files=[...] (a copy will do)."
        )


def make_plan(settings: Settings, rl_rows: int, pairs: PairSource | None) -> BatchPlan:
    """The order of all training items. Raises ConfigError when the numbers do not fit."""
    count = settings.pairs.per_batch if settings.uses_pairs else 0
    if settings.uses_pairs and count == 0:
        raise ConfigError(
            f"contextrl.pairs.per_batch is 0 and contextrl.objective is {settings.objective!r}: the job would train "
            "without pairs. Fix: set it to the number of pairs in a batch, or contextrl.objective=none."
        )
    if settings.objective == "question_answering" and settings.pairs.orders == "both":
        raise ConfigError(
            "contextrl.pairs.orders is 'both' and contextrl.objective is 'question_answering', which shows one context "
            "only. Fix: contextrl.pairs.orders=random."
        )
    if settings.averages_margins and settings.pairs.orders != "both":
        raise ConfigError(
            f"contextrl.loss.margin is 'averaged' and contextrl.pairs.orders is {settings.pairs.orders!r}: a margin is "
            "averaged over all orders of a pair. Fix: contextrl.pairs.orders=both, or contextrl.loss.margin=each."
        )
    rotations = pairs.rotations() if count and pairs is not None else 1
    if settings.averages_margins:
        rotations = 1  # one row holds them all
    return BatchPlan(
        rl_rows=rl_rows,
        pairs=len(pairs) if pairs is not None else 0,
        batch_size=settings.run.train_batch_size,
        pairs_per_batch=count,
        rotations=rotations,
        epochs=settings.epochs,
        steps=settings.run.total_training_steps,
        seed=settings.seed,
        shuffle=settings.shuffle,
    )


def describe_plan(plan: BatchPlan, pairs: PairSource | None) -> str:
    """One line for the log: what a batch holds, how many there are, what is left out."""
    dropped = pairs.left_out() if pairs is not None else "0 pairs"
    return (
        f"contextrl: {plan.steps} batches of {plan.rl_per_batch} ordinary rows and {plan.pairs_per_batch} pairs, from "
        f"{plan.rl_rows} rows and {plan.pairs} pairs; left out: {dropped}, {plan.unused_rl_rows} rows "
        "of an incomplete last batch"
    )
