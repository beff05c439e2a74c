"""Which pair stands where in supervised training on selections, as a pure function of the seed. No verl in here."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch.utils.data import DistributedSampler

from contextrl_verl.errors import ConfigError


class Selection(NamedTuple):
    """One training item: index of the pair, passes over the pairs before it, rotation of its drawn option order."""

    index: int
    epoch: int
    rotation: int


def selection_order(
    pairs: int,
    *,
    batch_size: int,
    rotations: int = 1,
    epochs: int = 1,
    steps: int | None = None,
    seed: int = 1,
    shuffle: bool = True,
) -> list[Selection]:
    """All items of a run in the order they are trained on; item i belongs to batch i // batch_size.

    Args:
        pairs: number of usable pairs.
        rotations: 1, or the number of options when every order of a pair is asked in the same batch.
        epochs: passes over the pairs; an incomplete last batch is left out.
        steps: number of batches; overrides ``epochs``.

    Raises:
        ConfigError: the numbers do not fit.
    """
    if batch_size < 1:
        raise ConfigError(f"data.train_batch_size is {batch_size}. Fix: at least 1.")
    if batch_size % rotations:
        raise ConfigError(
            f"data.train_batch_size is {batch_size}, and contextrl.pairs.orders=both asks every pair {rotations} times "
            f"in its batch. Fix: make it a multiple of {rotations}."
        )
    if pairs * rotations < batch_size:
        raise ConfigError(
            f"a batch needs {batch_size // rotations} different pairs, and contextrl.pairs.train_files holds {pairs} "
            "usable ones. Fix: give more pairs or lower data.train_batch_size."
        )
    if steps is not None and steps < 1:
        raise ConfigError(f"trainer.total_training_steps is {steps}. Fix: at least 1, or null for contextrl.epochs.")
    per_batch = batch_size // rotations
    drawn = per_batch * (steps if steps is not None else pairs * epochs // per_batch)
    items: list[Selection] = []
    for epoch in range(-(-drawn // pairs)):
        indices = np.random.default_rng([seed, epoch]).permutation(pairs) if shuffle else np.arange(pairs)
        for index in indices[: drawn - epoch * pairs].tolist():
            items += [Selection(index, epoch, rotation) for rotation in range(rotations)]
    return items


def before_sampler(items: list[Selection]) -> list[Selection]:
    """The items laid out so that verl's sampler reads them in the order given.

    verl's supervised trainer reads a data set through torch's DistributedSampler, which shuffles with a fixed seed of
    its own: the seed of the job would not matter, orders of one pair would be torn apart, and passes mixed.
    """
    read = DistributedSampler(items, num_replicas=1, rank=0, shuffle=True)
    laid: list[Selection] = list(items)
    for position, index in enumerate(read):
        laid[index] = items[position]
    return laid
