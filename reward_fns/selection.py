"""The option that a response chooses: 1 for the one that supports the answer, or for the right letter, else 0."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

from reward_fns.choice import parse_choice
from reward_fns.registry import RewardConfigError, reward
from reward_fns.text import as_strings, require_str

DEFAULT_LABELS = ("A", "B")
_DEFAULT_OPTIONS = 10


@reward("contextrl/selection*")
def score_selection(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> dict[str, Any]:
    """Score one response in {0.0, 1.0}.

    ``ground_truth`` is the label of the supporting option; the labels are ``extra_info["labels"]`` (default A, B).
    Raises RewardConfigError when the labels are not strings or the ground truth is not one of them.
    """
    labels = (extra_info or {}).get("labels")
    options = DEFAULT_LABELS if labels is None else as_strings(labels, 'extra_info["labels"]')
    if len({label if len(label) == 1 else label.casefold() for label in options}) < len(options):
        raise RewardConfigError(f'extra_info["labels"] must be distinct (longer ones also without case): {options!r}.')
    return _chosen(solution_str, ground_truth, options, "selection")


@reward("contextrl/multiple_choice*")
def score_multiple_choice(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> dict[str, Any]:
    """Score one response in {0.0, 1.0}.

    ``ground_truth`` is a capital letter; ``extra_info["num_options"]`` (2 to 26, default 10) says how many there are.
    Raises RewardConfigError when either is out of range.
    """
    count = (extra_info or {}).get("num_options")
    count = _DEFAULT_OPTIONS if count is None else count
    # Parquet and pandas hand integers over as numpy scalars or whole floats.
    if isinstance(count, bool | str) or not hasattr(count, "__int__") or int(count) != count or not 2 <= count <= 26:
        raise RewardConfigError(f'extra_info["num_options"] must be a whole number from 2 to 26, not {count!r}.')
    return _chosen(solution_str, ground_truth, string.ascii_uppercase[: int(count)], "multiple-choice")


def _chosen(response: str, truth: Any, options: Sequence[str], name: str) -> dict[str, Any]:
    if require_str(truth, name) not in tuple(options):
        raise RewardConfigError(f"The {name} reward's ground_truth {truth!r} is not one of {list(options)}.")
    choice = parse_choice(response, options)
    return {"score": float(choice == truth), "parsed": choice or ""}
