"""The added and the other lines of a unified diff, read leniently: what a broken hunk still shows counts too."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")


@dataclass(frozen=True)
class PatchLines:
    """Lines of a diff without their first character.

    Attributes:
        files: paths on either side, without ``a/`` and ``b/``.
        added: lines with ``+``.
        original: lines with ``-`` or a blank: text that was in the files before.
    """

    files: tuple[str, ...]
    added: tuple[str, ...]
    original: tuple[str, ...]


def patch_lines(patch: str) -> PatchLines:
    """Read a diff."""
    files: dict[str, None] = {}
    added: list[str] = []
    original: list[str] = []
    old_left = new_left = 0
    for line in patch.split("\n"):
        if old_left <= 0 and new_left <= 0:
            if line.startswith(("--- ", "+++ ")):
                path = line[4:].split("\t", 1)[0].strip()
                if path != "/dev/null":
                    files[path[2:] if path[:2] in ("a/", "b/") else path] = None
            elif line.startswith(("rename to ", "rename from ")):
                files[line.split(" ", 2)[2].strip()] = None
            elif (hunk := _HUNK.match(line)) is not None:
                old_left, new_left = (int(count) if count is not None else 1 for count in hunk.groups())
            elif line.startswith("+"):
                added.append(line[1:])
        elif line.startswith("+"):
            added.append(line[1:])
            new_left -= 1
        elif line.startswith("-"):
            original.append(line[1:])
            old_left -= 1
        elif not line.startswith("\\"):
            original.append(line[1:])
            old_left -= 1
            new_left -= 1
    return PatchLines(tuple(files), tuple(added), tuple(original))
