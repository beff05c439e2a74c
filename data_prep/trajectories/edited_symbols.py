"""Where a patch edits: file by file and hunk by hunk, the Python function or class around each change.

Found from the cheapest source that settles it: the hunk's own lines and its heading; else the file's text as far as the
run showed it, by indentation; else, where the run showed the whole file, by parsing. ``how`` says which it was.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import PurePosixPath
from typing import Literal

from unidiff import Hunk, PatchedFile, PatchSet
from unidiff.errors import UnidiffParseError

from data_prep.trajectories.outline import Around, Kind, Outline, Symbol, indent_of, walk_up
from data_prep.trajectories.partial_file import Text
from data_prep.trajectories.repo_state import Workspace
from data_prep.trajectories.run import AgentRun

PathKind = Literal["code", "test", "docs", "lock", "changelog", "binary"]
How = Literal["ast", "lines", "heading", "file"]
NOT_EDITED: frozenset[PathKind] = frozenset({"test", "docs", "lock", "changelog", "binary"})

# Lines above a change by which it is found again in what was shown, and how long one of them must be.
_CONTEXT = 3
_DISTINCTIVE = 12
_METHOD = re.compile(r"\(\s*(?:self|cls)\b")
_HEADING = re.compile(r"\s*(?:async\s+)?(def|class)\s+(\w+)")
_LOCKS = {
    *("package-lock.json", "yarn.lock", "pnpm-lock.yaml", "poetry.lock", "pipfile.lock", "cargo.lock", "go.sum"),
    *("uv.lock", "pdm.lock", "composer.lock", "gemfile.lock", "npm-shrinkwrap.json", "flake.lock", "conda-lock.yml"),
}
_DOCS = {".md", ".rst", ".txt", ".adoc", ".tex", ".markdown"}
_BINARY = {
    *(".png", ".jpg", ".jpeg", ".gif", ".ico", ".pdf", ".zip", ".gz", ".xz", ".bz2", ".whl", ".so", ".pyc", ".npy"),
    *(".npz", ".mo", ".ttf", ".woff", ".woff2", ".jar", ".sqlite", ".db", ".parquet", ".bin", ".exe", ".dll", ".svgz"),
}
_CHANGELOG = re.compile(r"(?:change(?:s|log)|history|news|release[-_]?notes?|whats[-_]?new)(?:[-_.].*)?", re.I)
_TEST_NAME = re.compile(r"(?:test|tests)_.*|.*_tests?|tests?|conftest|.*\.(?:test|spec)", re.I)


class PatchError(ValueError):
    """A patch that says nothing about places: ``reason`` is ``empty patch`` or ``patch does not parse``."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True)
class Place:
    """One edited place.

    Attributes:
        file: path in the repository before the patch.
        symbol: qualified name as far as known (``Class.method``); empty for the module and in other languages.
        kind: of the symbol.
        start, end: lines of the change in the file before the patch; for added lines, the line above them.
        how: ``heading`` (the hunk and its heading), ``lines`` (indentation of lines the run showed), ``ast`` (the whole
            text), ``file`` (no Python, so no symbol).
    """

    file: str
    symbol: str
    kind: Kind
    start: int
    end: int
    how: How


