r"""Mathematical equality through math-verify: 1 when the response's answer equals the reference, else 0.

The response's answer is its last ``\boxed{...}``, else its last non-empty line.

verl scores in threads, where math-verify's signal-based timeouts cannot work, and simplifying a short formula can take
hours (``9^{9^9}``). So the timeouts are off, and only formulas whose size and powers are bounded are handed over; any
other answer earns its point only by being the same text. This bounds the usual blow-ups, it is not a proof.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from reward_fns.registry import RewardConfigError, reward
from reward_fns.text import last_boxed, require_str, strip_thinking

_ANSWER_CHARS = 300
_FORMULA_CHARS = 120
_DIGITS = 30
_COSTLY = re.compile(
    r"\*\*|\\(?:int|iint|oint|sum|prod|lim|binom|dbinom|tbinom|limsup|liminf|infty)(?![a-zA-Z])"
    rf"|!|\d{{{_DIGITS + 1}}}"
)
_PROSE = re.compile(r"(?<![\\a-zA-Z])[A-Za-z]{2,}\s")
_LABEL = re.compile(
    r"^\W{0,6}(?:the\s{1,3})?(?:final\s{1,3})?answer(?:\s{1,3}is\b|\W{0,3}:)[\s:*_]{0,6}", re.IGNORECASE
)


def extract_answer(response: str) -> str:
    r"""Return the last ``\boxed{}`` or the last non-empty line outside ``<think>``; ``""`` if absent or too long."""
    visible = strip_thinking(response)
    if visible is None:
        return ""
    answer = last_boxed(visible)
    if answer is None:
        answer = _LABEL.sub("", visible.rstrip().rpartition("\n")[2], count=1)
    answer = answer.strip()
    return answer if len(answer) <= _ANSWER_CHARS else ""


def is_bounded(formula: str) -> bool:
    """Whether ``formula`` is small enough to be simplified without a timeout: short, and no large or nested powers."""
    if len(formula) > _FORMULA_CHARS or _COSTLY.search(formula):
        return False
    bracketed = 0
    for caret in re.finditer(r"\^", formula):
        exponent = _exponent(formula[caret.end() :])
        if "^" in exponent or sum(map(str.isdigit, exponent)) > 2:
            return False
        if formula[: caret.start()].rstrip().endswith((")", "]", "}")):
            bracketed += 1
            if sum(map(str.isdigit, exponent)) > 1:
                return False
    return bracketed <= 2


def _exponent(rest: str) -> str:
    rest = rest.lstrip()
    if not rest.startswith(("{", "(")):
        # Loose notation: "x^10" and "2^-10" are read with all their digits.
        match = re.match(r"[-+]?\w+|.?", rest, re.DOTALL)
        tail = rest[match.end() :].lstrip() if match else ""
        return (match.group() if match else "") + ("^" if tail.startswith("^") else "")
    depth = 0
    for index, char in enumerate(rest):
        depth += (char in "{(") - (char in "})")
        if depth == 0:
            tail = rest[index + 1 :].lstrip()
            return rest[:index] + ("^" if tail.startswith("^") else "")
    return rest


@lru_cache(maxsize=4096)
def _parse(formula: str) -> tuple[Any, ...]:
    from math_verify import parse

    # It warns once per process that the timeouts are off, which is what this module is about.
    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Delimiters make math-verify read all of it as LaTeX, which prose ("It is 42.") is not.
    as_is = any(mark in formula for mark in ("$", "\\(", "\\[")) or _PROSE.search(formula)
    return tuple(parse(formula if as_is else f"${formula}$", parsing_timeout=None))


def _squeeze(text: str) -> str:
    return "".join(text.split()).strip("$.")


@reward("contextrl/math*")
def score_math(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> dict[str, Any]:
    r"""Score one response in {0.0, 1.0} by a reference of 1 to 300 characters, with or without ``\boxed{}``.

    Raises RewardConfigError for any other, and ImportError when math-verify is missing (extra ``math``).
    """
    reference = require_str(ground_truth, "math")
    boxed = last_boxed(reference)
    reference = (reference if boxed is None else boxed).strip()
    if not reference or len(reference) > _ANSWER_CHARS:
        raise RewardConfigError(f"The math reward's ground_truth has {len(reference)} characters, not 1 to 300.")
    from math_verify import verify

    answer = extract_answer(solution_str)
    if not answer:
        return {"score": 0.0, "parsed": ""}
    equal = _squeeze(answer) == _squeeze(reference)
    if not equal and is_bounded(answer) and is_bounded(reference):
        gold, read = list(_parse(reference)), list(_parse(answer))
        equal = bool(gold and read and verify(gold, read, timeout_seconds=None))
    return {"score": float(equal), "parsed": answer}
