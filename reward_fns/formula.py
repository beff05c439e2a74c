r"""From an answer as people and models write it to one formula in LaTeX that a strict parser takes whole.

Only what has one reading is rewritten (``2**10``, ``\binom52``, ``1{,}234``, ``½``, ``x = 1 or x = 2``). What has
several, or none, is given up: nothing is ever left out of an answer so that the rest can be read, but for units,
currency and the prose around a formula that says nothing else.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_CHARS = 300
_CHARACTERS = {
    **dict(zip("−–—×·÷≤≥≠≈∞∪∩∅∈ℝπθαβ°", (
        "-", "-", "-", r"\times ", r"\cdot ", r"\div ", r"\le ", r"\ge ", r"\ne ", r"\approx ", r"\infty ", r"\cup ",
        r"\cap ", r"\emptyset ", r"\in ", r"\mathbb{R}", r"\pi ", r"\theta ", r"\alpha ", r"\beta ",
        r"^\circ ",
    ), strict=True)),
    **{char: f"^{{{number}}}" for number, char in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
    **{char: f"_{{{number}}}" for number, char in enumerate("₀₁₂₃₄₅₆₇₈₉")},
    **{char: rf"\frac{{{top}}}{{{under}}}" for char, top, under in ("½12", "⅓13", "⅔23", "¼14", "¾34", "⅕15", "⅛18")},
    "\u00a0": " ", "\u202f": " ", "，": ",", "（": "(", "）": ")", "％": "%",
}  # fmt: skip
_UNICODE = str.maketrans(_CHARACTERS)
_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|infinity|infty"
# Applied in this order to every formula.
_REWRITES = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r",\\!\s*(?=\d{3})", ""),
        (r"√\s*(\d+|[a-zA-Z])", r"\\sqrt{\1}"),
        (r"√", r"\\sqrt"),
        (r"\\(?:left|right|bigl?|bigr?|Bigl?|Bigr?|displaystyle|limits)(?![a-zA-Z])|\\[!]", ""),
        (r"(?<!\\)\\[,;: ]|~|\\q?quad(?![a-zA-Z])|\s+", " "),
        (r"\\(?:dfrac|tfrac|cfrac)(?![a-zA-Z])", r"\\frac"),
        (r"\\[dt]binom(?![a-zA-Z])", r"\\binom"),
        (r"\\(?:mathrm|textrm|textbf|textit|textnormal|operatorname|mbox|rm)(?![a-zA-Z])\s*\{", r"\\text{"),
        (r",?\s*(?:\\text\{\s*(?:and|or)\s*\}|(?<![\\a-zA-Z])(?:and|or)(?![a-zA-Z]))", " , "),
        (r"\\varnothing(?![a-zA-Z])", r"\\emptyset"),
        (r"(?<![\d.])(\d{1,3})((?:(?:\{,\}| (?=\d{3}(?!\d)))\d{3})+)(?!\d)", lambda m: m[1] + re.sub(r"\D", "", m[2])),
        (r"(?<![\d}])(\d+) (\d+)/(\d+)(?!\d)", r"\1\\frac{\2}{\3}"),
        (r"\*\*\s*(-?\d+)", r"^{\1}"),
        (r"\*\*", "^"),
        (r"(?<=\d)[eE]([-+]?\d+)(?![\w.])", r" \\cdot 10^{\1}"),
        (rf"(?<![\\a-zA-Z])({_FUNCTIONS})(?![a-zA-Z])", r"\\\1"),
        (r"\\infinity", r"\\infty"),
        (r"\\(frac|binom)(?:\s*(\d)|\s+([a-z]))\s*(\d|[a-z])(?!\d)", r"\\\1{\2\3}{\4}"),
        (r"\\(frac|binom)\s*(\d)\s*\{", r"\\\1{\2}{"),
        (r"_\s*(\w)(?=\s)", r"_{\1}"),
        (r"\\sqrt\s*(\d|[a-zA-Z])", r"\\sqrt{\1}"),
        (r"\\text\{\s*([eid])\s*\}", r"\1"),
        (r"\\\{\s*[a-zA-Z]\s*(?:\\mid|\||:)(.*)\\\}", r"\1"),
        (r"(\d+)\.(\d*)\\(?:overline|bar)\s*\{(\d+)\}", lambda m: _repeating(*m.groups())),
        (r"\s*\^\s*\\circ(?![a-zA-Z])|\s*\^\s*\{\s*\\circ\s*\}", r" \\text{degree}"),
    )
)
_SPAN = re.compile(r"\$\$?(?P<dollar>[^$]+)\$\$?|\\\((?P<round>.+?)\\\)|\\\[(?P<square>.+?)\\\]", re.DOTALL)
_JOINER = re.compile(r"[\s,;]*(?:(?:and|or)(?![a-zA-Z]))?[\s,;]*")
# Words after which a sentence gives its formula.
_GIVES = re.compile(
    r"(?:.*\s)?(?:is|are|was|equals?|be|has|have|get|gives?|costs?|total of|=|:)(?=[\s:])", re.IGNORECASE | re.DOTALL
)
# A subject and a verb before the only number of a sentence.
_STATES = re.compile(
    r"(?:\S+ +)+(?!(?:at|by|for|in|on|with|since|because|step|case|part|page|question|problem|equation|number) )"
    r"[a-z]{2,} +(?=[$*_]*\d)"
)
# What takes the commitment out of a sentence before its formula, and what changes a formula beside it.
_DOUBT = re.compile(
    r"(?<![a-zA-Z])(?:not|never|neither|nor|maybe|perhaps|might|could|if|unless|except)(?![a-zA-Z])|n't|\?|"
    r"\d.*(?<![a-zA-Z])(?:and|or|but)(?![a-zA-Z])",
    re.IGNORECASE | re.DOTALL,
)
_CHANGES = re.compile(
    r"(?<![a-zA-Z])(?:not?|between|from|to|than|less|more|least|most|either|neither|nor|or|and|about|if|unless|except|"
    r"half|twice|times|dozen|hundred|thousand|million|billion|trillion|percent|pi|squared|cubed|plus|minus|mod|"
    r"sin|cos|tan|log|ln|sqrt|wrong|false|incorrect|unknown|undefined|exceeds|under|over|above|below)(?![a-zA-Z])|\?|n't",
    re.IGNORECASE,
)
_NUMBER = r"[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s*/\s*\d+)?"
_UNIT = re.compile(
    r"(?P<formula>.*?(?:[\d.})\]]|\S(?=\s*\\text)))\s*"
    r"(?:\\text\s*\{(?P<text>[^{}\d,;!?+=-]*)\}|(?<=[\d}]) ?(?P<percent>\\?%)|"
    r"(?<=[\d}]) (?P<plain>[a-zA-Z]+(?:[ /.][a-zA-Z]+){0,5})|(?<=\d)(?P<close>cm|mm|km|kg|mph))"
    r"\s*(?:\^\s*\{?\s*[234]\s*\}?)?",
    re.DOTALL,
)
_KNOWN = {
    name: same[0]
    for same in (
        words.split()
        for words in (
            "m meter metre", "cm centimeter centimetre", "mm millimeter millimetre", "km kilometer kilometre",
            "ft feet foot", "inch inche", "yd yard", "mi mile", "kg kilogram", "g gram", "lb pound", "oz ounce",
            "s sec second", "min minute", "h hr hour", "day", "week", "month", "yr year", "l liter litre", "ml",
            "degree deg", "dollar", "cent", "mph", "% percent percentage pct",
        )
    )
    for name in same
}  # fmt: skip
_SMALL_WORDS = frozenset("a an at in of on by".split())
_DOTS = re.compile(r"\\[lcd]?dots|\.\.\.|…")


class Formula(NamedTuple):
    """``latex`` is "" for what has no single reading; ``unit`` is canonical ("cm", "%"), or "" for none or unknown."""

    latex: str
    unit: str = ""


def read_formula(text: str) -> Formula:
    """The formula that ``text`` is, or that a sentence gives at its end."""
    text = _without_prose(text.translate(_UNICODE).replace(r"\$", " ").strip())
    text = text.strip(" \n$€£*_`✓✅").rstrip(" \\").removesuffix(".").rstrip(" \\").lstrip("= ")
    for pattern, by in _REWRITES:
        text = pattern.sub(by, text)
    text = _braced(text.strip())
    if not text or len(text) > MAX_CHARS or _DOTS.search(text) or text.endswith((",", "-", "+", ".")):
        return Formula("")
    text = _exact(text)
    text, unit = _split_unit(text)
    whole_text = re.fullmatch(r"\\text\s*\{([^{}]*)\}", text)
    text = whole_text[1].strip() if whole_text else text
    # Two numbers side by side, of which the parser would make a sum; a clock, of which it would make a fraction.
    if re.search(r"\d\s+\d|//|\?", text) or (":" in text and not re.fullmatch(r"\d+\s*:\s*[1-9]\d*", text)):
        return Formula("")
    if text.count(r"\pm") == 1:
        text = " , ".join(text.replace(r"\pm", sign).strip(" +") for sign in "+-")
    text = re.sub(r"(?<![\w.}])(\d+)_\{?(\d+)\}?(?!\w)", _of_base, text)
    # The parser leaves out what stands below a number.
    return Formula("" if re.search(r"(?<![\w}])\d+\s*_", text) else text, unit)


def words_of(text: str) -> str:
    """The words of an answer in words, in lower case; "" for a formula."""
    plain = re.sub(r"\\text(?:bf|it|rm)?\s*\{([^{}]*)\}|\\[ ,;]|[$*`]", r" \1 ", text).strip(" .\n")
    if not re.fullmatch(r"[A-Za-z][A-Za-z\s'’-]*", plain) or not re.search(
        r"[A-Za-z]{4}|[A-Za-z]{2}\s+[A-Za-z]{2}|(?i:yes|no)\Z", plain
    ):
        return ""
    return "" if re.fullmatch(_FUNCTIONS, plain) else " ".join(plain.casefold().split())


def _without_prose(text: str) -> str:
    spans = list(_SPAN.finditer(text))
    outside = _SPAN.sub("\0", text).strip(" \n.*_`")
    if spans and all(map(_JOINER.fullmatch, outside.split("\0"))):
        return " , ".join(map(_inside, spans))
    gives = _GIVES.match(outside)
    if not gives and (states := _STATES.match(outside)) and not re.search(r"\d", states[0]):
        gives = None if _CHANGES.search(states[0]) else states
    lead, rest = (outside[: gives.end()], outside[gives.end() :]) if gives else ("", outside)
    if not re.search(r"[a-zA-Z]{2}", lead) or _DOUBT.search(lead):
        return text
    if "\0" not in rest:
        return text if spans or "\\" in lead else re.sub(r"(?<!\w)\*\*|\*\*(?!\w)", "", rest).strip(" :*_`")
    kept = spans[lead.count("\0") :]
    before, *joined, after = rest.split("\0")
    if _CHANGES.search(before) or not all(map(_JOINER.fullmatch, joined)):
        return text
    # What follows a formula in a sentence is its unit, which the rule for units judges.
    return " , ".join(map(_inside, kept)) + (rf" \text{{{after.strip()}}}" if after.strip() else "")


def _inside(span: re.Match[str]) -> str:
    return next(filter(None, span.groups()))


def _braced(text: str) -> str:
    r"""``\sqrt(...)`` and ``^(...)`` with braces."""
    for opening in ("\\sqrt(", "^("):
        at = text.find(opening)
        while at >= 0:
            start, depth = at + len(opening), 1
            for end in range(start, len(text)):
                depth += (text[end] == "(") - (text[end] == ")")
                if depth == 0:
                    text = f"{text[: start - 1]}{{{text[start:end]}}}{text[end + 1 :]}"
                    break
            at = text.find(opening, start)
    return text


def _exact(text: str) -> str:
    """Of a value and its approximation the value, unless the other side is only a name."""
    value, sign, near = text.partition(r"\approx")
    return value if sign and re.search(r"\d|\\[a-z]", value) else near if sign else text


def _split_unit(text: str) -> tuple[str, str]:
    match = _UNIT.fullmatch(text)
    if not match:
        return text, ""
    formula = match["formula"].strip()
    if match["percent"]:
        return formula, "%"
    words = (match["text"] or match["plain"] or match["close"] or "").lower().replace(".", " ").split()
    names = [_KNOWN.get(word) or _KNOWN.get(word.removesuffix("s"), "") for word in words]
    if not words:
        return (formula, "") if match["text"] is not None else (text, "")
    if names == ["%"]:
        return formula, "%"
    # Letters behind a formula may be its factors; behind a number and a space words are words.
    is_unit = match["text"] or re.fullmatch(rf"{_NUMBER}|[-+]?\d*\\frac\{{\d+\}}\{{\d+\}}", formula)
    if not is_unit or _CHANGES.search(" ".join(words)) or not (match["text"] or _are_words(words, names)):
        return text, ""
    return formula, names[0] if len(names) == 1 else ""


def _are_words(words: list[str], units: list[str]) -> bool:
    known = [
        bool(unit) or (len(word) > 2 and bool(re.search(r"[aeiouy]", word)))
        for word, unit in zip(words, units, strict=True)
    ]
    return known[0] and all(fine or word in _SMALL_WORDS for fine, word in zip(known, words, strict=True))


def _repeating(whole: str, once: str, again: str) -> str:
    top = int(whole + once + again) - int(whole + once)
    return rf"\frac{{{top}}}{{{10 ** len(once) * (10 ** len(again) - 1)}}}"


def _of_base(match: re.Match[str]) -> str:
    """The value of a number with its base; as it stands when it has digits that the base lacks."""
    digits, base = match[1], int(match[2])
    valid = 2 <= base <= 10 and all(int(digit) < base for digit in digits)
    return str(int(digits, base)) if valid else match[0]
