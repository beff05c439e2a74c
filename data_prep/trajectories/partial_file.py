"""The text of one file as far as a run has shown it: before the run's edits and now."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

# More lines than any file of code has: numbers in damaged or hostile data must not ask for memory.
MAX_LINES = 1_000_000


class LostError(ValueError):
    """Raised where an edit's effect cannot be known from what was shown; the message says why."""


class Text:
    """Lines known and unknown, before and now.

    Unknown lines are kept as places that move along with edits around them; an edit of an unknown line is an error.

    Attributes:
        lines: the file now; None for a line not seen yet.
        first: the file before the run's edits, in the same way.
        whole: whether ``lines`` reaches to the end of the file.
        existed: whether the file was there before the run.
        lost: why the text now is unknown; empty while it is known.
        edited: whether anything has changed it.
    """

    def __init__(self, existed: bool = True) -> None:
        self.lines: list[str | None] = []
        self.first: list[str | None] = []
        self.origin: list[int | None] = []
        self.whole = not existed
        self.existed = existed
        self.lost = ""
        self.edited = False

    @property
    def known(self) -> bool:
        """Whether every line of the file as it is now is known."""
        return self.whole and not self.lost and None not in self.lines

    @property
    def first_whole(self) -> bool:
        """Whether every line of the file before the edits is known."""
        return self.existed and self._first_ends and None not in self.first

    _first_ends = False
    _anew = False  # whether all of it was replaced, so that lines now cannot be told from lines before

    def lose(self, why: str) -> None:
        """From here on the text is unknown, until all of it is shown again."""
        self.lost = self.lost or why
        self.edited = True

    def see(self, start: int, shown: Sequence[str], to_end: bool = False) -> None:
        """Lines from ``start`` (from 1) were shown; ``to_end`` if the file ends with them."""
        if to_end and start == 1 and (self.lost or self._contradicts(start, shown, to_end)):
            self._see_afresh(shown)
            return
        if self.lost:
            return
        if self._contradicts(start, shown, to_end):
            self.lose("what was shown does not agree with the edits as understood")
            return
        try:
            self.reach(start - 1 + len(shown))
        except LostError as error:
            self.lose(str(error))
            return
        for index, line in enumerate(shown, start - 1):
            if self.lines[index] is None:
                self.lines[index] = line
                origin = self.origin[index]
                if origin is not None:
                    self.first[origin] = line
        if to_end:
            self.whole = True
            self._first_ends = True

    def _contradicts(self, start: int, shown: Sequence[str], to_end: bool) -> bool:
        end = start - 1 + len(shown)
        if self.whole and (end > len(self.lines) or (to_end and end != len(self.lines))):
            return True
        if to_end and end < len(self.lines):
            return True
        known = self.lines[start - 1 : end]
        return any(old is not None and old != new for old, new in zip(known, shown, strict=False))

    def _see_afresh(self, shown: Sequence[str]) -> None:
        self.lines = list(shown)
        self.origin = [None] * len(shown)
        self.whole, self.lost, self.edited, self._anew = True, "", True, True

    def reach(self, count: int) -> None:
        """Make places for unknown lines up to this one."""
        if count > MAX_LINES:
            raise LostError(f"line {count} is beyond any file")
        more = count - len(self.lines)
        if more > 0:
            if self.whole:
                raise LostError("a line behind the file's end")
            self.lines += [None] * more
            self.origin += range(len(self.first), len(self.first) + more)
            self.first += [None] * more

    def write(self, lines: Sequence[str]) -> None:
        """All of it is replaced."""
        self.lines, self.origin = list(lines), [None] * len(lines)
        self.whole, self.lost, self.edited, self._anew = True, "", True, True

    def rewrite(self, lines: Sequence[str | None]) -> None:
        """All lines anew, with every unknown one among them, in the same order."""
        unknown = iter([origin for line, origin in zip(self.lines, self.origin, strict=True) if line is None])
        self.lines, self.origin = list(lines), [next(unknown) if line is None else None for line in lines]
        self.edited = True

    def splice(self, start: int, end: int, new: Sequence[str]) -> None:
        """Lines ``start`` to ``end`` (from 1, both included) become new; with ``end = start - 1`` new ones come in."""
        if self.lost:
            raise LostError(self.lost)
        self.reach(end)
        if start - 1 > len(self.lines):
            self.reach(start - 1)
        if any(line is None for line in self.lines[start - 1 : end]):
            raise LostError("an edit of a line that was never shown")
        self.lines[start - 1 : end] = new
        self.origin[start - 1 : end] = [None] * len(new)
        self.edited = True

    def replace_once(self, old: str, new: str) -> None:
        """Replace the only place where a piece of text stands, across lines."""
        if self.lost:
            raise LostError(self.lost)
        if not old:
            raise LostError("an empty text to replace")
        found: list[tuple[int, int, str]] = []
        start = 0
        for index in range(len(self.lines) + 1):
            if index < len(self.lines) and self.lines[index] is not None:
                continue
            segment = "".join(f"{line}\n" for line in self.lines[start:index])
            at = segment.find(old)
            while at >= 0:
                found.append((start, at, segment))
                at = segment.find(old, at + 1)
            start = index + 1
        if len(found) != 1:
            where = "nowhere" if not found else f"{len(found)} times"
            raise LostError(f"the text to replace stands {where} in what was shown")
        first, at, segment = found[0]
        changed = segment[:at] + new + segment[at + len(old) :]
        if changed and not changed.endswith("\n"):
            raise LostError("an edit takes the last line break of what was shown")
        before = segment.split("\n")[:-1]
        now = changed.split("\n")[:-1]
        same = 0
        while same < min(len(before), len(now)) and before[same] == now[same]:
            same += 1
        tail = 0
        while tail < min(len(before), len(now)) - same and before[-1 - tail] == now[-1 - tail]:
            tail += 1
        self.splice(first + same + 1, first + len(before) - tail, now[same : len(now) - tail])

    def reset(self) -> None:
        """Back to what it was before the run."""
        self.lines = list(self.first)
        self.origin = list(range(len(self.first)))
        self.whole, self.lost, self.edited = self._first_ends or not self.existed, "", False
        self._anew = False

    def diff(self, path: str, context: int = 3) -> str:
        """A unified diff from before to now; empty if they are the same; raises LostError if it cannot be known.

        Unknown lines are the same ones in the same order on both sides; no hunk reaches over one.
        """
        if self.lost:
            raise LostError(self.lost)
        if self._anew and self.existed and not self.first_whole:
            raise LostError("the file was written anew and its text before was not shown")
        hunks: list[str] = []
        old, new = _stretches(self.first), _stretches(self.lines)
        for (old_at, before), (new_at, now) in zip(old, new, strict=True):
            matcher = difflib.SequenceMatcher(None, before, now, autojunk=False)
            for group in matcher.get_grouped_opcodes(context) if before != now else ():
                old_range = _range(old_at + group[0][1], old_at + group[-1][2])
                hunks.append(f"@@ -{old_range} +{_range(new_at + group[0][3], new_at + group[-1][4])} @@\n")
                for tag, one, two, three, four in group:
                    if tag == "equal":
                        hunks += [f" {line}\n" for line in before[one:two]]
                    else:
                        hunks += [f"-{line}\n" for line in before[one:two]]
                        hunks += [f"+{line}\n" for line in now[three:four]]
        if not hunks:
            return ""
        old_name = f"--- a/{path}\n" if self.existed else "new file mode 100644\n--- /dev/null\n"
        return "".join([f"diff --git a/{path} b/{path}\n", old_name, f"+++ b/{path}\n", *hunks])


def _stretches(lines: Sequence[str | None]) -> list[tuple[int, list[str]]]:
    """The known lines between unknown ones, each time with the number of lines before."""
    found: list[tuple[int, list[str]]] = [(0, [])]
    for number, line in enumerate(lines, 1):
        if line is None:
            found.append((number, []))
        else:
            found[-1][1].append(line)
    return found


def _range(start: int, end: int) -> str:
    """As ``diff -u`` counts: from 1, and the line before an empty range."""
    return f"{start + 1 if end > start else start},{end - start}"
