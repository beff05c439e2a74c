"""The text of one file as far as a run has shown it, before the run's edits and now.

`sed -i` is carried out by GNU sed itself: on standard input, sandboxed, within limits. Of a partly known text only
known lines are edited: others pass sed as marks, and only commands whose addresses are numbers are carried out.
"""

from __future__ import annotations

import difflib
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from itertools import chain

from data_prep.trajectories.writes import StreamEdit

# More lines than any file of code has: numbers in damaged or hostile data must not ask for memory.
MAX_LINES = 1_000_000
SECONDS = 10
# Programs come from data: one of them may take 1 GiB of memory and print 64 MiB (in blocks of 512 bytes).
_LIMITED = 'ulimit -v 1048576 && ulimit -f 131072 && exec "$0" --sandbox "$@"'
_OPTIONS = re.compile(r"-[nsuzErie]+|--in-place.*|--regexp-extended|--expression")
_LONG = ("--i", "--e")
_NUMBERED = re.compile(
    r"[\s;]*(?P<first>\d+|\$)(?:\s*,\s*(?P<last>\d+|\$))?\s*"
    r"(?:(?P<name>d)[ \t]*|(?P<text>[aic])(?:\\[\s\S]|[^\\\n])*"
    r"|(?P<s>s)(?P<by>[^\\\n])(?:(?:\\[\s\S]|(?!(?P=by))[^\\])*(?P=by)){2}[gIi\d]*[ \t]*)(?:[;\n]\s*|$)"
)


class LostError(ValueError):
    """Raised where an edit's effect cannot be known from what was shown; the message says why."""


