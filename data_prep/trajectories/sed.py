"""Carry out a `sed -i` on the text of a file, by GNU sed itself: on standard input, sandboxed, within limits.

Of a partly known text only lines are edited that are known: unknown lines pass sed as marks, and only commands whose
addresses are numbers are carried out.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import warnings
from functools import cache
from itertools import chain

from data_prep.trajectories.partial_file import MAX_LINES, LostError, Text
from data_prep.trajectories.writes import StreamEdit

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
    except subprocess.TimeoutExpired:
        raise LostError(f"a sed program that takes more than {SECONDS} s") from None
    except (OSError, ValueError, subprocess.CalledProcessError):
        raise LostError(
            "a sed program that is not understood, reads or writes other files, or takes too much"
        ) from None
