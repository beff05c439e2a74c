"""The exact value of a shell word, where it can be known without running anything."""

from __future__ import annotations

import re

_PIECE = re.compile(
    r"'(?P<single>[^']*)'"
    r"|\$'(?P<ansi>[^'\\]*(?:\\.[^'\\]*)*)'"
    r'|"\$\(\s*cat\s*<<(?P<dash>-?)[ \t]*(?:\'(?P<h1>[^\'\n]*)\'|\\(?P<h3>\w+))[^\n]*\n(?P<here>.*)\)\s*"'
    r'|"(?P<double>[^"\\]*(?:\\.[^"\\]*)*)"'
    r"|\\(?P<escaped>.)"
    r"|(?P<bare>[^'\"\\$`*?~\[{]+|[*?~\[{])",
    re.S,
)
_IN_DOUBLE = re.compile(r'\\([$`"\\])|\\\n', re.S)
_ANSI = re.compile(r"\\(x[0-9A-Fa-f]{1,2}|u[0-9A-Fa-f]{1,4}|U[0-9A-Fa-f]{1,8}|[0-7]{1,3}|.)", re.S)
_ANSI_CHARS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "e": "\x1b", "E": "\x1b"}


def exact_value(raw: str) -> str | None:
    """What the program gets for this word; None where it depends on a variable, a command or the folder's files.

    The only command read is ``"$(cat <<'EOF' ... EOF)"``, which stands for its own text.
    """
    parts: list[str] = []
    position = 0
    while position < len(raw):
        match = _PIECE.match(raw, position)
        if match is None:
            return None
        kind = match.lastgroup
        if kind == "single" or kind == "escaped":
            piece = match[kind] if match[kind] != "\n" or kind == "single" else ""
        elif kind == "ansi":
            piece = _ANSI.sub(_ansi, match["ansi"])
        elif kind == "here":
            body = _heredoc_of(match["here"], match["h1"] or match["h3"] or "", bool(match["dash"]))
            if body is None:
                return None
            piece = body
        elif kind == "double":
            text = match["double"]
            if "`" in text.replace("\\`", "") or re.search(r"(?<!\\)\$[\w({@*#?!$-]", text):
                return None
            piece = _IN_DOUBLE.sub(lambda found: found[1] or "", text)
        else:
            piece = match["bare"]
            if piece in "*?[{" and kind == "bare":
                return None
        parts.append(piece)
        position = match.end()
    return "".join(parts)


def _heredoc_of(text: str, delimiter: str, strip_tabs: bool) -> str | None:
    """The body up to the line that ends it, as command substitution gives it: without line ends behind."""
    lines = text.split("\n")
    for index, line in enumerate(lines):
        if (line.lstrip("\t") if strip_tabs else line) == delimiter:
            body = [line.lstrip("\t") if strip_tabs else line for line in lines[:index]]
            return "\n".join(body).rstrip("\n")
    return None


def _ansi(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] in "xuU" and len(code) > 1:
        number = int(code[1:], 16)
    elif code[0] in "01234567":
        number = int(code, 8)
    else:
        return _ANSI_CHARS.get(code, code if code in "\\'\"?" else "\\" + code)
    return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"
