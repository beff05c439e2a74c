r"""Normalised string equality: 1 when the response equals one of the accepted answers, else 0.

The response's answer is its last closed ``<answer>...</answer>``, else its last ``\boxed{...}``, else all of it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from reward_fns.registry import RewardConfigError, reward
from reward_fns.text import as_strings, last_boxed, require_str, strip_thinking

# Signs, currency and percent stay: "-5" is not "5".
_TRIMMED = ".,;:!?\"'`()[]{}*_“”‘’"
_ARTICLES = frozenset({"a", "an", "the"})
_PARSED_CHARS = 200


def normalise(text: str) -> str:
    """Casefold, unify Unicode forms and whitespace, trim punctuation around words, drop articles (unless all are)."""
    words = [word.strip(_TRIMMED) for word in unicodedata.normalize("NFKC", text).casefold().split()]
    words = [word for word in words if word]
    return " ".join([word for word in words if word not in _ARTICLES] or words)


def extract_answer(response: str) -> str:
    """Return the part of ``response`` that is compared, ``""`` when it never leaves its ``<think>`` block."""
    visible = strip_thinking(response)
    if visible is None:
        return ""
    end = visible.rfind("</answer>")
    start = visible.rfind("<answer>", 0, max(end, 0))
    if start >= 0:
        return visible[start + len("<answer>") : end]
    boxed = last_boxed(visible)
    return visible if boxed is None else boxed


def accepted_answers(ground_truth: Any, name: str) -> tuple[str, ...]:
    """The accepted answer, or a list of them, as a tuple.

    Raises RewardConfigError, which names the reward, when it is anything else or an answer is only punctuation.
    """
    if isinstance(ground_truth, list | tuple) or hasattr(ground_truth, "tolist"):
        accepted = as_strings(ground_truth, f"The {name} reward's ground_truth")
    else:
        accepted = (require_str(ground_truth, name),)
    if not all(map(normalise, accepted)):
        raise RewardConfigError(f"The {name} reward's ground_truth {ground_truth!r} holds an answer of no words.")
    return accepted


@reward("contextrl/exact_match*")
def score_exact_match(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> dict[str, Any]:
    """Score one response in {0.0, 1.0} by the :func:`accepted_answers` of ``ground_truth``."""
    wanted = set(map(normalise, accepted_answers(ground_truth, "exact-match")))
    answer = normalise(extract_answer(solution_str))
    return {"score": float(answer in wanted), "parsed": answer[:_PARSED_CHARS]}
