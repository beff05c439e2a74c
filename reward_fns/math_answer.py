r"""Mathematical equality through math-verify: 1 when the response's answer equals the reference, else 0.

The response's answer is its final answer (reward_fns.final_answer); boxes side by side are one answer of several parts.
All of it must be one formula (reward_fns.formula). verl scores in threads, where math-verify's signals cannot stop it,
and simplifying a short formula can take hours (``9^{9^9}``): so it runs in worker processes that are killed in time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from reward_fns.bounded_pool import BoundedPool, CallFailed, CallTimeout
from reward_fns.final_answer import final_answer, find_marks, last_boxed, strip_thinking
from reward_fns.formula import MAX_CHARS, read_formula, words_of
from reward_fns.registry import RewardConfigError, reward
from reward_fns.text import require_str

_DISPLAY = re.compile(r"\\\[(?P<square>.{0,400}?)\\\]|\$\$(?P<dollar>.{0,400}?)\$\$", re.DOTALL)
_BETWEEN = re.compile(r"(?:[\s$,;.]|\\[()\[\]]|\\text\{\s*(?:and|or)\s*\}|and|or)*")
_pool = BoundedPool("reward_fns.math_equality:first_equal")


def extract_answer(response: str) -> str:
    r"""Return the final answer, adjacent boxes joined by commas; ``""`` if there is none or it is too long."""
    visible = strip_thinking(response)
    if visible is None:
        return ""
    # The last line of a display is its answer only with the others.
    visible = _DISPLAY.sub(lambda shown: f"${' '.join((shown['square'] or shown['dollar'] or '').split())}$", visible)
    boxes: list[str] = []
    end = None
    for mark in reversed(find_marks(visible) if visible.count("boxed") > 1 else []):
        is_box = visible.startswith("\\", mark.start) and mark.content is not None
        if not is_box or (end is not None and not _BETWEEN.fullmatch(visible, mark.stop, end)):
            break
        end = mark.start
        boxes.insert(0, mark.content.strip())
    parts = list(dict.fromkeys(boxes))
    answer = ", ".join(parts) if len(parts) > 1 else final_answer(visible)
    return answer if len(answer) <= MAX_CHARS else ""


@reward("contextrl/math*")
def score_math(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    verification_seconds: float = 5.0,
    **_: Any,
) -> dict[str, Any]:
    r"""Score one response in {0.0, 1.0} by a reference of 1 to 300 characters, with or without ``\boxed{}``.

    ``verification_seconds`` bounds the wall-clock time of one verification. ``verification`` in the result says what
    decided: ``"same text"``, ``"equal"``, ``"different"``, ``"unread"`` (the answer or the reference is not one
    formula), ``"no answer"`` (none, or too long), ``"timeout"`` or ``"error"`` (the worker ran out of memory or died).

    Raises RewardConfigError for another reference or limit, and ImportError when math-verify is missing (extra
    ``math``).
    """
    reference = require_str(ground_truth, "math")
    boxed = last_boxed(reference)
    reference = (reference if boxed is None else boxed).strip()
    if not reference or len(reference) > MAX_CHARS:
        raise RewardConfigError(
            f"The math reward's ground_truth has {len(reference)} characters, not 1 to {MAX_CHARS}."
        )
    if not isinstance(verification_seconds, int | float) or not 0 < verification_seconds < math.inf:
        raise RewardConfigError(
            f"The math reward's verification_seconds is {verification_seconds!r}, not a positive number. Fix it in "
            "reward.custom_reward_function.reward_kwargs."
        )
    answer = extract_answer(solution_str)
    verification = _compare(reference, answer, verification_seconds) if answer else "no answer"
    score = float(verification in ("same text", "equal"))
    return {"score": score, "parsed": answer, "verification": verification}


def _compare(reference: str, answer: str, seconds: float) -> str:
    words = words_of(reference)
    if _squeeze(reference) == _squeeze(answer) or (words and words == words_of(answer)):
        return "same text"
    # Letters of words are no factors: "east" is not "seat".
    if words:
        return "different"
    (gold, gold_unit), (read, unit) = read_formula(reference), read_formula(answer)
    if not gold or not read:
        return "unread"
    units = {gold_unit, unit} - {"", "%"}
    if len(units) > 1:
        return "different"
    if _squeeze(gold) == _squeeze(read) and (gold_unit == "%") == (unit == "%"):
        return "same text"
    try:
        return _pool.call(seconds, _pairs(gold, gold_unit == "%", read, unit == "%"))
    except CallTimeout:
        return "timeout"
    except CallFailed:
        return "error"


def _pairs(gold: str, gold_percent: bool, read: str, percent: bool) -> list[list[str]]:
    """The readings of which one must be equal: 28 % is 0.28, and 28 where a question asks for per cent."""
    if gold_percent == percent:
        return [[gold, read]]
    of_hundred = r"\frac{%s}{100}"
    scaled = [gold, of_hundred % read] if percent else [of_hundred % gold, read]
    return [scaled, [gold, read]] if re.fullmatch(r"-?\d+", read) else [scaled]


def _squeeze(text: str) -> str:
    return "".join(re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).split()).strip("$").removesuffix(".")
