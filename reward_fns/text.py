"""Ground truths and lists of strings, as they arrive from parquet."""

from __future__ import annotations

from typing import Any

from reward_fns.registry import RewardConfigError


def as_strings(value: Any, what: str) -> tuple[str, ...]:
    """Return a list, tuple or numpy array of non-empty strings as a tuple; RewardConfigError names ``what`` if not."""
    items = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(items, list | tuple) or not items or not all(isinstance(i, str) and i.strip() for i in items):
        raise RewardConfigError(f"{what} must be a non-empty list of non-empty strings, not {value!r}.")
    return tuple(items)


def require_str(ground_truth: Any, name: str) -> str:
    """Return ``ground_truth`` if it is a non-empty string, else raise RewardConfigError naming it and the reward."""
    if not isinstance(ground_truth, str) or not ground_truth.strip():
        raise RewardConfigError(
            f"The {name} reward needs ground_truth to be a non-empty string, not {ground_truth!r} "
            f"({type(ground_truth).__name__}). Fix reward_model.ground_truth in the data file."
        )
    return ground_truth
