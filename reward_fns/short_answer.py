"""Short answers: 1 when the response's answer is an accepted one, else 0; as text, or as numbers and yes or no too.

The response's answer is what ``final_answer`` finds, or all that is not thinking.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from reward_fns.final_answer import final_answer, strip_thinking
from reward_fns.registry import RewardConfigError, reward
from reward_fns.text import as_strings, require_str

# Signs, currency and percent stay: "-5" is not "5".
_TRIMMED = ".,;:!?\"'`()[]{}*_“”‘’"
_ARTICLES = frozenset({"a", "an", "the"})
_PARSED_CHARS = 200
_POLAR = {"yes": "no", "no": "yes"}
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_POWERS = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_WORTH = {word: n for n, word in enumerate(_ONES)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
_UNITS = {
    alias: names.split()[0]
    for names in (
        *(
            "mm millimeter millimetre",
            "cm centimeter centimetre",
            "m meter metre",
            "km kilometer kilometre",
            "in inch inches",
        ),
        *("ft foot feet", "yd yard", "mi mile", "mg milligram", "g gram", "kg kilogram", "lb pound", "oz ounce"),
        *("ml milliliter millilitre", "l liter litre", "s sec second", "min minute", "h hr hour", "d day", "yr year"),
        *(
            "° degree deg",
            "°c",
            "°f",
            "% percent",
            "$ dollar usd",
            "€ euro eur",
            "£ gbp",
            "px pixel",
            "mph",
            "km/h kph",
        ),
        *("mm² mm^2 mm2", "cm² cm^2 cm2", "m² m^2 m2", "km² km^2 km2", "cm³ cm^3 cm3", "m³ m^3 m3"),
    )
    for alias in names.split()
}
_ABOUT = re.compile(r"(?:[~≈≃]|(?:about|approximately|approx\.?|around|roughly|circa)\s)\s?", re.IGNORECASE)
_LATEX = re.compile(
    r"\\(?:text|mathrm|textbf|mathbf|textit|mathit|rm|bf)\s?\{([^{}]{0,200})\}|\\[()!,;: ]|(?<!\\)\$(?!\d)"
)
_NUMBER = re.compile(
    r"(?P<unit>[$€£]?)\s?(?P<sign>[-+]?)(?P<before>[$€£]?)"
    r"(?P<digits>(?:\d{1,3}(?:,\d{3})+|\d{1,30})(?:\.\d{0,30})?|\.\d{1,30})"
    r"(?:e(?P<power>[-+]?\d{1,3}))?\s?(?P<factor>thousand|million|billion|)\s?(?P<behind>[a-z°%$€£][a-z°/^²³23]{0,11}|)",
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
    answers = [normalise(answer) for answer in answers_of(solution_str)]
    return {"score": float(not wanted.isdisjoint(answers)), "parsed": answers[0][:_PARSED_CHARS]}


@reward("contextrl/vqa*")
def score_vqa(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> dict[str, Any]:
    """Score one response in {0.0, 1.0}.

    ``ground_truth``: see :func:`accepted_answers`. A reference ``yes`` or ``no`` is compared with the answer's first
    word, a number with the answer's number, anything else as normalised text. Numbers are equal when they differ by no
    more than ``extra_info["tolerance"]`` (0 to 1, default 0) of the reference; a whole number that can be a year must
    be exact. With a tolerance, "about 104" and "~104" are numbers. A unit may be left out on one side. Raises
    RewardConfigError for another ground truth or tolerance.
    """
    accepted, tolerance = accepted_answers(ground_truth, "vqa"), _tolerance(extra_info)
    answer, reply = answers_of(solution_str)
    whole = normalise(reply)
    score = any(_equal(answer, reference, tolerance) or whole == normalise(reference) for reference in accepted)
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
    known, read = read_number(reference), read_number(_ABOUT.sub("", answer, count=1) if tolerance else answer)
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
    """Value and unit (``%``, a currency sign, a usual one such as ``cm``, or empty) of a text that is one number."""
    # A point before a digit is a decimal point.
    text = text.strip(_AROUND).rstrip(_AROUND + ".").translate(_DASHES).casefold()
    if len(text) > 80:
        return None
    match = _NUMBER.fullmatch(text)
    if match is None:
        *words, last = re.split(r"[\s-]+(?:and\s)?", text)
        unit = _UNITS.get(last) or _UNITS.get(last.removesuffix("s"), "")
        value = _in_words(words if words and unit else [*words, last])
        return None if value is None else (value, unit if words else "")
    behind = match["behind"]
    unit = _UNITS.get(behind) or _UNITS.get(behind.removesuffix("s"), "")
    if behind and not unit:
        return None
    value = float(f"{match['sign']}{match['digits'].replace(',', '')}e{match['power'] or 0}")
    value *= _POWERS.get(match["factor"], 1)
    return (value, unit or match["unit"] or match["before"]) if math.isfinite(value) else None


def _in_words(words: list[str]) -> float | None:
    total, part, last = 0, 0, 0
    for word in words:
        if word in _WORTH:
            # Only ones behind tens: "five six" is no number.
            if last and not (last >= 20 and _WORTH[word] < 10) and last not in _POWERS.values():
                return None
            last = _WORTH[word]
            part += last
        elif word in _POWERS and (part or not total):
            last = _POWERS[word]
            part = (part or 1) * last
            if last > 100:
                total, part = total + part, 0
        else:
            return None
    return float(total + part)


def normalise(text: str) -> str:
    """Casefold, unify Unicode forms and whitespace, trim punctuation around words, drop articles (unless all are)."""
    found = unicodedata.normalize("NFKC", text).casefold().split()
    words = [word for word in (word.strip(_TRIMMED) for word in found) if word]
    return " ".join([word for word in words if word not in _ARTICLES] or words)


def answers_of(response: str) -> tuple[str, str]:
    """The final answer of ``response``, and all of it: a short reply is an answer as it stands."""
    return _LATEX.sub(r"\1", final_answer(response)), strip_thinking(response) or ""


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
