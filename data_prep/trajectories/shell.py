"""Splits shell text into commands, words, redirections and heredocs, keeping where each stands; runs nothing.

Every token starts where the one before it ended and no pattern can fail after a long match, so the time is linear in
the text whatever it holds. Text that was cut off (an open quote, a heredoc without its end) reaches to the end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from data_prep.trajectories.run import PATCH_MASKED

_HERE = r"<<-?[ \t]*(?P<quote>['\"])?(?P<end>(?(quote)[^'\"\n]{0,99}|\\?[A-Za-z_][\w.-]{0,99}))(?(quote)(?P=quote))"
_TOKEN = re.compile(
    r"(?P<mask>" + re.escape(PATCH_MASKED) + r")"
    r"|(?P<blank>(?:[ \t\r]|\\\r?\n)+)"
    r"|(?P<line>\n)"
    rf"|(?P<here>{_HERE})"
    r"|(?P<redirect>(?:\d{1,2}|&)?>>?[|&]?|<<<|<&?)"
    r"|(?P<operator>&&|\|\||\|&|;;|[;|&()])"
    r"|(?P<quoted>'[^']*'?|\$'[^'\\]*(?:\\.[^'\\]*)*'?)"
    r"|(?P<double>\")"
    r"|(?P<comment>#)"
    r"|(?P<bare>\\.?|[^\s'\"<>|&;()\\#$]+|\$|.)",
    re.S,
)
_DOUBLE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.S)
_HERE_IN_DOUBLE = re.compile(rf"\"\$\(\s*cat\s*{_HERE}[^\n]{{0,99}}\n")
_CLOSE_SUBSTITUTION = re.compile(r'\s*\)?\s*"?')
_PIECE = re.compile(
    r"'(?P<single>[^']*)'|\$'(?P<ansi>[^'\\]*(?:\\.[^'\\]*)*)'|\"(?P<double>[^\"\\]*(?:\\.[^\"\\]*)*)\""
    r"|\\(?P<escaped>.)|(?P<bare>[^'\"\\$`*?\[{]+)|(?P<unsure>.)",
    re.S,
)
_EXPANDED = re.compile(r"(?<!\\)(?:\$[\w({@*#?!$-]|`)")
_IN_DOUBLE = re.compile(r'\\([$`"\\])|\\\n')
_ANSI = re.compile(r"\\(?:x([\dA-Fa-f]{1,2})|u([\dA-Fa-f]{1,4})|U([\dA-Fa-f]{1,8})|([0-7]{1,3})|(.))", re.S)
_ANSI_CHARS = dict(zip("ntrabfveE\\'\"?", "\n\t\r\a\b\f\v\x1b\x1b\\'\"?", strict=True))
_NO_FILES = ("/dev/null", "/dev/stdout", "/dev/stderr")


@dataclass(frozen=True, slots=True)
class Word:
    """One word as written: ``raw`` is ``text[start:end]`` with its quotes."""

    start: int
    end: int
    raw: str

    @property
    def value(self) -> str:
        """The word without its quotes (variables and substitutions stay as written)."""
        return _unquoted(self.raw)[0]

    @property
    def exact(self) -> str | None:
        """What the program gets for this word; None where it depends on a variable, a command or the folder's files.

        The only command read is ``"$(cat <<'EOF' ... EOF)"``, which stands for its own text.
        """
        value, sure = _unquoted(self.raw)
        return value if sure else None

    @property
    def inside(self) -> tuple[int, int]:
        """Where the word's content stands: without the quotes around it, if one pair of quotes is around all of it."""
        opening, closing = re.match(r"\$?['\"]|", self.raw)[0], self.raw[-1:]
        closed = opening and len(self.raw) > len(opening) and closing == opening[-1]
        return self.start + len(opening), self.end - bool(closed)

    @property
    def is_closed(self) -> bool:
        """Whether the word does not end inside a quote that it opened; looked at in words with line breaks only."""
        return self.raw[:1] not in ("'", '"', "$") or "\n" not in self.raw or self.raw[-1] in "'\")"

    @property
    def is_quoted(self) -> bool:
        """Whether any of it is quoted."""
        return "'" in self.raw or '"' in self.raw

    def behind(self, skip: int) -> Word:
        """The word without its first characters."""
        return Word(self.start + skip, self.end, self.raw[skip:])


@dataclass(slots=True)
class Command:
    """One simple command: its words, the files it is redirected to (True to append) and from, its heredocs' spans."""

    words: list[Word] = field(default_factory=list)
    outputs: dict[str, bool] = field(default_factory=dict)
    reads: list[str] = field(default_factory=list)
    heredocs: list[tuple[int, int]] = field(default_factory=list)


