"""POSIX patterns as GNU sed reads them, in Python's spelling."""

from __future__ import annotations

import re

from data_prep.trajectories.partial_file import LostError

_CLASSES = {
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "alnum": "a-zA-Z0-9",
    "space": r"\s",
    "upper": "A-Z",
    "lower": "a-z",
    "blank": r" \t",
    "punct": r"!-/:-@\[-`{-~",
}
# Python tries patterns by backtracking, and these come from data: a repeated repetition, or many of them, is refused.
_NESTED = re.compile(r"\([^()]*[*+{][^()]*\)[*+{]")
_OPEN_ENDED = re.compile(r"(?<!\\)[*+]|,\}")
_MOST_OPEN_ENDED = 5


def compile_pattern(source: str, extended: bool, flags: str) -> re.Pattern[str]:
    """The pattern; raises LostError where it is not understood, or could take long to try."""
    if not source:
        raise LostError("an empty sed pattern repeats the last one, which is not known here")
    try:
        pattern = _translate(source, extended)
        if _NESTED.search(pattern) or len(_OPEN_ENDED.findall(pattern)) > _MOST_OPEN_ENDED:
            raise LostError(f"sed pattern {source[:60]!r} could take long to try")
        return re.compile(pattern, re.I if re.search("[Ii]", flags) else 0)
    except re.error as error:
        raise LostError(f"sed pattern {source[:60]!r} is not understood ({error})") from error


def _translate(source: str, extended: bool) -> str:
    """A POSIX pattern, basic or extended, as GNU sed reads it, in Python's spelling."""
    parts: list[str] = []
    position = 0
    group_start = True
    while position < len(source):
        char = source[position]
        starts = group_start
        group_start = False
        if char == "[":
            piece, position = _bracket(source, position)
            parts.append(piece)
            continue
        position += 1
        if char == "\\" and position < len(source):
            following = source[position]
            position += 1
            if following in "(){}|+?" and not extended:
                parts.append(following)
                group_start = following in "(|"
            elif following in "<>":
                parts.append(r"\b")
            elif following in "sSwWbBnt" or following.isdigit():
                parts.append("\\" + following)
            elif following.isalpha() or following in "`'":
                raise LostError(f"sed escape \\{following} is not known here")
            else:
                parts.append(re.escape(following))
        elif char in "(){}|+?":
            parts.append(char if extended else re.escape(char))
            group_start = extended and char in "(|"
        elif char == "*":
            parts.append(r"\*" if starts else "*")
            group_start = False
        elif char == "^":
            parts.append("^" if starts or extended else r"\^")
            group_start = starts
        elif char == "$":
            closes = source[position : position + 2] in ("\\)", "\\|") or position == len(source)
            parts.append(r"\Z" if closes or extended else r"\$")
        elif char == ".":
            parts.append("(?s:.)")
        else:
            parts.append(re.escape(char))
    return "".join(parts)


def _bracket(source: str, position: int) -> tuple[str, int]:
    """A bracket expression; a backslash in it is itself, but for the escapes that GNU sed replaces beforehand."""
    end = position + 1
    if source[end : end + 1] == "^":
        end += 1
    if source[end : end + 1] == "]":
        end += 1
    while end < len(source) and source[end] != "]":
        if source.startswith("[:", end):
            close = source.find(":]", end)
            end = close + 2 if close > 0 else end + 1
        else:
            end += 1
    if end >= len(source):
        raise LostError("a sed bracket has no end")
    body = source[position + 1 : end]
    negate = body.startswith("^")
    body = body[negate:]
    body = body.replace("\\n", "\n").replace("\\t", "\t")
    pieces = []
    for part in re.split(r"(\[:\w+:\])", body):
        name = re.fullmatch(r"\[:(\w+):\]", part)
        if name:
            if name[1] not in _CLASSES:
                raise LostError(f"sed class {part} is not known here")
            pieces.append(_CLASSES[name[1]])
        else:
            pieces.append(re.sub(r"([\\\[\]^&~|])", r"\\\1", part))
    return f"[{'^' if negate else ''}{''.join(pieces)}]", end + 1
