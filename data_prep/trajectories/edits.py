"""Finds the content of edits of given files in an agent's commands, without running anything.

The agent's turns are read as what each pipeline writes where (`writes`). Which of these writes end up in the given
files is then followed backwards: a file that is moved, copied, piped or patched into one of them counts as one of
them, and so does a script that writes one of them. Scripts that only reproduce or test are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from data_prep.trajectories.actions import find_calls, last_opened
from data_prep.trajectories.run import Message
from data_prep.trajectories.writes import Write, shell_writes

# A place in a run: ``messages[message].content[start:end]``.
Span = tuple[int, int, int]
_UNRESOLVED = re.compile(r"[$*?`{}\[\]]")


class Paths:
    """A set of paths that may be spelt from any folder: two paths agree if one ends with the other."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._by_name: dict[str, set[tuple[str, ...]]] = {}
        self.update(paths)

    def update(self, paths: Iterable[str]) -> None:
        """Add paths; one with a variable or a pattern in it is no path."""
        for path in paths:
            parts = _parts(path)
            if parts and not _UNRESOLVED.search(path):
                self._by_name.setdefault(parts[-1], set()).add(parts)

    def __contains__(self, path: str) -> bool:
        parts = _parts(path)
        if not parts or _UNRESOLVED.search(parts[-1]):
            return bool(parts)
        known = self._by_name.get(parts[-1], set())
        if _UNRESOLVED.search(path):
            return bool(known)
        return any(parts[-len(other) :] == other[-len(parts) :] for other in known)


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.strip().split("/") if part not in ("", ".", "..", "~"))


def writes_of(messages: Sequence[Message]) -> list[tuple[int, Write]]:
    """Every write of the assistant's turns with the turn's index; spans are places in the turn's content."""
    found: list[tuple[int, Write]] = []
    opened = ""
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        opened = last_opened(message.content, opened)
        calls = find_calls(message.content, opened)
        for region in calls.regions:
            for write in shell_writes(region.text):
                write.spans = [(region.places[start], region.places[end]) for start, end in write.spans]
                calls.writes.append(write)
        found += [(index, write) for write in calls.writes]
    return found


def first_turn(writes: list[tuple[int, Write]], messages: Sequence[Message]) -> int:
    """Index of the first turn among the writes; the number of turns if there are none.

    With all writes of a run this is where text of the agent's own enters the world: until then every view is original.
    """
    return writes[0][0] if writes else len(messages)


def edits_of(writes: list[tuple[int, Write]], files: Iterable[str]) -> list[tuple[int, Write]]:
    """Those of the writes that end up in the given files."""
    hot = Paths(files)

    def touches(write: Write) -> bool:
        return write.unknown or any(path in hot for path in write.targets)

    for _, write in reversed(writes):
        if touches(write):
            hot.update([*write.feeds, *(write.targets if write.script else ())])
    return [(index, write) for index, write in writes if touches(write)]


def contents_of(edits: list[tuple[int, Write]]) -> list[Span]:
    """Where the edits' contents stand, in order; those that overlap are joined."""
    result: list[Span] = []
    for message, start, end in sorted((index, *span) for index, write in edits for span in write.spans):
        if start >= end:
            continue
        if result and result[-1][0] == message and start < result[-1][2]:
            result[-1] = (message, result[-1][1], max(end, result[-1][2]))
        else:
            result.append((message, start, end))
    return result
