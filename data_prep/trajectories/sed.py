"""Carry out a `sed -i` on the text of a file, by GNU sed itself: on standard input, sandboxed, within limits.

Of a partly known text only lines are edited that are known: unknown lines pass sed as marks, and only commands whose
addresses are numbers are carried out.
"""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import tempfile
import warnings
from contextlib import suppress
from functools import cache

from data_prep.trajectories.partial_file import MAX_LINES, LostError, Text

SECONDS = 10
# Programs come from data: how much memory and output one of them may take, in bytes.
_MEMORY, _OUTPUT = 1 << 30, 64 << 20
_OPTIONS = re.compile(r"-[nsuzErie]+(?:\.\w+)?|--in-place\S*|--regexp-extended")
_NUMBERED = re.compile(
    r"[\s;]*(?P<first>\d+|\$)(?:\s*,\s*(?P<last>\d+|\$))?\s*"
    r"(?:(?P<name>d)[ \t]*|(?P<text>[aic])(?:\\[\s\S]|[^\\\n])*"
    r"|(?P<s>s)(?P<by>[^\\\n])(?:(?:\\[\s\S]|(?!(?P=by))[^\\])*(?P=by)){2}[gIi\d]*[ \t]*)(?:[;\n]\s*|$)"
)


def sed_arguments(words: list[str | None]) -> tuple[list[str], list[str | None]]:
    """Options and programs in sed's own spelling, and files, of a `sed -i`; raises LostError."""
    given: list[str] = []
    files: list[str | None] = []
    waiting = programs = False
    for word in words:
        if waiting or (word and not programs and not files and not word.startswith("-")):
            if word is None:
                raise LostError("a sed program that depends on the shell")
            given += ["-e", word]
            waiting, programs = False, True
        elif word in ("-e", "--expression"):
            waiting = True
        elif word is not None and _OPTIONS.fullmatch(word):
            letters = "E" if word == "--regexp-extended" else "" if word.startswith("--") else word.split(".")[0]
            given += [f"-{letter}" for letter in "nszEr" if letter in letters]
            waiting = letters.endswith("e")
        elif word is None and not programs:
            raise LostError("a sed program that depends on the shell")
        elif word != "":
            files.append(word)
    return given, files


def run_sed(text: Text, arguments: list[str]) -> None:
    """Change the text as `sed -i` would with these arguments; raises LostError, leaving the text as it was."""
    if text.lost:
        raise LostError(text.lost)
    if not text.known:
        text.reach(_reach_of(text, arguments))
    unknown = {f"\0{index}": index for index, line in enumerate(text.lines) if line is None}
    before = [f"\0{index}" if line is None else line for index, line in enumerate(text.lines)]
    now = _output(arguments, "".join(f"{line}\n" for line in before)).split("\n")
    if now.pop():
        raise LostError("sed takes the last line break")
    if [line for line in now if line in unknown] != list(unknown):
        raise LostError("an edit of a line that was never shown")
    if now != before:
        text.rewrite([None if line in unknown else line for line in now])


def _reach_of(text: Text, arguments: list[str]) -> int:
    """The last line that the commands put text at, once it is sure that they edit known lines and no others."""
    if any(word in ("-n", "-z") for word in arguments):
        raise LostError("sed looks at all lines and not all were shown")
    end = 0
    for program in arguments[arguments.index("-e") + 1 :: 2] if "-e" in arguments else ():
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
            elif command["text"] in ("a", "i"):
                end = max(end, last)
            if command["text"] not in ("a", "i") and (
                None in text.lines[first - 1 : last] or (last > len(text.lines) and not text.whole)
            ):
                raise LostError("an edit of a line that was never shown")
    return end


@cache
def gnu_sed() -> str:
    """The program's path; where there is none it is empty, with one warning, and edits by sed are not understood."""
    for name in ("sed", "gsed"):
        path = shutil.which(name) if hasattr(resource, "prlimit") else None  # limits, as Linux has them
        if path and "GNU" in subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout:
            return path
    warnings.warn(
        "GNU sed is not installed, so files that a run edits by sed -i count as unknown. Fix: install it (on Linux).",
        stacklevel=2,
    )
    return ""


def _output(arguments: list[str], text: str) -> str:
    sed = gnu_sed()
    if not sed:
        raise LostError("changed by sed, and GNU sed is not installed here")
    try:
        with (
            tempfile.TemporaryFile() as output,
            subprocess.Popen(
                [sed, "--sandbox", *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.DEVNULL,
                env={"LC_ALL": "C.UTF-8"},
            ) as process,
        ):
            try:
                # It waits for its input until now.
                with suppress(ProcessLookupError):  # it refused the program already
                    resource.prlimit(process.pid, resource.RLIMIT_AS, (_MEMORY, _MEMORY))
                    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (_OUTPUT, _OUTPUT))
                process.communicate(text.encode("utf-8", "surrogatepass"), SECONDS)
            finally:
                process.kill()
            output.seek(0)
            printed = output.read().decode("utf-8", "surrogatepass")
    except subprocess.TimeoutExpired:
        raise LostError(f"a sed program that takes more than {SECONDS} s") from None
    except (OSError, ValueError) as error:
        raise LostError(f"sed could not be run: {error}") from None
    if process.returncode:
        raise LostError("a sed program that is not understood, reads or writes other files, or takes too much")
    return printed
