"""Which row stands where: an exact number of pairs in every batch, as a pure function of the seed.

verl 0.9.1 has no sampler hook, so the data set itself is the plan: it is read in order, and item i
belongs to batch i // batch_size. All epochs lie in one pass, so the loader's position is the whole
state and a resumed run continues exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from contextrl_verl.errors import ConfigError


class Slot(NamedTuple):
    """One item of a plan."""

    kind: str  # ``rl`` or ``pair``
    index: int  # row of the ordinary data, or index of the pair
    epoch: int  # how often that source was passed through before, from 0
    rotation: int = 0  # of the drawn option order (pairs with ``orders=both``)


def drawn(kind: str, number: int, size: int, seed: tuple[int, ...] | None, rotations: int = 1) -> Slot:
    """The ``number``-th item of a source of ``size`` that is passed through again and again.

    Args:
        seed: begins the seed of each pass's own order, (seed, epoch) or (seed, epoch, ...); None: as the source stands.
        rotations: how many items in a row are the same pair, in another order of its options each.
    """
    passed, rotation = divmod(number, rotations)
    epoch, at = divmod(passed, size)
    return Slot(kind, at if seed is None else int(_permutation(size, seed[0], epoch, *seed[1:])[at]), epoch, rotation)


@lru_cache(maxsize=8)
def _permutation(size: int, *seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(size)


def check_pairs_of_a_batch(key: str, per_batch: int, pairs: int, rotations: int) -> None:
    """Raises ConfigError unless ``per_batch`` items (``key`` names them) are different pairs in all their rotations."""
    if per_batch % rotations:
        raise ConfigError(
            f"{key} is {per_batch}, and contextrl.pairs.orders=both asks every pair {rotations} times in its batch. "
            f"Fix: make it a multiple of {rotations}."
        )
    if pairs < per_batch // rotations:
        raise ConfigError(
            f"a batch needs {per_batch // rotations} different pairs, and contextrl.pairs.train_files holds {pairs} "
            f"usable ones. Fix: give more pairs or lower {key}."
        )


@dataclass
class BatchPlan:
    """The order of all items of a run. Raises ConfigError, with key and fix, if the numbers do not fit."""

    rl_rows: int  # number of ordinary rows
    pairs: int  # number of contrastive pairs
    batch_size: int  # items in a batch (``data.train_batch_size``)
    pairs_per_batch: int  # how many of them are pairs
    rotations: int = 1  # or the number of options when every order of a pair is asked in the same batch
    epochs: int = 1  # passes over the ordinary rows
    steps: int | None = None  # number of batches; overrides ``epochs``
    seed: int = 1
    shuffle: bool = True  # a new order of rows and of pairs in every epoch, drawn from ``seed``

    def __post_init__(self) -> None:
        pairs, pairs_per_batch, rl_rows = self.pairs, self.pairs_per_batch, self.rl_rows
        self.rl_per_batch = rl_per_batch = self.batch_size - pairs_per_batch
        if pairs_per_batch > 0:
            if pairs == 0:
                raise ConfigError(
                    "contextrl.pairs.train_files holds zero usable pairs. Fix: give files with pairs, raise "
                    "data.max_prompt_length if all were too long, or set contextrl.objective=none."
                )
            if rl_per_batch <= 0:
                raise ConfigError(
                    f"contextrl.pairs.per_batch is {pairs_per_batch}, but data.train_batch_size is {self.batch_size} "
                    "and counts pairs and ordinary rows together. Fix: make it larger than contextrl.pairs.per_batch."
                )
            check_pairs_of_a_batch("contextrl.pairs.per_batch", pairs_per_batch, pairs, self.rotations)
        if rl_rows < rl_per_batch:
            raise ConfigError(
                f"a batch needs {rl_per_batch} ordinary rows, and data.train_files holds {rl_rows} usable ones. "
                "Fix: give more rows or lower data.train_batch_size."
            )
        self.unused_rl_rows = 0
        if self.steps is None:
            self.steps, self.unused_rl_rows = divmod(rl_rows * self.epochs, rl_per_batch)

    def __len__(self) -> int:
        return self.steps * self.batch_size

    def __getitem__(self, item: int) -> Slot:
        if not 0 <= item < len(self):
            raise IndexError(item)
        batch, position = divmod(item, self.batch_size)
        # Pairs are spread evenly over a batch, so that chunks of it for several agent loop workers are alike.
        before = position * self.pairs_per_batch // self.batch_size
        if (position + 1) * self.pairs_per_batch // self.batch_size > before:
            number = batch * self.pairs_per_batch + before
            return drawn("pair", number, self.pairs, (self.seed, 1) if self.shuffle else None, self.rotations)
        number = batch * self.rl_per_batch + position - before
        return drawn("rl", number, self.rl_rows, (self.seed, 0) if self.shuffle else None)
