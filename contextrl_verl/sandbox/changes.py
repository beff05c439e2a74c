"""What differs between two listings of a folder, as a patch in git's format."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from contextrl_verl.sandbox.box import InfrastructureError
from contextrl_verl.sandbox.keeper.wire import Listing, listing_of

# Larger files, and what comes after so much text, are named only.
_FILE_BYTES, _ALL_BYTES = 1 << 20, 32 << 20
_SECONDS = 120
_LINK = "120000"

Read = Callable[[str], bytes]


class _Side(NamedTuple):
    """A file before or after: git's mode, and its text, None where it is named only."""

    mode: str
    text: bytes | None


def patch_of(before: Listing, read_before: Read, after: Listing, read_after: Read) -> str:
    """The patch from one listing (``wire.listing``) to another; ``read`` gives a regular file's content."""
    changed: list[tuple[str, _Side | None, _Side | None]] = []
    total = 0
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old == new or (_alike(old, new) and read_before(path) == read_after(path)):
            continue
        sides = _side(path, old, read_before, total), _side(path, new, read_after, total)
        if sides[0] == sides[1] and (sides[0] is None or sides[0].mode == _LINK):
            continue
        total += sum(len(side.text or b"") for side in sides if side)
        changed.append((path, *sides))
    return _written(changed) if changed else ""


def patch_between(before: Path, after: Path) -> str:
    """The patch from one folder of this machine to another, in which no program of a model's runs any more."""

    def reader(folder: Path) -> Read:
        return lambda path: (folder / path).read_bytes()

    return patch_of(listing_of(before), reader(before), listing_of(after), reader(after))


def _alike(old: list | None, new: list | None) -> bool:
    """Two regular files that only their content can tell apart; times of change differ wherever one was copied."""
    if old is None or new is None or not (stat.S_ISREG(old[0]) and stat.S_ISREG(new[0])):
        return False
    return old[1] == new[1] and not (old[0] ^ new[0]) & stat.S_IXUSR


def _side(path: str, entry: list | None, read: Read, total: int) -> _Side | None:
    """None where there is nothing that git knows."""
    if entry is None:
        return None
    mode, size, *_, link = entry
    if stat.S_ISLNK(mode):
        return _Side(_LINK, os.fsencode(link))
    if not stat.S_ISREG(mode):
        return None
    content = read(path) if size <= _FILE_BYTES and total <= _ALL_BYTES else None
    if content is not None:
        try:
            content = None if "\0" in content.decode() else content
        except UnicodeDecodeError:
            content = None
    return _Side("100755" if mode & stat.S_IXUSR else "100644", content)


def _written(changed: list[tuple[str, _Side | None, _Side | None]]) -> str:
    hunks = _hunks([(old.text or b"" if old else b"", new.text or b"" if new else b"") for _, old, new in changed])
    return "".join(_section(path, old, new, text) for (path, old, new), text in zip(changed, hunks, strict=True))


def _section(path: str, old: _Side | None, new: _Side | None, hunks: str) -> str:
    if old and new and (old.mode == _LINK) != (new.mode == _LINK):
        # Git knows no change of a file into a link: one goes, the other comes.
        gone, come = _hunks([(old.text or b"", b""), (b"", new.text or b"")])
        return _section(path, old, None, gone) + _section(path, None, new, come)
    a, b = _quoted(f"a/{path}"), _quoted(f"b/{path}")
    lines = [f"diff --git {a} {b}\n"]
    if old is None and new:
        lines.append(f"new file mode {new.mode}\n")
    elif new is None and old:
        lines.append(f"deleted file mode {old.mode}\n")
    elif old and new and old.mode != new.mode:
        lines += [f"old mode {old.mode}\n", f"new mode {new.mode}\n"]
    names = a if old else "/dev/null", b if new else "/dev/null"
    if any(side and side.text is None for side in (old, new)):
        return "".join([*lines, f"Binary files {names[0]} and {names[1]} differ\n"])
    if hunks:
        # As git does: a name with a blank is followed by a tab.
        lines += [
            f"{mark} {name}{chr(9) if ' ' in name else ''}\n" for mark, name in zip(("---", "+++"), names, strict=True)
        ]
    return "".join([*lines, hunks])


def _hunks(pairs: list[tuple[bytes, bytes]]) -> list[str]:
    """Of each pair of texts; git compares them under names of our own, where no file of theirs can tell it anything."""
    with tempfile.TemporaryDirectory(prefix="contextrl-diff-") as name:
        root = Path(name)
        for side in range(2):
            (root / str(side)).mkdir()
            for number, pair in enumerate(pairs):
                (root / str(side) / str(number)).write_bytes(pair[side])
        command = [
            "git",
            "-c",
            "core.quotePath=off",
            "diff",
            "--no-index",
            "--no-color",
            "--no-ext-diff",
            "--no-textconv",
        ]
        command += ["--no-renames", "--no-prefix", "--text", "0", "1"]
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": name, "GIT_CONFIG_NOSYSTEM": "1"}
        environment |= {"GIT_CEILING_DIRECTORIES": str(root.parent), "GIT_CONFIG_GLOBAL": os.devnull, "LC_ALL": "C"}
        try:
            done = subprocess.run(
                command, cwd=root, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InfrastructureError("diff", f"git could not compare the files ({error})") from error
        if done.returncode not in (0, 1):
            raise InfrastructureError(
                "diff", f"git could not compare the files: {done.stderr.decode(errors='replace')}"
            )
    found = [""] * len(pairs)
    # No line of a hunk begins with this word.
    for section in re.split(r"(?m)^diff --git ", done.stdout.decode(errors="replace"))[1:]:
        number = int(section.partition("\n")[0].partition("/")[2].partition(" ")[0])
        _, mark, hunk = section.partition("\n@@ ")
        found[number] = f"@@ {hunk}" if mark else ""
    return found


def _quoted(name: str) -> str:
    """A path as git writes it: in quotes where it holds quotes, backslashes, controls or bytes that are not UTF-8."""
    if not re.search(r'["\\\x00-\x1f\x7f\ud800-\udfff]', name):
        return name
    plain = {"\a": "a", "\b": "b", "\t": "t", "\n": "n", "\v": "v", "\f": "f", "\r": "r", '"': '"', "\\": "\\"}

    def escape(found: re.Match[str]) -> str:
        character = found[0]
        return (
            "\\" + plain[character]
            if character in plain
            else "".join(f"\\{byte:03o}" for byte in os.fsencode(character))
        )

    return '"' + re.sub(r'["\\\x00-\x1f\x7f\ud800-\udfff]', escape, name) + '"'
