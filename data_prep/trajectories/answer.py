"""The answer of a pair: which hunks of a run's patch count, and how they are shown.

Left out are files that the run created, which are scripts of its own unless the task's reference has them too, and
edits of the environment: hunks that three or more instances of a repository have in common. The run's patch itself
stays whole, and all of it is masked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import pyarrow as pa
import unidiff

from contextrl_verl.agents.path_policy import unquoted
from data_prep.trajectories.diffs import tight
from data_prep.trajectories.edited_symbols import (
    PatchError,
    Place,
    is_code,
    is_submodule,
    old_path,
    parsed,
    places_by_hunk,
)
from data_prep.trajectories.run import AgentRun

# Characters of a shown answer; about 2,000 tokens.
MOST_CHARS = 8_000
# So many instances of a repository have a hunk that is no answer to one of them.
_INSTANCES = 3
# An added line with fewer characters besides white space, such as ``else:``, is nobody's.
_DISTINCTIVE = 8
_HEAD = ("diff --git ", "new file ", "deleted file ", "rename ", "copy ", "old mode ", "new mode ")


class Hunk(NamedTuple):
    """A hunk as light records hold it: a digest of repository, file and changed lines; whether it is scratch work; the
    places of code that it edits; digests of its distinctive added lines. The last two are empty where it is no code.
    """

    key: int
    scratch: bool
    places: tuple[Place, ...]
    added: frozenset[int]

    def to_row(self) -> dict[str, Any]:
        """The hunk as a value of :data:`HUNKS`."""
        return {**self._asdict(), "places": list(map(list, self.places)), "added": sorted(self.added)}

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> Hunk:
        """The hunk of such a value."""
        return cls(row["key"], row["scratch"], tuple(Place(*one) for one in row["places"]), frozenset(row["added"]))


_PLACES = pa.list_(pa.list_(pa.string()))
HUNKS = pa.list_(
    pa.struct({"key": pa.int64(), "scratch": pa.bool_(), "places": _PLACES, "added": pa.list_(pa.int64())})
)


def hunks_of(run: AgentRun, reference: str = "") -> list[Hunk]:
    """The hunks of a run's patch, in its order; ``reference`` is the task's own fix, if known.

    Raises:
        PatchError: the patch is empty or cannot be parsed.
    """
    expected: set[str] = set()
    with suppress(PatchError):  # nothing is known of a task without a fix, or with a damaged one
        expected = {_new_path(part) for part in parsed(reference)}
    found = []
    for part, hunk, places in places_by_hunk(parsed(run.patch), run):
        scratch = part.is_added_file and _new_path(part) not in expected
        code = not scratch and is_code(_new_path(part)) and not is_submodule(hunk)
        lines = map(tight, _changed(hunk, "+")) if code else ()
        added = frozenset(_digest(line) for line in lines if len(line) >= _DISTINCTIVE)
        found.append(Hunk(_key(run.repository, part, hunk), scratch, tuple(dict.fromkeys(places)), added))
    return found


def common_hunks(runs: Iterable[tuple[str, Collection[int]]]) -> frozenset[int]:
    """The keys that hunks of three or more instances have; given are instance ids with the keys of a run, without those
    of scratch work.

    Only hunks beside others count: what is all of a run's patch is its answer, however many fix the same line.
    """
    seen: dict[int, tuple[str, ...]] = {}
    for instance, keys in runs:
        for key in keys if len(keys) > 1 else ():
            known = seen.get(key, ())
            if len(known) < _INSTANCES and instance not in known:
                seen[key] = (*known, instance)
    return frozenset(key for key, instances in seen.items() if len(instances) == _INSTANCES)


def cleaned(patch: str, repository: str, left_out: Collection[int]) -> str:
    """The patch without the hunks of the given keys and without files that no hunk is left of.

    Renames stay; files without a line of text go, as do those whose mode alone changes.
    """
    texts = []
    for part in parsed(patch):
        hunks = [hunk for hunk in part if _key(repository, part, hunk) not in left_out]
        if hunks or (part.is_rename and not part):
            texts.append("".join([_head_of(part, _HEAD), *map(str, hunks)]))
    return "".join(texts)


def shown(patch: str, limit: int = MOST_CHARS) -> str:
    """The patch as a pair's answer: no digests and line numbers, at most about ``limit`` characters.

    Of a longer patch whole hunks are left out, those of tests and documents first, with a mark at the end.
    """
    pieces: list[tuple[bool, int, str, str]] = []
    for part in parsed(patch):
        head = _head_of(part, _HEAD[:5])
        hunks = [f"@@ ... @@{' ' * bool(hunk.section_header)}{hunk.section_header}\n{_body(hunk)}" for hunk in part]
        for text in hunks or [""]:
            pieces.append((not is_code(_new_path(part)), len(pieces), head, text))
    chosen: list[tuple[int, str, str]] = []
    heads: set[str] = set()
    room = limit
    for _, number, head, text in sorted(pieces):
        size = len(text) + len(head) * (head not in heads)
        if size > room and not chosen:
            # Not even one fits: its first lines, or the start of the first line under its heading.
            end = max(0, room - len(head))
            last = text.rfind("\n", 0, end)
            text = text[: last + 1] if last > text.find("\n") else f"{text[:end]}\n"
            size = room + 1
        elif size > room:
            continue
        chosen.append((number, head, text))
        heads.add(head)
        room -= size
    texts, above = [], None
    for _, head, text in sorted(chosen):
        texts += [head * (head != above), text]
        above = head
    missing = len(pieces) - len(chosen) + (room < 0)
    return "".join(texts) + f"[... {missing} hunks or parts of hunks left out ...]\n" * bool(missing)


def _head_of(part: unidiff.PatchedFile, kept: tuple[str, ...]) -> str:
    lines = [line for line in part.patch_info or () if line.startswith(kept)]
    files = [f"--- {part.source_file}\n", f"+++ {part.target_file}\n"] if part else []
    return "".join([*lines, *files])


def _body(hunk: unidiff.Hunk) -> str:
    text = "".join(map(str, hunk))
    return text if text.endswith("\n") else text + "\n"


def _new_path(part: unidiff.PatchedFile) -> str:
    """The path after the patch, that of a removed file before it."""
    target = unquoted(part.target_file or "", "replace")
    return old_path(part) if target in ("", "/dev/null") else target.removeprefix("b/")


def _changed(hunk: unidiff.Hunk, kind: str) -> list[str]:
    return [line.value for line in hunk if line.line_type == kind]


def _key(repository: str, part: unidiff.PatchedFile, hunk: unidiff.Hunk) -> int:
    """By the added lines, or the removed ones where none is added."""
    lines = _changed(hunk, "+") or ["-", *_changed(hunk, "-")]
    return _digest("\0".join([repository, _new_path(part), *map(tight, lines)]))


def _digest(text: str) -> int:
    """Of 48 bits, which a signed column holds."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).digest(), "big")