def touched(
    patch: str,
    run: AgentRun | None = None,
    *,
    ignore: Collection[PathKind] = NOT_EDITED,
    created: bool = False,
    exact: bool = False,
) -> list[Place]:
    """The places a patch edits, without repetitions, in the patch's order; empty if it edits nothing that counts.

    Args:
        run: where to look for the files' text when a hunk's heading is not enough to name the function.
        ignore: kinds of files that do not count.
        created: whether new files count; agents leave scripts of their own behind.
        exact: use the run even where the heading is enough.

    Raises:
        PatchError: the patch is empty or cannot be parsed.
    """
    parts = [
        part
        for part in _parse(patch)
        if len(part)
        and not part.is_binary_file
        and (created or not part.is_added_file)
        and path_kind(_old_path(part)) not in ignore
    ]
    found: list[tuple[PatchedFile, list[_Change]]] = [(part, _changes(part)) for part in parts]
    workspace = None
    if run is not None:
        wanted = {_old_path(part) for part, changes in found if exact or not all(one.settled for one in changes)}
        wanted = {path for path in wanted if path.endswith(".py")}
        workspace = Workspace(run, only=wanted) if wanted else None
    places: dict[tuple[str, str, Kind], Place] = {}
    for part, changes in found:
        path = _old_path(part)
        text = workspace.text(path) if workspace is not None else None
        shown = workspace.shown.get(path, []) if workspace is not None else []
        for place in _places(path, changes, text, shown, exact):
            known = places.setdefault((place.file, place.symbol, place.kind), place)
            start, end = min(known.start, place.start), max(known.end, place.end)
            places[place.file, place.symbol, place.kind] = replace(known, start=start, end=end)
    return list(places.values())


def path_kind(path: str) -> PathKind:
    """The kind of a path. A top folder ``test`` holds tests; a package deeper down that is called so may be a library
    for testing, so there only ``tests`` does."""
    pure = PurePosixPath(path)
    folders = [part.lower() for part in pure.parts[:-1]]
    name, ending = pure.name.lower(), pure.suffix.lower()
    if name in _LOCKS:
        return "lock"
    if ending in _BINARY:
        return "binary"
    if "tests" in folders or folders[:1] == ["test"] or "__tests__" in folders or _TEST_NAME.fullmatch(pure.stem):
        return "test"
    known = ending in _DOCS or ending == ""
    if (known and _CHANGELOG.fullmatch(pure.stem)) or {"changelog.d", "newsfragments", "changelog"} & set(folders):
        return "changelog"
    if ending in _DOCS and name not in ("requirements.txt", "cmakelists.txt"):
        return "docs"
    if folders[:1] in (["docs"], ["doc"], ["documentation"]):
        return "docs"
    return "code"


@dataclass
class _Change:
    """Neighbouring changed lines.

    Attributes:
        start, end: as in Place.
        indent: of the first changed line with text; the definition around it is indented less.
        above: the line to look upwards from.
        lines: the hunk's, as they were before the patch.
        around: what they say.
        heading: of the hunk.
        settled: whether that names the function, or shows that there is none.
    """

    start: int
    end: int
    indent: int
    above: int
    lines: dict[int, str]
    around: Around
    heading: str
    symbol: Symbol
    settled: bool


def _parse(patch: str) -> PatchSet:
    if not patch.strip():
        raise PatchError("empty patch")
    try:
        parts = PatchSet(patch)
    except (UnidiffParseError, ValueError, IndexError, AttributeError, TypeError) as error:
        raise PatchError("patch does not parse", " ".join(str(error).split())[:200]) from error
    if not len(parts):
        raise PatchError("patch does not parse", "no file in it")
    return parts


def _old_path(part: PatchedFile) -> str:
    source = part.source_file or ""
    if source == "/dev/null":
        return str(part.path)
    return str(source[2:] if source.startswith("a/") else source)


def _changes(part: PatchedFile) -> list[_Change]:
    python = _old_path(part).endswith((".py", ".pyi"))
    return [change for hunk in part for change in _hunk_changes(hunk, python)]


def _hunk_changes(hunk: Hunk, python: bool) -> Iterable[_Change]:
    lines: dict[int, str] = {}
    numbered: list[tuple[int, str, str]] = []
    number = hunk.source_start - 1 if hunk.source_length else hunk.source_start
    for line in hunk:
        kind, value = line.line_type, line.value.rstrip("\n")
        if kind in (" ", "-", ""):
            number += 1
            lines[number] = value
        if kind != "\\":
            numbered.append((number, value, kind))
    for changed, group in groupby(numbered, lambda one: one[2] in ("+", "-")):
        if changed:
            yield _change(list(group), lines, hunk.section_header, python)


