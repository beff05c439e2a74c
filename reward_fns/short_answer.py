r"""Short answers: 1 when the response's answer is an accepted one, else 0; as text, or as numbers and yes or no too.

The response's answer is its last closed ``<answer>...</answer>``, else its last ``\boxed{...}``, else all of it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from reward_fns.registry import RewardConfigError, reward
from reward_fns.text import as_strings, last_boxed, require_str, strip_thinking

# Signs, currency and percent stay: "-5" is not "5".
_TRIMMED = ".,;:!?\"'`()[]{}*_“”‘’"
_ARTICLES = frozenset({"a", "an", "the"})
_PARSED_CHARS = 200
_POLAR = {"yes": "no", "no": "yes"}
_SMALL = "zero one two three four five six seven eight nine ten eleven twelve".split()
_NUMBER = re.compile(
    r"(?P<unit>[$€£]?)\s?(?P<sign>[-+]?)(?P<before>[$€£]?)(?P<digits>(?:\d{1,3}(?:,\d{3})+|\d{1,30})(?:\.\d{0,30})?|\.\d{1,30})"
    r"(?:e(?P<power>[-+]?\d{1,3}))?\s?(?P<percent>%?)",
    re.IGNORECASE,
)
_AROUND = " \t\r\n*_\"'`"
_DASHES = str.maketrans("−–", "--")


@reward("contextrl/exact_match*")
def score_exact_match(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> dict[str, Any]:
    """Score one response in {0.0, 1.0} by the :func:`accepted_answers` of ``ground_truth``."""
    wanted = set(map(normalise, accepted_answers(ground_truth, "exact-match")))
    answer = normalise(extract_answer(solution_str))
    return {"score": float(answer in wanted), "parsed": answer[:_PARSED_CHARS]}


@reward("contextrl/vqa*")
def score_vqa(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> dict[str, Any]:
    """Score one response in {0.0, 1.0}.

    ``ground_truth``: see :func:`accepted_answers`. A reference ``yes`` or ``no`` is compared with the answer's first
    word, a number with the answer's number, anything else as normalised text. Numbers are equal when they differ by no
    more than ``extra_info["tolerance"]`` (0 to 1, default 0) of the reference; a whole number that can be a year must
    be exact. Raises RewardConfigError for another ground truth or tolerance.
    """
    accepted, tolerance = accepted_answers(ground_truth, "vqa"), _tolerance(extra_info)
    answer = extract_answer(solution_str)
    score = any(_equal(answer, reference, tolerance) for reference in accepted)
    return {"score": float(score), "parsed": normalise(answer)[:_PARSED_CHARS]}


def _tolerance(extra_info: Mapping[str, Any] | None) -> float:
    value = (extra_info or {}).get("tolerance")
    # A column that some rows lack arrives as None or NaN.
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return 0.0
    if isinstance(value, bool | str) or not hasattr(value, "__float__") or not 0 <= float(value) <= 1:
        raise RewardConfigError(f'extra_info["tolerance"] must be a number from 0 to 1, not {value!r}.')
    return float(value)


def _equal(answer: str, reference: str, tolerance: float) -> bool:
    words, wanted = normalise(answer), normalise(reference)
    if words == wanted:
        return True
    if wanted in _POLAR:
        said = words.split()
        return said[:1] == [wanted] and _POLAR[wanted] not in said
    known, read = read_number(reference), read_number(answer)
    if known is None or read is None:
        return False
    value, unit = known
    if unit and read[1] and unit != read[1]:
        return False
    if value == int(value) and 1000 <= value < 3000 and not unit:
        tolerance = 0.0
    # The last bits of a decimal are nobody's mistake.
    return abs(read[0] - value) <= max(tolerance, 1e-9) * abs(value)


def read_number(text: str) -> tuple[float, str] | None:
    """Value and unit (``%`` or a currency sign, else empty) of a text that is a number and nothing else."""
    # A point before a digit is a decimal point.
    text = text.strip(_AROUND).rstrip(_AROUND + ".").translate(_DASHES)
    if len(text) > 80:
        return None
    if text.casefold() in _SMALL:
        return float(_SMALL.index(text.casefold())), ""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    value = float(f"{match['sign']}{match['digits'].replace(',', '')}e{match['power'] or 0}")
    return (value, match["percent"] or match["unit"] or match["before"]) if math.isfinite(value) else None


def normalise(text: str) -> str:
    """Casefold, unify Unicode forms and whitespace, trim punctuation around words, drop articles (unless all are)."""
    found = unicodedata.normalize("NFKC", text).casefold().split()
    words = [word for word in (word.strip(_TRIMMED) for word in found) if word]
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
