"""The selection reward: 1 when the response chooses the option that supports the answer, else 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reward_fns.choice import parse_choice
from reward_fns.registry import RewardConfigError, reward
from reward_fns.text import as_strings, require_str

__all__ = ["DEFAULT_LABELS", "parse_choice", "score_selection"]

DEFAULT_LABELS = ("A", "B")


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
    if require_str(ground_truth, "selection") not in options:
        raise RewardConfigError(f"The selection reward's ground_truth {ground_truth!r} is not one of {list(options)}.")
    choice = parse_choice(solution_str, options)
    return {"score": float(choice == ground_truth), "parsed": choice or ""}
