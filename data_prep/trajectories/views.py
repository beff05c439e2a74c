"""Which lines of which file a command showed: cat, nl, head, tail, sed -n, grep -n, alone or in a row of pipes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from data_prep.trajectories.actions import Output
from data_prep.trajectories.shell import Command, exact_value

_NUMBERED = re.compile(r" *(\d{1,7})\t(.*)")
_FOUND = re.compile(r"(?P<number>\d{1,7})[:-](?P<line>.*)")
_FOUND_IN = re.compile(r"(?P<path>[\w./+-]+\.\w+):(?P<number>\d{1,7}):(?P<line>.*)")
_RANGE = re.compile(r"(\d{1,7})(?:,(\d{1,7}|\$))?p")
_END = 10**7


@dataclass(frozen=True)
class Shown:
    """Consecutive lines of a file from ``start`` (from 1); ``to_end`` if the file ends with them."""

    path: str
    start: int
    lines: tuple[str, ...]
    to_end: bool = False


@dataclass
class _View:
    path: str
    start: int = 1
    end: int = _END
    numbers: str = ""  # "tab" of nl and cat -n, "grep", or none
    sifted: bool = False  # only numbers tell which lines are left


def shown_by(pipeline: list[Command], output: Output) -> Iterator[Shown]:
    """What a pipeline's output shows, if the pipeline only shows a file."""
    words = [[exact_value(word.raw) for word in command.words] for command in pipeline]
    if any(None in command or not command for command in words) or any(command.outputs for command in pipeline):
        return
    stages = [[word for word in command if word is not None] for command in words]
    view = _first(stages[0]) if stages and stages[0] else None
    for stage in stages[1:]:
        view = _narrow(view, stage) if view is not None else None
    if view is not None:
        yield from _lines(view, output)


def _first(words: list[str]) -> _View | None:
    program, *arguments = words
    options = [word for word in arguments if word.startswith("-") and len(word) > 1]
    files = [word for word in arguments if word not in options]
    if program == "cat":
        if len(files) != 1 or any(option not in ("-n", "--number") for option in options):
            return None
        return _View(files[0], numbers="tab" if options else "")
    if program == "nl":
        if options == ["-b"] and files[:1] == ["a"]:
            return _View(files[1], numbers="tab") if len(files) == 2 else None
        return _View(files[0], numbers="tab") if options == ["-ba"] and len(files) == 1 else None
    if program == "sed":
        match = _RANGE.fullmatch(files[0].strip()) if len(files) == 2 and options == ["-n"] else None
        return _narrow_to(_View(files[1]), match) if match else None
    if program in ("head", "tail") and arguments:
        return _narrow(_View(arguments[-1]), [program, *arguments[:-1]])
    if program in ("grep", "egrep", "fgrep", "rg"):
        letters = "".join(option.lstrip("-") for option in options if not option.startswith("--"))
        if "n" in letters and not re.search(r"[clLoqvhzZ]", letters):
            return _View(files[-1] if len(files) == 2 else "", numbers="grep", sifted=True)
    return None


def _narrow_to(view: _View, match: re.Match[str]) -> _View:
    first = int(match[1])
    last = first if match[2] is None else _END if match[2] == "$" else int(match[2])
    view.end = min(view.end, view.start + last - 1)
    view.start += first - 1
    return view


def _narrow(view: _View, words: list[str]) -> _View | None:
    """The view behind one more pipe; None where what is left cannot be told."""
    program, *arguments = words
    text = " ".join(arguments)
    if program == "cat" and not arguments:
        return view
    if program == "sed":
        match = _RANGE.fullmatch(arguments[1].strip()) if len(arguments) == 2 and arguments[0] == "-n" else None
        if match is None or view.sifted:
            return view if match is not None and view.numbers else None
        return _narrow_to(view, match)
    count = re.fullmatch(r"(?:-n ?|--lines=|-)(\+?\d{1,7})|", text)
    if program == "head" and count:
        if not view.sifted:
            view.end = min(view.end, view.start + int(count[1] or 10) - 1)
        return view
    if program == "tail" and count:
        if (count[1] or "").startswith("+"):
            view.start += int(count[1]) - 1
            return view
        view.sifted = True
        return view if view.numbers else None
    if program in ("grep", "egrep") and view.numbers and not re.search(r"(?:^| )-\w*[coln]", text):
        view.sifted = True
        return view
    return None


def _lines(view: _View, output: Output) -> Iterator[Shown]:
    head = _split(output.head)
    if output.cut:
        head = head[:-1]  # its last line may be cut as well
    if view.numbers == "grep":
        for line in head:
            match = _FOUND_IN.fullmatch(line) or (_FOUND.fullmatch(line) if view.path else None)
            if match and int(match["number"]):
                yield Shown(match.groupdict().get("path") or view.path, int(match["number"]), (match["line"],))
    elif view.numbers == "tab":
        whole = not output.cut and not view.sifted and view.start == 1 and view.end == _END
        yield from _runs(view.path, head, whole)
        if output.cut and output.tail:
            yield from _runs(view.path, _split(output.tail)[1:], False)
    # More lines than that: something else was printed too.
    elif not view.sifted and 0 < len(head) <= view.end - view.start + 1:
        ends = not output.cut and (view.end == _END or len(head) < view.end - view.start + 1)
        yield Shown(view.path, view.start, tuple(head), ends)


def _split(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []


def _runs(path: str, lines: list[str], whole: bool) -> Iterator[Shown]:
    """Runs of consecutive numbers; a line without a number ends the reading."""
    numbered = list(takewhile(bool, map(_NUMBERED.fullmatch, lines)))
    runs: list[tuple[int, list[str]]] = []
    for match in numbered:
        number = int(match[1])
        if not runs or number != runs[-1][0] + len(runs[-1][1]):
            runs.append((number, []))
        runs[-1][1].append(match[2])
    for start, run in runs:
        if start > 0:
            yield Shown(
                path, start, tuple(run), whole and len(runs) == 1 and len(numbered) == len(lines) and start == 1
            )


def silent(pipeline: list[Command]) -> bool:
    """Whether a pipeline prints nothing when it works."""
    first = program_of(pipeline)
    if pipeline[-1].outputs:
        return True
    if first == "sed":
        return any(word.raw.startswith(("-i", "--in-place")) for word in pipeline[0].words)
    if first == "git":
        return len(pipeline[0].words) > 1 and pipeline[0].words[1].raw == "add"
    return first in ("cd", "export", "mkdir", "rm", "mv", "cp", "touch", "chmod", "true", "sleep", "set")


def program_of(pipeline: list[Command]) -> str:
    """The name of the first program."""
    return pipeline[0].words[0].raw if pipeline[0].words else ""


def printed_diff(pipeline: list[Command]) -> bool:
    """Whether a pipeline prints all of a `git diff`, or a file that one was written to."""
    words = [word.value for word in pipeline[0].words]
    if len(pipeline) > 1:
        return False
    if words[:1] == ["cat"]:
        return len(words) == 2 and words[1].endswith((".txt", ".patch", ".diff"))
    plain = [word for word in words if word != "--no-pager"]
    known = ("--cached", "--staged", "HEAD", "--no-color", "--", ".")
    return plain[:2] == ["git", "diff"] and all(word in known or not word.startswith("-") for word in plain[2:])
