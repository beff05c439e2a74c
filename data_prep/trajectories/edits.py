"""Finds the content of edits of given files in an agent's commands, without running anything.

The agent's turns are read as what each pipeline writes where (`writes`). Which of these writes end up in the given
files is then followed backwards: a file that is moved, copied, piped or patched into one of them counts as one of
them, and so does a script that writes one of them. Scripts that only reproduce or test are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data_prep.trajectories.run import Message
from data_prep.trajectories.tool_calls import find_calls, last_opened
from data_prep.trajectories.writes import Write, shell_writes

_UNRESOLVED = re.compile(r"[$*?`{}\[\]]")


@dataclass(frozen=True, order=True)
class Edit:
    """Content of one edit: ``messages[message].content[start:end]``."""

    message: int
    start: int
    end: int
    kind: str


class Paths:
    """A set of paths that may be spelt from any folder: two paths agree if one ends with the other."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._by_name: dict[str, set[tuple[str, ...]]] = {}
        for path in paths:
            self.add(path)

    def add(self, path: str) -> None:
        """Add a path; one with a variable or a pattern in it is no path."""
        parts = _parts(path)
        if parts and not _UNRESOLVED.search(path):
            self._by_name.setdefault(parts[-1], set()).add(parts)

    def __contains__(self, path: str) -> bool:
        parts = _parts(path)
        if not parts:
            return False
        if _UNRESOLVED.search(parts[-1]):
            return True
        known = self._by_name.get(parts[-1])
        if known is None:
            return False
        if _UNRESOLVED.search(path):
            return True
        return any(
            parts[-len(other) :] == other if len(other) <= len(parts) else other[-len(parts) :] == parts
            for other in known
        )


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.strip().split("/") if part not in ("", ".", "..", "~"))


def writes_of(messages: Sequence[Message]) -> list[tuple[int, Write]]:
    """Every write of the assistant's turns with the turn's index; spans are places in the turn's content."""
    found: list[tuple[int, Write]] = []
    opened = ""
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        calls = find_calls(message.content, opened)
        opened = last_opened(message.content, opened)
        found += [(index, write) for write in calls.writes]
        for region in calls.regions:
            for write in shell_writes(region.text):
                write.spans = [(region.at(start), region.at(end), kind) for start, end, kind in write.spans]
                found.append((index, write))
    return found


def first_turn(writes: list[tuple[int, Write]], messages: Sequence[Message]) -> int:
    """Index of the first turn among the writes; the number of turns if there are none.

    With all writes of a run this is where text of the agent's own enters the world: until then every view is original.
    """
    return writes[0][0] if writes else len(messages)


def edits_of(writes: list[tuple[int, Write]], files: Iterable[str]) -> list[tuple[int, Write]]:
    """Those of the writes that end up in the given files."""
    hot = Paths(files)
    for _, write in reversed(writes):
        if _touches(write, hot):
            for path in write.feeds:
                hot.add(path)
            if write.script:
                for path in write.targets:
                    hot.add(path)
    return [(index, write) for index, write in writes if _touches(write, hot)]


def contents_of(edits: list[tuple[int, Write]]) -> list[Edit]:
    """Where the edits' contents stand, in order and without overlap."""
    return _apart([Edit(index, *span) for index, write in edits for span in write.spans])


def find_edits(messages: Sequence[Message], files: Iterable[str]) -> list[Edit]:
    """The content of the edits of the given files, in order and without overlap."""
    return contents_of(edits_of(writes_of(messages), files))


def _touches(write: Write, hot: Paths) -> bool:
    return write.unknown or any(path in hot for path in write.targets)


def _apart(spans: list[Edit]) -> list[Edit]:
    """The spans without those inside others; overlapping ones are joined."""
    result: list[Edit] = []
    for span in sorted(spans, key=lambda edit: (edit.message, edit.start, -edit.end)):
        if span.start >= span.end:
            continue
        last = result[-1] if result else None
        if last is not None and last.message == span.message and span.start < last.end:
            if span.end > last.end:
                result[-1] = Edit(last.message, last.start, span.end, last.kind)
            continue
        result.append(span)
    return result
