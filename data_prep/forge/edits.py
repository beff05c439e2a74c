"""The ways in which the scripted agent changes lines of a file, as shell commands."""

from __future__ import annotations

import difflib
import random

from data_prep.forge.base import Fix, same_ends


def commands(path: str, text: str, fix: Fix, draw: random.Random) -> list[str]:
    """One or two commands that make the change, in a way drawn at random from those that can."""
    ways = [made for made in (way(path, text, fix) for way in _WAYS) if made]
    return draw.choice(ways)


def _substituted(path: str, text: str, fix: Fix) -> list[str]:
    """``sed -i 's/old/new/'`` on one line, with the shortest piece that is found first in the line."""
    if len(fix.removed) != 1 or len(fix.added) != 1:
        return []
    old, new = fix.removed[0], fix.added[0]
    if "'" in old + new:
        return []
    start, end = same_ends(old, new)
    # Whole words around the difference; sed replaces the first occurrence, which must be this one.
    while start > 0 and (old[start - 1].isalnum() or old[start - 1] == "_" or start + end >= len(old)):
        start -= 1
    while end > 0 and (old[-end].isalnum() or old[-end] == "_"):
        end -= 1
    while old.find(old[start : len(old) - end]) != start and start > 0:
        start -= 1
    piece, instead = old[start : len(old) - end], new[start : len(new) - end]
    if not piece or old.replace(piece, instead, 1) != new:
        return []
    return [f"sed -i '{fix.first}s/{_pattern(piece)}/{_replacement(instead)}/' {path}"]


def _pattern(text: str) -> str:
    return "".join("\\" + c if c in "\\/.*[]^$" else c for c in text)


def _replacement(text: str) -> str:
    return "".join("\\" + c if c in "\\/&" else c for c in text)


def _deleted(path: str, text: str, fix: Fix) -> list[str]:
    """``sed -i 'Nd'``."""
    if fix.added or not fix.removed:
        return []
    last = fix.first + len(fix.removed) - 1
    where = f"{fix.first}" if last == fix.first else f"{fix.first},{last}"
    return [f"sed -i '{where}d' {path}"]


def _literal(lines: list[str]) -> str | None:
    """The lines as a triple-quoted string of Python; None when they hold what such a string cannot."""
    block = "\n".join(lines) + "\n"
    for quotes in ('"""', "'''"):
        if quotes not in block and "\\" not in block and not block.startswith(quotes[0]):
            return f"{quotes}{block}{quotes}"
    return None


def _unique(text: str, fix: Fix) -> tuple[list[str], list[str]] | None:
    """The replaced lines and their replacement, with as many neighbours as make the former unique in the file."""
    lines = text.split("\n")
    start, stop = fix.first - 1, fix.first - 1 + len(fix.removed)
    for around in range(0 if fix.removed else 1, 6):
        low, high = max(0, start - around), min(len(lines), stop + around)
        old = lines[low:high]
        if old and text.count("\n".join(old) + "\n") == 1:
            return old, [*lines[low:start], *fix.added, *lines[stop:high]]
    return None


def _replacing(path: str, text: str, fix: Fix) -> str | None:
    found = _unique(text, fix)
    if found is None:
        return None
    old, new = _literal(found[0]), _literal(found[1])
    if old is None or new is None:
        return None
    return (
        f'from pathlib import Path\n\npath = Path("{path}")\ntext = path.read_text()\nold = {old}\nnew = {new}\n'
        "assert text.count(old) == 1\npath.write_text(text.replace(old, new))"
    )


def _inline_script(path: str, text: str, fix: Fix) -> list[str]:
    script = _replacing(path, text, fix)
    return [f"python - <<'EOF'\n{script}\nprint(\"replaced\")\nEOF"] if script else []


def _script_file(path: str, text: str, fix: Fix) -> list[str]:
    script = _replacing(path, text, fix)
    if script is None:
        return []
    return [f"cat <<'EOF' > apply_fix.py\n{script}\nEOF", "python apply_fix.py && rm apply_fix.py"]


def _by_number(path: str, text: str, fix: Fix) -> list[str]:
    """A one-off script that puts lines in by their numbers."""
    new = "".join(f"    {line!r} + '\\n',\n" for line in fix.added)
    low = fix.first - 1
    return [
        f"python3 - <<'EOF'\nwith open(\"{path}\") as file:\n    lines = file.readlines()\n"
        f"lines[{low}:{low + len(fix.removed)}] = [\n{new}]\n"
        f'with open("{path}", "w") as file:\n    file.writelines(lines)\nEOF'
    ]


def _patch(path: str, text: str, fix: Fix) -> list[str]:
    """``git apply`` of a diff."""
    if "\r" in text or not text.endswith("\n"):
        return []
    before, after = text.splitlines(keepends=True), fix.on(text).splitlines(keepends=True)
    if len(before) != text.count("\n"):
        return []
    diff = "".join(difflib.unified_diff(before, after, f"a/{path}", f"b/{path}"))
    return [f"cat <<'EOF' > fix.patch\n{diff}EOF", "git apply fix.patch && rm fix.patch"]


_WAYS = (_substituted, _substituted, _deleted, _inline_script, _script_file, _by_number, _patch)
