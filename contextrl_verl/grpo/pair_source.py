"""Pairs as a training or validation job sees them: opened, length-filtered, rendered. No verl in here.

Lengths are counted once: the driver counts them, and the trainer of the same job finds them in ``$CONTEXTRL_CACHE``,
else in the user's cache folder. Whatever cannot be read or written there is counted again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from itertools import permutations
from pathlib import Path
from typing import Any

from tqdm import tqdm

from contextrl_verl import __version__
from contextrl_verl.errors import ConfigError
from contextrl_verl.grpo.batch_plan import Slot
from contextrl_verl.pairs import ContrastivePair, PairFormatError
from contextrl_verl.pairs.files import PairCollection
from contextrl_verl.pairs.option_tokens import resolve_option_tokens
from contextrl_verl.pairs.prompting import PromptRenderer, encode_prompt, option_order, template_text
from contextrl_verl.pairs.special_tokens import any_of, control_tokens, placeholders
from contextrl_verl.pairs.whole_file import write_whole
from contextrl_verl.settings import Settings

logger = logging.getLogger(__name__)

# Orders of the same contexts differ by a few tokens where texts meet; within this distance all are counted.
_ORDER_SLACK = 32
# ... up to this number of contexts; with more, the rotations and the reverse stand for the rest.
_ALL_ORDERS = 4
# (tokens in the longest order, images, what its text spells) of every pair of some files; the last is one of:
Counts = list[tuple[int, int, int]]
_PLAIN, _CONTROL, _PLACEHOLDER = range(3)
_KEPT = 50


class PairSource:
    """The usable pairs of some files.

    Args:
        key: the config key of the files, for messages.
        as_questions: show each pair as an ordinary question about its supporting context.
        written: the policy writes its whole reply, so nothing is put before it (no ``contextrl.prompt.prefill``).

    Attributes:
        dropped: pairs left out, by reason.
        usable: indices into the collection that remain.
        option_ids: token id of every label.
        most_images: images of the usable pair that shows the most.
        longest: tokens of the longest usable pair's prompt.

    Raises:
        ConfigError: files missing or malformed, labels unusable, images without a processor.
    """

    def __init__(
        self,
        files: list[str],
        settings: Settings,
        tokenizer: Any,
        processor: Any,
        key: str,
        *,
        as_questions: bool = False,
        written: bool = False,
    ) -> None:
        if not files:
            without = "" if settings.objective == "none" else ", or contextrl.objective=none"
            raise ConfigError(
                f"{key} is empty, and with contextrl.objective={settings.objective} this job needs pairs. "
                f"Fix: {key}=[path.parquet]{without}."
            )
        self.settings, self.tokenizer, self.processor = settings, tokenizer, processor
        self.prompt = settings.prompt_config
        self.as_questions = as_questions
        if as_questions:
            self.prompt = replace(self.prompt, template=self.prompt.question_template)
        if written:
            self.prompt = replace(self.prompt, prefill="")
        self.renderer = PromptRenderer(self.prompt)
        self.option_ids = resolve_option_tokens(tokenizer, self.prompt, written=written)
        try:
            self.collection = PairCollection(files)
        except PairFormatError as error:
            raise ConfigError(f"{key}: {error}") from None
        if max(self.collection.options) > len(self.prompt.labels):
            raise ConfigError(
                f"{key}: pair {self.collection.ids[self.collection.options.index(max(self.collection.options))]!r} has "
                f"{max(self.collection.options)} contexts, and contextrl.prompt.labels names "
                f"{len(self.prompt.labels)}. Fix: add labels, e.g. [A, B, C, D]."
            )
        self.dropped: Counter[str] = Counter()
        self.usable = self._filter(key)

    def __len__(self) -> int:
        return len(self.usable)

    def __getitem__(self, index: int) -> ContrastivePair:
        return self.collection[self.usable[index]]

    def ids(self) -> list[str]:
        """Pair ids of the usable pairs, in their order."""
        return [self.collection.ids[index] for index in self.usable]

    def options_of(self, index: int) -> int:
        """Number of contexts of a usable pair, without reading it."""
        return self.collection.options[self.usable[index]]

    def questions(self) -> list[Slot]:
        """Every usable pair in every order of its contexts."""
        return [Slot("pair", index, 0, turn) for index in range(len(self)) for turn in range(self.options_of(index))]

    def rotations(self) -> int:
        """In how many orders a batch shows each pair: all of them with ``contextrl.pairs.orders=both``, else one.

        Raises:
            ConfigError: the pairs have differently many contexts.
        """
        if self.settings.pairs.orders != "both":
            return 1
        sizes = {self.options_of(index) for index in range(len(self))}
        if len(sizes) > 1:
            raise ConfigError(
                f"contextrl.pairs.orders=both needs pairs with equally many contexts, and there are {sorted(sizes)}. "
                "Fix: use orders=random or separate files."
            )
        return sizes.pop() if sizes else 1

    def messages(self, pair: ContrastivePair, epoch: int, rotation: int) -> tuple[list[dict[str, Any]], list[int]]:
        """Chat messages of a pair and the order its contexts are shown in."""
        order = [0]
        if not self.as_questions:
            order = option_order(pair.pair_id, len(pair.contexts), epoch, self.settings.seed, rotation)
        return self.renderer.messages(pair, order), order

    def left_out(self) -> str:
        """How many pairs are left out and why, for the log."""
        return ", ".join(f"{count} pairs {reason}" for reason, count in self.dropped.items()) or "0 pairs"

    def _filter(self, key: str) -> list[int]:
        limit, total = self.settings.run.max_prompt_length, len(self.collection)
        counted = self._counted(key, limit)
        readable = [index for index, (_, _, spelt) in enumerate(counted) if spelt != _PLACEHOLDER]
        usable = [index for index in readable if counted[index][0] <= limit]
        for reason, count in (
            # It breaks the batch: the processor, or the model, looks for the media that it stands for.
            ("with the processor's placeholder tokens in their text", total - len(readable)),
            (f"longer than data.max_prompt_length={limit}", len(readable) - len(usable)),
        ):
            if count:
                self.dropped[reason] = count
                logger.warning("%s: %d of %d pairs left out: %s", key, count, total, reason)
        if not readable:
            raise ConfigError(
                f"{key}: all {total} pairs hold a placeholder token of the model's processor, one of "
                f"{placeholders(self.processor)}, in their text or contextrl.prompt.template does. Fix: write it "
                "another way there."
            )
        if not usable:
            raise ConfigError(
                f"{key}: all {len(readable)} pairs are longer than data.max_prompt_length={limit}; the shortest has "
                f"{min(counted[index] for index in readable)[0]} tokens. Fix: raise data.max_prompt_length (the "
                "rollout's max_model_len with it), or prepare shorter contexts."
            )
        self.longest, self.most_images = (max(counted[index][part] for index in usable) for part in (0, 1))
        spelling = [index for index in usable if counted[index][2] == _CONTROL]
        if spelling and self.prompt.special_tokens_in_text == "keep":
            logger.warning(
                "%s: %d of %d pairs, %r the first, spell a special token of the model in their text, which the model "
                "reads as that token; contextrl.prompt.special_tokens_in_text=split makes ordinary text of it",
                *(key, len(spelling), total, self.collection.ids[spelling[0]]),
            )
        return usable

    def _counted(self, key: str, limit: int) -> Counts:
        about = {**asdict(self.prompt), "template": template_text(self.prompt.template), "limit": limit}
        about["as_questions"] = self.as_questions
        place = _place_of([file.path for file in self.collection.files], about, self.tokenizer, self.processor)
        if (known := _recall(place, len(self.collection))) is not None:
            return known
        counts: Counts = []
        media, control = placeholders(self.processor), control_tokens(self.tokenizer)
        for index in tqdm(range(len(self.collection)), desc=f"Counting tokens of {key}", unit="pair", delay=3):
            try:
                pair = self.collection[index]
                messages = self.renderer.messages(pair, self._first_order(pair))
                spelt = _PLACEHOLDER if any_of(media, messages) else _CONTROL if any_of(control, messages) else _PLAIN
                # With a placeholder too many, a processor counts nothing.
                length = 0 if spelt == _PLACEHOLDER else self._longest(pair, limit)
            except (PairFormatError, ConfigError) as error:
                raise ConfigError(f"{key}: {error}") from None
            images = [image for context in pair.contexts for image in context.images or ()]
            counts.append((length, len(images), spelt))
            if any(image.bytes is None for image in images):
                place = None  # a file of its own, which may change
        _remember(place, counts)
        return counts

    def _first_order(self, pair: ContrastivePair) -> list[int]:
        return [0] if self.as_questions else list(range(len(pair.contexts)))

    def _longest(self, pair: ContrastivePair, limit: int) -> int:
        def length(order: list[int]) -> int:
            messages = self.renderer.messages(pair, order)
            return len(encode_prompt(messages, self.tokenizer, self.prompt, self.processor))

        order = self._first_order(pair)
        first = length(order)
        if abs(first - limit) > _ORDER_SLACK * len(order):
            return first
        if len(order) <= _ALL_ORDERS:
            return max(length(list(other)) for other in permutations(order))
        return max([first, length(order[::-1]), *(length(order[r:] + order[:r]) for r in order[1:])])


def training_pairs(settings: Settings, tokenizer: Any, processor: Any) -> PairSource | None:
    """The pairs of ``contextrl.pairs.train_files`` as the objective shows them; None if it uses none."""
    if not settings.uses_pairs:
        return None
    return PairSource(
        settings.pairs.train_files, settings, tokenizer, processor, "contextrl.pairs.train_files",
        as_questions=settings.objective == "question_answering",
        written=settings.objective != "context_awareness",
    )  # fmt: skip


def held_out_pairs(settings: Settings, tokenizer: Any, processor: Any) -> PairSource:
    """The pairs of ``contextrl.pairs.val_files``: the same questions whatever the objective, none too."""
    return PairSource(
        settings.pairs.val_files, settings, tokenizer, processor, "contextrl.pairs.val_files",
        written=settings.pairs.val_by == "reply",
    )  # fmt: skip


def _place_of(files: Iterable[str], about: Mapping[str, Any], tokenizer: Any, processor: Any) -> Path | None:
    """The file that holds the counts of these pairs: another one if a file, the prompt or the tokenizer changes.

    ``about`` is all else that lengths depend on. None for a tokenizer that cannot be written down.
    """
    try:
        core = json.loads(tokenizer.backend_tokenizer.to_str())
        states = [(os.path.abspath(file), os.stat(file)) for file in files]
    except (AttributeError, OSError):
        return None
    described = {
        "version": __version__,
        "files": [(path, state.st_size, state.st_mtime_ns) for path, state in states],
        "about": about,
        # Padding and truncation are the last call's.
        "tokenizer": [core | {"padding": None, "truncation": None}, tokenizer.special_tokens_map],
        "templates": [tokenizer.chat_template, getattr(processor, "chat_template", None)],
        "images": [repr(getattr(processor, "image_processor", None)), type(processor).__name__],
    }
    digest = hashlib.blake2b(json.dumps(described, sort_keys=True, default=repr).encode(), digest_size=16).hexdigest()
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("CONTEXTRL_CACHE") or os.path.join(cache, "contextrl_verl")) / f"lengths-{digest}.json"


def _recall(place: Path | None, pairs: int) -> Counts | None:
    """The counts of so many pairs; None if they are not there or are no such numbers."""
    try:
        counts = [(length, images, spelt) for length, images, spelt in json.loads(place.read_text())] if place else []
    except (OSError, ValueError, TypeError):
        return None
    good = len(counts) == pairs and all(type(number) is int and number >= 0 for count in counts for number in count)
    return counts if good else None


def _remember(place: Path | None, counts: Counts) -> None:
    """Keep the counts, and of all such files the newest."""
    if place is None:
        return
    with contextlib.suppress(OSError):
        write_whole(place, json.dumps(counts))
        for old in sorted(place.parent.glob("lengths-*.json"), key=os.path.getmtime)[:-_KEPT]:
            old.unlink(missing_ok=True)
