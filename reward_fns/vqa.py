r"""Short answers to questions about pictures: 1 when the response's answer is the reference, else 0.

The response's answer is read as in :mod:`reward_fns.exact_match`. A reference ``yes`` or ``no`` is compared with the
answer's first word, a number with the answer's number, anything else as normalised text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from reward_fns.exact_match import accepted_answers, extract_answer, normalise
from reward_fns.registry import RewardConfigError, reward

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


@reward("contextrl/vqa*")
def score_vqa(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> dict[str, Any]:
    """Score one response in {0.0, 1.0}.

    ``ground_truth``: see :func:`reward_fns.exact_match.accepted_answers`. Numbers are equal when they differ by no more
    than ``extra_info["tolerance"]`` (0 to 1, default 0) of the reference; a whole number that can be a year must be
    exact.
    Raises RewardConfigError when either is anything else.
    """
    accepted = accepted_answers(ground_truth, "vqa")
    tolerance = _tolerance(extra_info)
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