def _change(group: list[tuple[int, str, str]], lines: dict[int, str], heading: str, python: bool) -> _Change:
    removed = [number for number, _, kind in group if kind == "-"]
    start, end = (removed[0], removed[-1]) if removed else (group[0][0], group[0][0])
    if not python:
        return _Change(start, end, 0, 0, {}, Around((), 0, 0), heading, Symbol("", "module"), True)
    texts = ((text, kind == "-", number) for number, text, kind in group if text.strip())
    text, gone, above = next(texts, (lines.get(start + 1, ""), False, start))
    indent = indent_of(text)
    if gone and _HEADING.match(text):
        indent += 1  # a definition that is changed is itself the place
    around = walk_up(lines, above, indent)
    symbol, settled = _with_heading(around, heading)
    return _Change(start, end, indent, above, lines, around, heading, symbol, settled)


def _with_heading(around: Around, heading: str) -> tuple[Symbol, bool]:
    """What lines and heading say together, and whether nothing more is to be known.

    A heading is the last line above the hunk that starts at the margin, or, where the repository's settings say that it
    is Python, the last definition at any depth without its indentation; a parameter ``self`` shows the latter.
    """
    if around.indent == 0:
        return around.symbol(), True
    found = _HEADING.match(heading)
    if found is None:
        return around.symbol(), False
    method = found[1] == "def" and _METHOD.search(heading) is not None
    if found[1] == "def" and around.names and around.names[-1][0] == "def":
        # a function within a function at the margin, or a method's neighbour that is not around it
        return around.symbol(), not method
    whole = Around((*around.names, (found[1], found[2])), 0, around.top)
    return whole.symbol(), whole.names[0][0] == "def" and not method


def _places(
    path: str, changes: list[_Change], text: Text | None, shown: Sequence[tuple[str, ...]], exact: bool
) -> Iterable[Place]:
    if not path.endswith((".py", ".pyi")):
        yield from (Place(path, "", "module", change.start, change.end, "file") for change in changes)
        return
    outline = None
    lines: dict[int, str] = {}
    if text is not None and (exact or not all(change.settled for change in changes)):
        lines = {number: line for number, line in enumerate(text.first, 1) if line is not None}
        if text.first_whole:
            with suppress(SyntaxError):
                outline = Outline("\n".join(lines.values()) + "\n")
    for change in changes:
        symbol, how = change.symbol, "heading"
        if exact or not change.settled:
            if outline is not None:
                symbol, how = outline.at(change.start, change.indent), "ast"
            elif change.around.indent > 0:
                wider = walk_up({**lines, **change.lines}, change.above, change.indent)
                if wider.indent > 0 and len(wider.names) == len(change.around.names):
                    wider = _in_pieces(change, shown)
                if wider.indent == 0 or len(wider.names) > len(change.around.names):
                    symbol, how = _with_heading(wider, change.heading)[0], "lines"
        yield Place(path, symbol.name, symbol.kind, change.start, change.end, how)  # type: ignore[arg-type]


def _in_pieces(change: _Change, shown: Sequence[tuple[str, ...]]) -> Around:
    """The same from any piece of the file that holds the lines right above the change, whatever their numbers are now;
    the piece that says most."""
    context = [change.lines.get(change.above - back) for back in range(_CONTEXT - 1, -1, -1)]
    known = tuple(line for line in context if line is not None)
    best = change.around
    if len(known) < 2 or max(len(line.strip()) for line in known) < _DISTINCTIVE:
        return best
    for piece in shown:
        for index in range(len(known), len(piece) + 1):
            if piece[index - 1] == known[-1] and piece[index - len(known) : index] == known:
                found = walk_up(dict(enumerate(piece, 1)), index, change.indent)
                if (len(found.names), -found.indent) > (len(best.names), -best.indent):
                    best = found
    return best
