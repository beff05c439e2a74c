"""Which option did a free-form response choose? The rewards of the pairs as prompts, and of multiple choice.

A response chooses when, outside its thinking, it commits to one option: a label that is its final answer
(``final_answer``), a bare label, or a phrase ("Context A supports the answer", "I choose B"). Commitments must agree,
unless the later one is told as a correction. What is denied, doubted, asked, quoted or conditional chooses nothing.

One-character labels are matched in their case, because "a" is an article, unless the form is clear ("(b)", "option b").
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from reward_fns.commitment import committed_to, key_of
from reward_fns.final_answer import strip_thinking
from reward_fns.registry import RewardConfigError, reward
from reward_fns.text import as_strings, require_str


def parse_choice(text: str, labels: Sequence[str] = ("A", "B")) -> str | None:
    """The label (one of ``labels``, as written there) that ``text`` chooses, or None; None for what is no string."""
    visible = strip_thinking(text) if isinstance(text, str) else None
    return committed_to(visible.strip(), tuple(labels)) if visible and labels else None


@lru_cache(maxsize=256)
def _distinct(labels: tuple[str, ...]) -> bool:
    return len(set(map(key_of, labels))) == len(labels)


@reward("contextrl/selection*")
def score_selection(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> dict[str, Any]:
    """1.0 for the supporting option, whose label is ``ground_truth``, of ``extra_info["labels"]`` (default A, B).

    Raises RewardConfigError when the labels are not strings or the ground truth is not one of them.
    """
    labels = (extra_info or {}).get("labels")
    options = ("A", "B") if labels is None else as_strings(labels, 'extra_info["labels"]')
    if not _distinct(options):
        raise RewardConfigError(f'extra_info["labels"] must be distinct (longer ones also without case): {options!r}.')
    return _chosen(solution_str, ground_truth, options, "selection")


@reward("contextrl/multiple_choice*")
def score_multiple_choice(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> dict[str, Any]:
    """1.0 for the capital letter ``ground_truth`` of ``extra_info["num_options"]`` (2 to 26, default 10) letters.

    Raises RewardConfigError when either is out of range.
    """
    count = (extra_info or {}).get("num_options")
    count = 10 if count is None else count
    # Parquet and pandas hand integers over as numpy scalars or whole floats.
    if isinstance(count, bool | str) or not hasattr(count, "__int__") or int(count) != count or not 2 <= count <= 26:
        raise RewardConfigError(f'extra_info["num_options"] must be a whole number from 2 to 26, not {count!r}.')
    return _chosen(solution_str, ground_truth, string.ascii_uppercase[: int(count)], "multiple-choice")


def _chosen(response: str, truth: Any, options: Sequence[str], name: str) -> dict[str, Any]:
    if require_str(truth, name) not in tuple(options):
        raise RewardConfigError(f"The {name} reward's ground_truth {truth!r} is not one of {list(options)}.")
    choice = parse_choice(response, options)
    return {"score": float(choice == truth), "parsed": choice or ""}