class Text:
    """Lines known and unknown, before and now.

    Unknown lines are kept as places that move along with edits around them; an edit of an unknown line is an error.

    Attributes:
        first: the file before the run's edits; None for a line not seen yet.
        lines: the file now; for a line not seen yet its index (from 0) in ``first``.
        whole: whether ``lines`` reaches to the end of the file.
        existed: whether the file was there before the run.
        lost: why the text now is unknown; empty while it is known.
        edited: whether anything has changed it.
    """

    def __init__(self, existed: bool = True) -> None:
        self.lines: list[str | int] = []
        self.first: list[str | None] = []
        self.whole = not existed
        self.existed = existed
        self.lost = ""
        self.edited = False
        self._first_ends = False
        self._anew = False  # whether all of it was replaced, so that lines now cannot be told from lines before

    @property
    def known(self) -> bool:
        """Whether every line of the file as it is now is known."""
        return self.whole and not self.lost and self.shows(1, len(self.lines))

    def shows(self, start: int, end: int) -> bool:
        """Whether lines ``start`` to ``end`` (from 1, both included) are known."""
        beyond = end > len(self.lines) and not self.whole
        return not beyond and all(isinstance(line, str) for line in self.lines[start - 1 : end])

    def lose(self, why: str) -> None:
        """From here on the text is unknown, until all of it is shown again."""
        self.lost = self.lost or why
        self.edited = True

    def see(self, start: int, shown: Sequence[str], to_end: bool = False) -> None:
        """Lines from ``start`` (from 1) were shown; ``to_end`` if the file ends with them."""
        end = start - 1 + len(shown)
        wrong = (to_end and end < len(self.lines)) or (self.whole and end > len(self.lines))
        both = zip(self.lines[start - 1 : end], shown, strict=False)
        wrong |= any(isinstance(old, str) and old != new for old, new in both)
        if to_end and start == 1 and (self.lost or wrong):
            self.write(shown)
        elif wrong:
            self.lose("what was shown does not agree with the edits as understood")
        elif not self.lost:
            try:
                self.reach(end)
            except LostError as error:
                self.lose(str(error))
                return
            for index, line in enumerate(shown, start - 1):
                origin = self.lines[index]
                if isinstance(origin, int):
                    self.first[origin] = self.lines[index] = line
            self.whole |= to_end
            self._first_ends |= to_end

    def reach(self, count: int) -> None:
        """Make places for unknown lines up to this one."""
        if count > MAX_LINES:
            raise LostError(f"line {count} is beyond any file")
        more = count - len(self.lines)
        if more > 0 and self.whole:
            raise LostError("a line behind the file's end")
        self.lines += range(len(self.first), len(self.first) + more)
        self.first += [None] * more

    def write(self, lines: Sequence[str]) -> None:
        """All of it is replaced."""
        self.lines, self.whole, self.lost, self.edited, self._anew = list(lines), True, "", True, True

    def splice(self, start: int, end: int, new: Sequence[str]) -> None:
        """Lines ``start`` to ``end`` (from 1, both included) become new; with ``end = start - 1`` new ones come in."""
        if self.lost:
            raise LostError(self.lost)
        self.reach(max(end, start - 1))
        if not self.shows(start, end):
            raise LostError("an edit of a line that was never shown")
        self.lines[start - 1 : end] = new
        self.edited = True

    def replace_once(self, old: str, new: str) -> None:
        """Replace the only place where a piece of text stands, across lines."""
        if self.lost or not old:
            raise LostError(self.lost or "an empty text to replace")
        found: list[tuple[int, int, str]] = []
        for start, lines in _stretches(self.lines):
            text = "".join(f"{line}\n" for line in lines)
            at = -1
            while (at := text.find(old, at + 1)) >= 0:
                found.append((start, at, text))
        if len(found) != 1:
            where = f"{len(found)} times" if found else "nowhere"
            raise LostError(f"the text to replace stands {where} in what was shown")
        start, at, text = found[0]
        changed = text[:at] + new + text[at + len(old) :]
        if changed and not changed.endswith("\n"):
            raise LostError("an edit takes the last line break of what was shown")
        self.splice(start + 1, start + text.count("\n"), changed.split("\n")[:-1])

    def reset(self) -> None:
        """Back to what it was before the run."""
        self.lines = [index if line is None else line for index, line in enumerate(self.first)]
        self.whole, self.lost = self._first_ends or not self.existed, ""
        self.edited = self._anew = False

    def diff(self, path: str, context: int = 3) -> str:
        """A unified diff from before to now; empty if they are the same; raises LostError if it cannot be known.

        Unknown lines are the same ones in the same order on both sides; no hunk reaches over one.
        """
        if self.lost:
            raise LostError(self.lost)
        if self._anew and self.existed and not (self._first_ends and None not in self.first):
            raise LostError("the file was written anew and its text before was not shown")
        hunks: list[str] = []
        for (old_at, before), (new_at, now) in zip(_stretches(self.first), _stretches(self.lines), strict=True):
            matcher = difflib.SequenceMatcher(None, before, now, autojunk=False)
            for group in matcher.get_grouped_opcodes(context) if before != now else ():
                (_, old, _, new, _), (_, _, old_end, _, new_end) = group[0], group[-1]
                ranges = (old_at + old, old_end - old), (new_at + new, new_end - new)
                # As `diff -u` counts: from 1, and the line before an empty range.
                removed, added = (f"{start + bool(length)},{length}" for start, length in ranges)
                hunks.append(f"@@ -{removed} +{added} @@\n")
                for tag, one, two, three, four in group:
                    sign = " " if tag == "equal" else "-"
                    hunks += [f"{sign}{line}\n" for line in before[one:two]]
                    hunks += [f"+{line}\n" for line in now[three:four] if tag != "equal"]
        if not hunks:
            return ""
        old_name = f"--- a/{path}\n" if self.existed else "new file mode 100644\n--- /dev/null\n"
        return "".join([f"diff --git a/{path} b/{path}\n", old_name, f"+++ b/{path}\n", *hunks])


def _stretches(lines: Sequence[str | int | None]) -> list[tuple[int, list[str]]]:
    """The known lines between unknown ones, each time with the number of lines before."""
    found: list[tuple[int, list[str]]] = [(0, [])]
    for number, line in enumerate(lines, 1):
        if isinstance(line, str):
            found[-1][1].append(line)
        else:
            found.append((number, []))
    return found


