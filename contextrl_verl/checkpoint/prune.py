"""Which checkpoints to delete, said before it is done; only ``global_step_N`` folders, never the one to resume from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from contextrl_verl.checkpoint.folders import Checkpoints


def to_delete(checkpoints: Checkpoints, keep: int, ranked: list[int], also: int | None = None) -> list[int]:
    """Steps to delete, in order.

    Args:
        checkpoints: all of the run's.
        keep: how many of ``ranked`` stay.
        ranked: steps, the best first; a step that is not in it has no value and is not among the best.
        also: one more step that stays, whatever its rank (the exported one).
    """
    stay = {*ranked[:keep], checkpoints.latest} | ({also} if also is not None else set())
    return [step for step in sorted(checkpoints.steps) if step not in stay]


def rank(checkpoints: Checkpoints, values: Mapping[int, float], mode: str) -> list[int]:
    """Steps by value, the best first; without values the last step first."""
    if not values:
        return sorted(checkpoints.steps, reverse=True)
    sign = 1 if mode == "min" else -1
    return sorted(values, key=lambda step: (sign * values[step], step))


def delete(checkpoints: Checkpoints, steps: list[int]) -> None:
    """Delete the folders of these steps, and nothing else."""
    for step in steps:
        folder: Path = checkpoints.steps[step]
        if folder.parent != checkpoints.root or folder.is_symlink():
            raise AssertionError(f"{folder} is not a folder of {checkpoints.root}")
        shutil.rmtree(folder)
