"""Splits shell text into commands, words, redirections and heredocs, keeping where each stands; runs nothing.

Every token starts where the one before it ended and no pattern can fail after a long match, so the time is linear in
the text whatever it holds. Text that was cut off (an open quote, a heredoc without its end) reaches to the end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from data_prep.trajectories.placeholders import PATCH_MASKED

_TOKEN = re.compile(
    r"(?P<mask>" + re.escape(PATCH_MASKED) + r")"
    r"|(?P<blank>(?:[ \t\r]|\\\r?\n)+)"
    r"|(?P<line>\n)"
    r"|(?P<here><<-?[ \t]*(?:'(?P<h1>[^'\n]*)'|\"(?P<h2>[^\"\n]*)\"|\\?(?P<h3>[A-Za-z_][\w.-]*)))"
    r"|(?P<redirect>(?:\d{1,2}|&)?>>?[|&]?|<<<|<&?)"
    r"|(?P<operator>&&|\|\||\|&|;;|[;|&()])"
    r"|(?P<quoted>'[^']*'?|\$'[^'\\]*(?:\\.[^'\\]*)*'?)"
    r"|(?P<double>\")"
    r"|(?P<comment>#)"
    r"|(?P<bare>\\.?|[^\s'\"<>|&;()\\#$]+|\$|.)",
    re.S,
)
_DOUBLE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.S)
_HERE_IN_DOUBLE = re.compile(
    r"\"\$\(\s*cat\s*<<-?[ \t]*(?:'([^'\n]{0,99})'|\"([^\"\n]{0,99})\"|\\?([A-Za-z_][\w.-]*))[^\n]{0,99}\n"
)
_CLOSE_SUBSTITUTION = re.compile(r'\s*\)?"?')
_BACKSLASH = re.compile(r"\\(.)", re.S)
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


@dataclass(frozen=True, slots=True)
class Word:
    """One word as written: ``raw`` is ``text[start:end]`` with its quotes."""

    start: int
    end: int
    raw: str

    @property
    def value(self) -> str:
        """The word without its quotes (variables and substitutions stay as written)."""
        raw = self.raw
        if "'" not in raw and '"' not in raw and "\\" not in raw:
            return raw
        quoted = len(raw) > 1 and raw[0] == raw[-1]
        if quoted and raw[0] == "'" and raw.count("'") == 2:
            return raw[1:-1]
        if quoted and raw[0] == '"' and raw.count('"') == 2:
            return _BACKSLASH.sub(r"\1", raw[1:-1])
        return _BACKSLASH.sub(r"\1", raw.replace("'", "").replace('"', ""))

    @property
    def inside(self) -> tuple[int, int]:
        """Where the word's content stands: without the quotes around it, if one pair of quotes is around all of it."""
        raw = self.raw
        skip = 2 if raw.startswith("$'") else 1 if raw[:1] in ("'", '"') else 0
        if not skip:
            return self.start, self.end
        quote = raw[skip - 1]
        closed = len(raw) > skip and raw[-1] == quote
        return self.start + skip, self.end - closed

    @property
    def is_closed(self) -> bool:
        """Whether the word does not end inside a quote that it opened; looked at in words with line breaks only."""
        raw = self.raw
        if raw[:1] not in ("'", '"', "$") or "\n" not in raw:
            return True
        return raw[-1] in "'\")" and len(raw) > 1

    @property
    def is_quoted(self) -> bool:
        """Whether any of it is quoted."""
        return "'" in self.raw or '"' in self.raw


@dataclass(slots=True)
class Command:
    """One simple command: its words, where its output goes, its heredoc bodies; ``pipe`` when the next one reads it."""

    words: list[Word] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    heredocs: list[tuple[int, int]] = field(default_factory=list)
    pipe: bool = False


def pipelines(text: str) -> list[list[Command]]:
    """The pipelines of a piece of shell text in order; groups and substitutions are read as if written in a row."""
    found: list[list[Command]] = []
    current: list[Command] = []
    command = Command()
    waiting: list[tuple[Command, str]] = []
    word_start = -1
    redirect = ""
    position, end = 0, len(text)

    def close_word(at: int) -> None:
        nonlocal word_start, redirect
        if word_start < 0:
            return
        word = Word(word_start, at, text[word_start:at])
        word_start = -1
        if not redirect:
            command.words.append(word)
        elif ">" not in redirect:
            command.reads.append(word.value)
        elif word.value not in ("/dev/null", "/dev/stdout", "/dev/stderr") and not (
            redirect.endswith("&") and word.value.isdigit()
        ):
            command.outputs.append(word.value)
        redirect = ""

    def close_command(pipe: bool) -> None:
        nonlocal command, current
        if command.words or command.heredocs or command.outputs:
            command.pipe = pipe
            current.append(command)
            command = Command()
        if not pipe and current:
            found.append(current)
            current = []

    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:  # pragma: no cover - the last alternative takes any character
            break
        kind = match.lastgroup
        if kind in ("mask", "quoted", "bare", "double") or (kind == "comment" and word_start >= 0):
            if word_start < 0:
                word_start = position
            position = _end_of_double(text, position) if kind == "double" else match.end()
            continue
        close_word(position)
        position = match.end()
        if kind == "comment":
            line_end = text.find("\n", position)
            position = end if line_end < 0 else line_end
        elif kind == "here":
            waiting.append((command, match["h1"] or match["h2"] or match["h3"] or ""))
        elif kind == "redirect":
            redirect = match.group()
        elif kind == "operator":
            redirect = ""
            close_command(match.group() in ("|", "|&"))
        elif kind == "line":
            redirect = ""
            for owner, delimiter in waiting:
                body, position = _heredoc(text, position, delimiter)
                owner.heredocs.append(body)
            waiting.clear()
            if not (current and not command.words and not command.heredocs):
                close_command(False)
    close_word(end)
    close_command(False)
    return found


def _heredoc(text: str, start: int, delimiter: str) -> tuple[tuple[int, int], int]:
    """The body's span and where the text goes on behind the line that ends it."""
    position = start
    while (position := text.find(delimiter, position)) >= 0:
        line_start = text.rfind("\n", start, position) + 1 or start
        line_end = text.find("\n", position)
        line_end = len(text) if line_end < 0 else line_end
        if text[line_start:line_end].strip() == delimiter and text[line_start:position].strip("\t") == "":
            return (start, max(start, line_start - 1)), min(line_end + 1, len(text))
        position = max(line_end, position + 1)
    return (start, len(text)), len(text)


def _end_of_double(text: str, start: int) -> int:
    """The end of a double-quoted piece; ``"$(cat <<'EOF' ... EOF)"`` is one piece whatever quotes its body holds."""
    match = _HERE_IN_DOUBLE.match(text, start)
    if match is None:
        match = _DOUBLE.match(text, start)
        return match.end() if match else start + 1
    _, behind = _heredoc(text, match.end(), match[1] or match[2] or match[3] or "")
    close = _CLOSE_SUBSTITUTION.match(text, behind)
    return close.end() if close else behind


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
