"""Which lines of which file a command showed: cat, nl, head, tail, sed -n, grep -n, alone or in a row of pipes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import NamedTuple

from data_prep.trajectories.actions import Output
from data_prep.trajectories.shell import Command
from data_prep.trajectories.writes import program_of, stream_edit

_NUMBERED = re.compile(r" *(\d{1,7})\t(.*)")
_FOUND = re.compile(r"(?:(?P<path>[\w./+-]+\.\w+):)?(?P<number>\d{1,7})[:-](?P<line>.*)")
_RANGE = re.compile(r"-n\s+(\d{1,7})(?:,(\d{1,7}|\$))?p\s*")
_COUNT = re.compile(r"(?:(?:-n ?|--lines=|-)(\+?\d{1,7}))?")
_NUMBERING = {("cat", "-n"), ("cat", "--number"), ("nl", "-ba"), ("nl", "-b a")}
_GREPS = ("grep", "egrep", "fgrep", "rg")
_SILENT = frozenset("cd export mkdir rm mv cp touch chmod true sleep set".split())
_END = 10**7


class Shown(NamedTuple):
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
    stages = [[word.exact for word in command.words] for command in pipeline]
    if any(not stage or None in stage for stage in stages) or any(command.outputs for command in pipeline):
        return
    (program, *arguments), *pipes = stages
    *options, path = arguments or [""]
    view = _View(path)
    if program in _GREPS:
        words = [word for word in arguments if word.startswith("-") and len(word) > 1]
        letters = "".join(word for word in words if not word.startswith("--"))
        begins = "n" in letters and not re.search(r"[clLoqvhzZ]", letters)
        view = _View(path if len(arguments) == len(words) + 2 else "", numbers="grep", sifted=True)
    elif (program, " ".join(options)) in _NUMBERING:
        begins, view.numbers = True, "tab"
    else:
        begins = bool(path) and _narrow(view, program, options)
    if begins and all(_narrow(view, stage[0], stage[1:]) for stage in pipes):
        yield from _lines(view, output)


def _narrow(view: _View, program: str, arguments: list[str]) -> bool:
    """Take the view through one more program; False where what is left cannot be told."""
    text = " ".join(arguments)
    if program == "cat":
        return not arguments
    if program == "sed":
        match = _RANGE.fullmatch(text)
        if match is None or view.sifted:
            return match is not None and bool(view.numbers)
        first, last = int(match[1]), _END if match[2] == "$" else int(match[2] or match[1])
        view.start, view.end = view.start + first - 1, min(view.end, view.start + last - 1)
        return True
    count = _COUNT.fullmatch(text) if program in ("head", "tail") else None
    if count and program == "head":
        view.end = view.end if view.sifted else min(view.end, view.start + int(count[1] or 10) - 1)
        return True
    if count and (count[1] or "").startswith("+"):
        view.start += int(count[1]) - 1
        return True
    view.sifted = True
    greps = program in ("grep", "egrep") and not re.search(r"(?:^| )-\w*[coln]", text)
    return bool(view.numbers) and (count is not None or greps)


def _lines(view: _View, output: Output) -> Iterator[Shown]:
    head = _split(output.head)[: -1 if output.cut else None]  # the last line may be cut as well
    if view.numbers == "grep":
        for line in head:
            match = _FOUND.fullmatch(line)
            if match and int(match["number"]) and (match["path"] or view.path):
                yield Shown(match["path"] or view.path, int(match["number"]), (match["line"],))
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
    numbered = takewhile(bool, map(_NUMBERED.fullmatch, lines))
    for _, group in groupby(enumerate(numbered), lambda one: int(one[1][1]) - one[0]):
        run = [match for _, match in group]
        start = int(run[0][1])
        if start > 0:
            ends = whole and start == 1 and len(run) == len(lines)
            yield Shown(path, start, tuple(match[2] for match in run), ends)


def silent(pipeline: list[Command]) -> bool:
    """Whether a pipeline prints nothing when it works."""
    program, words = program_of(pipeline[0])
    edits = program == "sed" and stream_edit(words).in_place
    staged = program == "git" and [word.raw for word in words[:1]] == ["add"]
    return bool(pipeline[-1].outputs) or program in _SILENT or edits or staged


def printed_diff(pipeline: list[Command]) -> bool:
    """Whether a pipeline prints all of a `git diff`, or a file that one was written to."""
    words = [word.value for word in pipeline[0].words if word.value != "--no-pager"]
    if len(pipeline) > 1:
        return False
    if words[:1] == ["cat"]:
        return len(words) == 2 and words[1].endswith((".txt", ".patch", ".diff"))
    known = ("--cached", "--staged", "HEAD", "--no-color", "--", ".")
    return words[:2] == ["git", "diff"] and all(word in known or not word.startswith("-") for word in words[2:])
