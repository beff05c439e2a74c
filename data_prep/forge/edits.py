"""The ways in which the scripted agent changes lines of a file, as shell commands."""

from __future__ import annotations

import difflib
import random

from data_prep.forge.bugs import Fix, same_ends


def commands(path: str, text: str, fix: Fix, draw: random.Random) -> list[str]:
    """One or two commands that make the change, in a way drawn at random from those that can."""
    ways = [_substituted(path, fix), _substituted(path, fix), _patch(path, text, fix)]
    script = _script(path, text, fix)
    if script:
        ways.append([f"python - <<'EOF'\n{script}\nprint(\"replaced\")\nEOF"])
        ways.append([f"cat <<'EOF' > apply_fix.py\n{script}\nEOF", "python apply_fix.py && rm apply_fix.py"])
    return draw.choice([way for way in ways if way])


def _substituted(path: str, fix: Fix) -> list[str]:
    """``sed -i 's/old/new/'`` on one line, with the shortest piece that is found first in the line."""
    if len(fix.removed) != 1 or len(fix.added) != 1 or "'" in fix.removed[0] + fix.added[0]:
        return []
    (old,), (new,) = fix.removed, fix.added
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
    return [f"sed -i '{fix.first}s/{_escaped(piece, '/.*[]^$')}/{_escaped(instead, '/&')}/' {path}"]


def _escaped(text: str, special: str) -> str:
    return "".join("\\" + letter if letter in "\\" + special else letter for letter in text)


def _patch(path: str, text: str, fix: Fix) -> list[str]:
    """``git apply`` of a diff."""
    before, after = ([line + "\n" for line in version.split("\n")[:-1]] for version in (text, fix.on(text)))
    diff = "".join(difflib.unified_diff(before, after, f"a/{path}", f"b/{path}"))
    return [f"cat <<'EOF' > fix.patch\n{diff}EOF", "git apply fix.patch && rm fix.patch"]


def _script(path: str, text: str, fix: Fix) -> str:
    """A script that replaces the lines, with as many neighbours as make them unique in the file; empty if none do."""
    lines = text.split("\n")
    start, stop = fix.first - 1, fix.first - 1 + len(fix.removed)
    for around in range(0 if fix.removed else 1, 6):
        low, high = max(0, start - around), min(len(lines), stop + around)
        blocks = lines[low:high], [*lines[low:start], *fix.added, *lines[stop:high]]
        old, new = ("".join(line + "\n" for line in block) for block in blocks)
        if text.count(old) == 1:
            for quotes in ('"""', "'''"):
                if all(quotes not in part and "\\" not in part and part[:1] != quotes[0] for part in (old, new)):
                    return (
                        f'from pathlib import Path\n\npath = Path("{path}")\ntext = path.read_text()\n'
                        f"old = {quotes}{old}{quotes}\nnew = {quotes}{new}{quotes}\n"
                        "assert text.count(old) == 1\npath.write_text(text.replace(old, new))"
                    )
            return ""
    return ""