def pipelines(text: str) -> list[list[Command]]:
    """The pipelines of a piece of shell text in order; groups and substitutions are read as if written in a row."""
    found: list[list[Command]] = []
    current: list[Command] = []
    command = Command()
    waiting: list[tuple[Command, str]] = []
    word_start, redirect, position = -1, "", 0

    def close_word(at: int) -> None:
        nonlocal word_start, redirect
        if word_start < 0:
            return
        word = Word(word_start, at, text[word_start:at])
        if not redirect:
            command.words.append(word)
        elif ">" not in redirect:
            command.reads.append(word.value)
        elif word.value not in _NO_FILES and not (redirect.endswith("&") and word.value.isdigit()):
            command.outputs[word.value] = ">>" in redirect
        word_start, redirect = -1, ""

    def close_command(pipe: bool) -> None:
        nonlocal command, current
        if command.words or command.heredocs or command.outputs:
            current.append(command)
            command = Command()
        if not pipe and current:
            found.append(current)
            current = []

    while (match := _TOKEN.match(text, position)) is not None:
        kind = match.lastgroup
        if kind in ("mask", "quoted", "bare", "double") or (kind == "comment" and word_start >= 0):
            word_start = position if word_start < 0 else word_start
            position = _double(text, position)[0] if kind == "double" else match.end()
            continue
        close_word(position)
        position = _line_end(text, position) if kind == "comment" else match.end()
        if kind == "here":
            waiting.append((command, match["end"].lstrip("\\")))
        elif kind in ("redirect", "operator", "line"):
            redirect = match.group() if kind == "redirect" else ""
        if kind == "operator":
            close_command(match.group() in ("|", "|&"))
        elif kind == "line":
            for owner, delimiter in waiting:
                body, position = _heredoc(text, position, delimiter)
                owner.heredocs.append(body)
            waiting.clear()
            if not current or command.words or command.heredocs:
                close_command(False)
    close_word(len(text))
    close_command(False)
    return found


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _heredoc(text: str, start: int, delimiter: str) -> tuple[tuple[int, int], int]:
    """The body's span and where the text goes on behind the line that ends it."""
    position = start
    while (position := text.find(delimiter, position)) >= 0:
        line_start = text.rfind("\n", start, position) + 1 or start
        line_end = _line_end(text, position)
        if text[line_start:line_end].strip() == delimiter and text[line_start:position].strip("\t") == "":
            return (start, max(start, line_start - 1)), min(line_end + 1, len(text))
        position = max(line_end, position + 1)
    return (start, len(text)), len(text)


def _double(text: str, start: int) -> tuple[int, str | None, bool]:
    """The end of a double-quoted piece. ``"$(cat <<'EOF' ... EOF)"`` is one piece whatever quotes its body holds: then
    also its text, and whether that is what the program gets."""
    match = _HERE_IN_DOUBLE.match(text, start)
    if match is None:
        match = _DOUBLE.match(text, start)
        return (match.end() if match else start + 1), None, True
    body, behind = _heredoc(text, match.end(), match["end"].lstrip("\\"))
    close = _CLOSE_SUBSTITUTION.match(text, behind)
    literal = match["quote"] or match["end"].startswith("\\")
    sure = bool(literal) and "<<-" not in match[0] and close[0].endswith(')"')
    return close.end(), text[slice(*body)].rstrip("\n"), sure


def _unquoted(raw: str) -> tuple[str, bool]:
    """A word without its quotes, and whether that is what the program gets."""
    parts: list[str] = []
    sure, position = True, 0
    while position < len(raw):
        end, piece, exact = _double(raw, position) if raw[position] == '"' else (0, None, True)
        sure &= exact
        if piece is None:
            match = _PIECE.match(raw, position)
            end, kind, piece = match.end(), match.lastgroup, match[match.lastgroup]
            if kind == "ansi":
                piece = _ANSI.sub(_ansi, piece)
            elif kind == "double":
                sure &= _EXPANDED.search(piece) is None
                piece = _IN_DOUBLE.sub(r"\1", piece)
            elif kind == "unsure":
                sure, piece = False, piece.strip("'\"")
            elif kind == "escaped":
                piece = piece.removesuffix("\n")
        parts.append(piece)
        position = end
    return "".join(parts), sure


def _ansi(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3]
    if not code and not match[4]:
        return _ANSI_CHARS.get(match[5], match[0])
    number = int(code, 16) if code else int(match[4], 8)
    return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"
