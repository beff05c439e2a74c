"""Reading model responses: what counts as the visible answer, and lists that arrive from parquet."""

from __future__ import annotations

import re
from typing import Any

from reward_fns.registry import RewardConfigError

_THINK_TAG = re.compile(r"</?think>", re.IGNORECASE)


def strip_thinking(text: str) -> str | None:
    """Return ``text`` without its ``<think>...</think>`` blocks (nesting allowed), or None if one is left open.

    Text before a ``</think>`` that was never opened is dropped too: chat templates may open the block in the prompt.
    """
    if "think>" not in text.lower():
        return text
    kept: list[str] = []
    depth = start = 0
    for tag in _THINK_TAG.finditer(text):
        if depth == 0:
            kept.append(text[start : tag.start()])
        start = tag.end()
        if tag.group()[1] != "/":
            depth += 1
        elif depth == 0:
            kept.clear()
        else:
            depth -= 1
    if depth:
        return None
    kept.append(text[start:])
    return "\n".join(kept)


def last_boxed(text: str) -> str | None:
    r"""Return what the last ``\boxed{...}`` of ``text`` holds (braces balanced), or None if there is none."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth = 1
    for brace in re.finditer(r"[{}]", text[start:]):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return text[start : start + brace.start()]
    return None


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
