r"""Where a response states its final answer: the one notion of it, which every scorer shares.

Thinking is removed first. What is left states an answer in a mark (``\boxed{}``, ``<answer></answer>``, JSON with the
key ``answer``), else behind a marker ("Answer:", "The answer is", also in Chinese, Japanese, Korean, German, French and
Spanish), else in its last line. The last mark or marker counts. Every repetition in the patterns is bounded and every
pass is made once, so the time is linear in the length.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

_THINK = re.compile(
    r"<(?P<a>/?)(?:seed:)?(?:think|thinking|thought)>|\[(?P<b>/?)THINK\]|◁(?P<c>/?)think▷"
    r"|<\|(?:begin_of_thought|start_thinking|(?P<d>end_of_thought|end_thinking))\|>",
    re.IGNORECASE,
)
_FINAL_CHANNEL = re.compile(r"<\|channel\|>\s{0,2}final\b[^<]{0,80}<\|message\|>")
_CHANNEL_END = re.compile(r"<\|(?:return|end|start|call)\|>")
# gpt-oss's marks are special tokens: decoded without them, only the names of the channels are left.
_BARE_CHANNEL = re.compile(r"\s{0,4}analysis(?=[A-Z\"'])")

_BRACE = re.compile(r"\{|\}|\\(?:(?P<open>\\?(?:boxed|fbox)\s{0,2}\{)|.)", re.DOTALL)
_TAG = re.compile(
    r"[<\[](?:(?P<close>/?)\s?(?:final[ _-]?)?(?:answer|choice)\s?[>\]]|\|(?:begin|(?P<end>end))_of_box\|>)",
    re.IGNORECASE,
)
_JSON = re.compile(
    r"""[{,]\s{0,12}["'](?:\w{1,12}[ _-]){0,2}(?:answer|choice|option|selection|context|label|result)["']"""
    r"""\s{0,4}:\s{0,4}(?:"(?P<text>(?:[^"\\]|\\.){0,400})"|'(?P<quoted>[^'\n]{0,400})'|(?P<bare>[^\s,"'{}\[\]]{1,80}))""",
    re.IGNORECASE,
)
_IS = (
    r"[*_]{0,3}\s{0,3}(?:[:：→]|=(?!=)|[-–—]\s|(?:is|was|would\s{1,3}be|should\s{1,3}be|must\s{1,3}be|remains)\b"
    r"(?:\s{1,3}(?:clearly|therefore|definitely|indeed|thus|simply|then|still|again))?(?:[*_]{0,3}\s{0,3}[:：])?)"
)
_COLON = r"[*_]{0,3}\s{0,3}[:：]"
# Literal -> what must stand from there on, in lower case. Looking for literals in C keeps a long response cheap.
_MARKERS = {
    "answer": re.compile(
        r"\banswer(?:\s{1,3}(?:to|for)\s{1,3}(?:the|this|your)\s{1,3}(?:question|query|problem))?"
        rf"(?:\s{{1,3}}(?:choice|option|letter|label))?(?:{_IS}|(?:(?<=[#*]\sanswer)|(?<=\*answer)|(?<=final\sanswer))"
        r"[*_]{0,3}[ \t]{0,3}\n)"
    ),
    "ans:": re.compile(r"\bans:"),
    "antwort": re.compile(rf"\bantwort(?:{_COLON}|\s{{1,3}}(?:ist|lautet|wäre)\b(?:\s(?:also|daher|somit))?:?)"),
    "respuesta": re.compile(rf"\brespuesta(?:\s(?:correcta|final))?(?:{_COLON}|\s{{1,3}}es\b:?)"),
    "reponse": re.compile(rf"\breponse(?:\s(?:correcte|finale))?(?:{_COLON}|\s{{1,3}}est\b(?:\s(?:donc|alors))?:?)"),
}
# Cues with letters outside ASCII, for which only such responses are searched.
_FOREIGN_MARKERS = {
    "réponse": re.compile(_MARKERS["reponse"].pattern.replace("reponse", "réponse")),
    "答": re.compile(r"答[案え]?[*_]{0,3}\s{0,2}(?:(?:应该|應該|应|應|就)?[是为為选選]择?|は|[:：])[*_]{0,3}[:：、]?"),
    "正解": re.compile(r"正解[*_]{0,3}\s{0,2}[は:：][*_]{0,3}"),
    "답": re.compile(r"답[변안]?[*_]{0,3}\s{0,2}[은는:：][*_]{0,3}"),
}
_COPULA = re.compile(r"\s?(?:です|である|となります|입니다|이에요|예요)?[.。．]?\Z")
_LIST_MARK = re.compile(r"\A[#>•]{1,6}\s{1,4}")
_SENTENCE = re.compile(r"(?:\d|\w{3}|[)}\]$*])[.!]\s{1,3}(?=[A-Z])|。")
_TAKEN_BACK = re.compile(r"\b(?:no|not|wait|actually|or|rather|but|sorry|correction|maybe|instead)\b", re.IGNORECASE)
_NESTED = 3
_EMPHASIS = " \t\r\n*_`"


class Mark(NamedTuple):
    """Markup that holds an answer: from ``start`` to ``stop`` of the text; ``content`` is None when it never closes."""

    start: int
    stop: int
    content: str | None


def strip_thinking(text: str) -> str | None:
    """Return ``text`` without its thinking (nesting allowed), or None if the text never leaves it.

    Text before a closing mark that was never opened is dropped too: chat templates may open it in the prompt.
    """
    if "<|channel|>" in text:
        *_, last = [None, *_FINAL_CHANNEL.finditer(text)]
        if last is None:
            return None
        end = _CHANNEL_END.search(text, last.end())
        text = text[last.end() : end.start() if end else None]
    elif _BARE_CHANNEL.match(text):
        _, final, text = text.rpartition("assistantfinal")
        if not final:
            return None
    if not ("<" in text or "[" in text or "◁" in text):
        return text
    kept: list[str] = []
    depth = start = 0
    for tag in _THINK.finditer(text):
        if depth == 0:
            kept.append(text[start : tag.start()])
        start = tag.end()
        if not any(tag.groups()):
            depth += 1
        elif depth == 0:
            kept.clear()
        else:
            depth -= 1
    return None if depth else "\n".join([*kept, text[start:]])


def find_marks(text: str) -> list[Mark]:
    r"""Every ``\boxed{}``, answer tag and JSON answer of ``text`` that is inside no other, in order."""
    # Spans first: to copy what each of many nested marks holds would take quadratic time.
    found: list[tuple[int, int, slice | re.Match[str] | None]] = []
    if "box" in text:
        opened: list[re.Match[str]] = []
        # A box begins with a backslash; braces before the first change nothing.
        for brace in _BRACE.finditer(text, max(0, text.find("\\"))):
            if brace["open"] or brace[0] == "{":
                opened.append(brace)
            elif brace[0] == "}" and opened and (box := opened.pop())["open"]:
                found.append((box.start(), brace.end(), slice(box.end(), brace.start())))
        found += [(box.start(), len(text), None) for box in opened if box["open"]]
    if "<" in text or "[" in text:
        opening: re.Match[str] | None = None
        for tag in _TAG.finditer(text):
            if not (tag["close"] or tag["end"]):
                opening = tag
            elif opening:
                found.append((opening.start(), tag.end(), slice(opening.end(), tag.start())))
                opening = None
        if opening:
            found.append((opening.start(), len(text), None))
    if "{" in text and ('"' in text or "'" in text):
        found += [(match.start(), match.end(), match) for match in _JSON.finditer(text)]
    marks: list[Mark] = []
    if len(found) > 1:
        found.sort(key=lambda span: (span[1], -span[0]), reverse=True)
    for start, stop, content in found:
        if not marks or stop <= marks[-1].start:
            value = text[content] if isinstance(content, slice) else content and _json_value(content)
            marks.append(Mark(start, stop, value))
    return marks[::-1]


def _json_value(found: re.Match[str]) -> str:
    if found["text"] is None:
        return found["bare"] or found["quoted"] or ""
    try:
        return json.loads(f'"{found["text"]}"', strict=False)
    except ValueError:
        # LaTeX in JSON is seldom escaped as it should be.
        return found["text"]


def fold(text: str) -> str:
    """``text`` in lower case and of the same length, as :func:`find_markers` wants it."""
    # The only character that changes the length of a text in lower case is the dotted capital I.
    return text.replace("\u0130", "i").lower()


def find_markers(folded: str) -> list[tuple[int, int]]:
    """``(start, end)`` of every phrase that announces an answer, in order; the answer is expected from ``end`` on."""
    found: list[tuple[int, int]] = []
    for markers in (_MARKERS,) if folded.isascii() else (_MARKERS, _FOREIGN_MARKERS):
        for literal, pattern in markers.items():
            at = folded.find(literal)
            while at >= 0:
                if match := pattern.match(folded, at):
                    found.append((at, match.end()))
                at = folded.find(literal, at + len(literal))
    return sorted(found) if len(found) > 1 else found


def last_boxed(text: str) -> str | None:
    r"""Return what the last ``\boxed{...}`` of ``text`` holds (braces balanced), or None if there is none."""
    boxes = [mark.content for mark in find_marks(text) if text.startswith("\\", mark.start)]
    return boxes[-1] if boxes else None


def final_answer(response: str) -> str:
    """What ``response`` gives as its answer; ``""`` when it never leaves its thinking or breaks off inside a mark.

    Emphasis around the answer and the full stop behind it are left out; LaTeX is returned as it stands.
    """
    text = strip_thinking(response)
    if text is None:
        return ""
    marks = find_marks(text)
    if marks:
        text = marks[-1].content or ""
        # Marks in marks, as in <answer>\boxed{4}</answer>; two of them side by side in one are no answer.
        for _ in range(_NESTED):
            inner = find_marks(text)
            if len(inner) != 1:
                break
            text = inner[0].content or ""
    markers = find_markers(fold(text))
    if markers:
        rest = text[markers[-1][1] :].lstrip(_EMPHASIS)
        text = rest if marks else rest.partition("\n")[0]
        # "The answer is 12. There are 12 birds." gives 12, unless it goes on to take that back.
        end = None if marks else _SENTENCE.search(text)
        text = text[: end.end()] if end and not _TAKEN_BACK.search(text, end.end()) else text
    elif not marks:
        text = _LIST_MARK.sub("", text.rstrip().rpartition("\n")[2].lstrip())
    return _COPULA.sub("", text.strip(_EMPHASIS)).strip(_EMPHASIS)