def sed_arguments(edit: StreamEdit) -> list[str]:
    """Options and programs of a `sed -i`; raises LostError where they depend on the shell or are not known here."""
    programs = [word.exact for word in edit.scripts]
    if None in programs or not all(map(_OPTIONS.fullmatch, edit.options)):
        raise LostError("a sed program that depends on the shell or on options not known here")
    letters = "".join("E" if word == "--regexp-extended" else word for word in edit.options if word[:3] not in _LONG)
    return [*(f"-{letter}" for letter in "nszEr" if letter in letters), *chain(*(("-e", one) for one in programs))]


def run_sed(text: Text, arguments: list[str]) -> None:
    """Change the text as `sed -i` would with these arguments; raises LostError, leaving the text as it was."""
    if text.lost:
        raise LostError(text.lost)
    if not text.known:
        text.reach(_reach_of(text, arguments))
    unknown = {f"\0{line}": line for line in text.lines if isinstance(line, int)}
    before = [f"\0{line}" if isinstance(line, int) else line for line in text.lines]
    now = _output(arguments, "".join(f"{line}\n" for line in before)).split("\n")
    if now.pop():
        raise LostError("sed takes the last line break")
    if [line for line in now if line in unknown] != list(unknown):
        raise LostError("an edit of a line that was never shown")
    if now != before:
        text.lines, text.edited = [unknown.get(line, line) for line in now], True


def _reach_of(text: Text, arguments: list[str]) -> int:
    """The last line that the commands put text at, once it is sure that they edit known lines and no others."""
    programs = arguments[arguments.index("-e") + 1 :: 2] if not {"-n", "-z"} & set(arguments) else ["?"]
    end = 0
    for program in programs:
        position = 0
        while position < len(program):
            command = _NUMBERED.match(program, position)
            if command is None:
                raise LostError("sed looks at all lines and not all were shown")
            position = command.end()
            if "$" in command.group("first", "last") and not text.whole:
                raise LostError("sed counts to the last line and the file's end was not shown")
            first, last = (
                len(text.lines) if number == "$" else int(number)
                for number in (command["first"], command["last"] or command["first"])
            )
            last = max(first, last)
            if last > MAX_LINES or first == 0:
                raise LostError(f"sed address {last} is beyond any file")
            if text.whole:
                last = min(last, len(text.lines))
            if command["text"] in ("a", "i"):
                end = end if text.whole else max(end, last)
            elif not text.shows(first, last):
                raise LostError("an edit of a line that was never shown")
    return end


@cache
def gnu_sed() -> str:
    """The program's path; where there is none it is empty, with one warning, and edits by sed are not understood."""
    for path in filter(None, map(shutil.which, ("sed", "gsed"))):
        if "GNU" in subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout:
            return path
    warnings.warn(
        "GNU sed is not installed, so files that a run edits by sed -i count as unknown. Fix: install it (on Linux).",
        stacklevel=2,
    )
    return ""


def _output(arguments: list[str], text: str) -> str:
    if not gnu_sed():
        raise LostError("changed by sed, and GNU sed is not installed here")
    try:
        with tempfile.TemporaryFile() as output:
            subprocess.run(
                ["/bin/sh", "-c", _LIMITED, gnu_sed(), *arguments],
                input=text.encode("utf-8", "surrogatepass"),
                stdout=output,
                stderr=subprocess.DEVNULL,
                env={"LC_ALL": "C.UTF-8"},
                timeout=SECONDS,
                check=True,
            )
            output.seek(0)
            return output.read().decode("utf-8", "surrogatepass")
    except (OSError, ValueError, subprocess.SubprocessError):
        why = f"is not understood, reads or writes other files, or takes too much (time: {SECONDS} s)"
        raise LostError(f"a sed program that {why}") from None
