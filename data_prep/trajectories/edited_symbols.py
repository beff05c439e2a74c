"""Where a patch edits: file by file and hunk by hunk, the Python function or class around each change.

Found by indentation, in the cheapest source that settles it: the hunk's own lines and its heading; else the file's text
as far as the run showed it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from unidiff import Hunk, PatchedFile, PatchSet
from unidiff.errors import UnidiffParseError

from contextrl_verl.agents.path_policy import unquoted
from data_prep.trajectories.repo_state import Workspace
from data_prep.trajectories.run import AgentRun

Kind = Literal["function", "class", "module"]

# Lines above a change by which it is found again in what was shown, and how long one of them must be.
_CONTEXT = 3
_DISTINCTIVE = 12
_DEFINITION = re.compile(r"\s*(?:async\s+)?(def|class)\s+(\w+)")
_TRIPLE = re.compile(r'"""|\'\'\'')
_FAR = 10**6
_METHOD = re.compile(r"\(\s*(?:self|cls)\b")
_LOCK = re.compile(r".*[-.]lock(?:\.json|\.ya?ml)?|go\.sum|npm-shrinkwrap\.json")
_DOCS = {".md", ".rst", ".txt", ".adoc", ".tex", ".markdown"}
_CHANGELOG = re.compile(r"(?:change(?:s|log)|history|news|release[-_]?notes?|whats[-_]?new)(?:[-_.].*)?")
_TEST = re.compile(r"(?:test|tests)_.*|.*_tests?|tests?|conftest|.*\.(?:test|spec)")
_OTHER_FOLDERS = {"tests", "__tests__", "changelog.d", "newsfragments", "changelog"}
# A package deeper down that is called test may be a library for testing.
_OTHER_TOP_FOLDERS = ("test", "docs", "doc", "documentation")


class PatchError(ValueError):
    """A patch that says nothing about places: the reason, ``empty patch`` or ``patch does not parse``, and details."""


class Place(NamedTuple):
    """One edited place: path in the repository before the patch; qualified name as far as known (``Class.method``),
    empty for the module and in other languages than Python."""

    file: str
    symbol: str
    kind: Kind


def parsed(patch: str) -> list[PatchedFile]:
    """The files of a patch with their hunks; raises PatchError if it is empty or cannot be parsed."""
    if not patch.strip():
        raise PatchError("empty patch")
    try:
        parts = list(PatchSet(patch))
    except (UnidiffParseError, ValueError, IndexError, AttributeError, TypeError) as error:
        raise PatchError("patch does not parse", " ".join(str(error).split())[:200]) from error
    if not parts:
        raise PatchError("patch does not parse", "no file in it")
    return parts


def touched(patch: str, run: AgentRun | None = None) -> list[Place]:
    """The places a patch edits, without repetitions, in the patch's order; empty if it edits no code.

    See :func:`places_by_hunk`; raises PatchError.
    """
    found = places_by_hunk(parsed(patch), run)
    return list(dict.fromkeys(place for _, _, places in found for place in places))


def places_by_hunk(
    parts: Iterable[PatchedFile], run: AgentRun | None = None
) -> Iterator[tuple[PatchedFile, Hunk, list[Place]]]:
    """Every hunk with its file and the places that it edits; none where it edits no code.

    New files and submodules are no code here; agents leave scripts of their own behind. ``run`` is where to look for
    the files' text when a hunk's heading is not enough to name the function.
    """
    # Each change with what lines and heading say of it, and whether that settles its function, or that there is none.
    hunks = [
        (part, hunk, [(change, *_with_heading(change.around, change.heading)) for change in _changes(part, hunk)])
        for part in parts
        for hunk in part
    ]
    wanted = {change.path for *_, changes in hunks for change, _, settled in changes if not settled}
    workspace = Workspace(run, only=wanted) if run is not None and wanted else None
    lines = {
        path: {number: line for number, line in enumerate(text.first, 1) if line is not None}
        for path, text in (workspace.files.items() if workspace else ())
    }
    for part, hunk, changes in hunks:
        places = []
        for change, symbol, settled in changes:
            if workspace and not settled:
                wider = change.seen_in(lines.get(change.path, {}), workspace.shown.get(change.path, ()))
                if wider.indent == 0 or len(wider.names) > len(change.around.names):
                    symbol, _ = _with_heading(wider, change.heading)
            places.append(Place(change.path, *symbol))
        yield part, hunk, places


def is_submodule(hunk: Hunk) -> bool:
    """Whether a hunk only moves a submodule to another commit."""
    return all(line.value.startswith("Subproject commit ") for line in hunk if line.line_type in ("+", "-"))


def old_path(part: PatchedFile) -> str:
    """The path in the repository before the patch, ``/dev/null`` for a new file."""
    return unquoted(part.source_file or "", "replace").removeprefix("a/")


def is_code(path: str) -> bool:
    """Whether a path is neither a test nor documentation, a lock file or a changelog."""
    pure = PurePosixPath(path.lower())
    folders = pure.parts[:-1]
    return not (
        _LOCK.fullmatch(pure.name)
        or _TEST.fullmatch(pure.stem)
        or _OTHER_FOLDERS & set(folders)
        or (folders and folders[0] in _OTHER_TOP_FOLDERS)
        or (pure.suffix in _DOCS and pure.name not in ("requirements.txt", "cmakelists.txt"))
        or (not pure.suffix and _CHANGELOG.fullmatch(pure.stem))
    )


class Around(NamedTuple):
    """What walking upwards from a line found: enclosing definitions, innermost first, as (``def`` or ``class``, name);
    the indentation that a definition further out would be below, 0 if there is none."""

    names: tuple[tuple[str, str], ...]
    indent: int

    def symbol(self) -> tuple[str, Kind]:
        """The innermost definition, as ``Class.method`` and the like; the empty name is the module."""
        if not self.names:
            return "", "module"
        name = ".".join(name for _, name in reversed(self.names))
        return name, "function" if self.names[0][0] == "def" else "class"


def indent_of(line: str) -> int:
    """Columns of white space in front; a line without text counts as infinitely deep."""
    text = line.expandtabs(8)
    bare = text.lstrip()
    return len(text) - len(bare) if bare else _FAR


def walk_up(lines: Mapping[int, str], start: int, indent: int) -> Around:
    """Enclosing definitions of something indented by ``indent`` below or at line ``start``, as far up as lines are
    known without a gap.

    Text in triple quotes and closing brackets at the start of a line do not end a block.
    """
    names: list[tuple[str, str]] = []
    number, in_string = start, ""
    while indent > 0 and number in lines:
        line = lines[number]
        number -= 1
        quotes, depth, definition = _TRIPLE.findall(line), indent_of(line), _DEFINITION.match(line)
        if in_string:
            if in_string not in quotes:
                continue
            in_string = ""
            if not definition:
                continue
        elif quotes and quotes.count(quotes[-1]) % 2 and not _opens(line, quotes[-1], lines.get(number, "")):
            in_string = quotes[-1]
            continue
        if depth < indent and definition:
            names.append((definition[1], definition[2]))
        if depth < indent and (definition or line.lstrip()[0] not in ")]}#"):
            indent = depth
    return Around(tuple(names), indent)


def _opens(line: str, quote: str, above: str) -> bool:
    """Whether a triple quote opens a string that goes on below: a docstring right under its definition, text behind the
    quotes and none before them, or an operator or bracket before them."""
    before, _, after = line.rpartition(quote)
    before = before.strip().strip("rRbBfFuU")
    return (not before and (bool(after.strip()) or above.rstrip().endswith(":"))) or before.endswith(("=", "(", ","))


class _Change(NamedTuple):
    """Neighbouring changed lines: the indentation of the first with text (the definition around it is indented less),
    the line to look upwards from, the hunk's lines as they were, what is around by them, and the hunk's heading."""

    path: str
    indent: int
    above: int
    lines: dict[int, str]
    around: Around
    heading: str

    def seen_in(self, lines: Mapping[int, str], shown: Sequence[tuple[str, ...]]) -> Around:
        """What more lines of the file say; else any piece of it that holds the lines right above the change, whatever
        their numbers are now: the piece that says most."""
        best = walk_up({**lines, **self.lines}, self.above, self.indent)
        if best.indent == 0 or len(best.names) > len(self.around.names):
            return best
        best, context = self.around, range(self.above - _CONTEXT + 1, self.above + 1)
        known = tuple(self.lines[number] for number in context if number in self.lines)
        if len(known) < 2 or max(len(line.strip()) for line in known) < _DISTINCTIVE:
            return best
        for piece in shown:
            for index in range(len(known), len(piece) + 1):
                if piece[index - 1] == known[-1] and piece[index - len(known) : index] == known:
                    found = walk_up(dict(enumerate(piece, 1)), index, self.indent)
                    best = max(best, found, key=lambda one: (len(one.names), -one.indent))
        return best


def _changes(part: PatchedFile, hunk: Hunk) -> Iterator[_Change]:
    """The changes of code in a hunk."""
    path = old_path(part)
    if part.is_binary_file or part.is_added_file or is_submodule(hunk) or not is_code(path):
        return
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
    changed = groupby(numbered, lambda one: one[2] in ("+", "-"))
    for group in (list(neighbours) for differ, neighbours in changed if differ):
        first = next((number for number, _, kind in group if kind == "-"), group[0][0])
        after = (first, lines.get(first + 1, ""), "")
        above, text, kind = next((one for one in group if one[1].strip()), after)
        # A definition that is changed is itself the place.
        indent = indent_of(text) + bool(kind == "-" and _DEFINITION.match(text))
        indent = indent if path.endswith((".py", ".pyi")) else 0
        yield _Change(path, indent, above, lines, walk_up(lines, above, indent), hunk.section_header)


def _with_heading(around: Around, heading: str) -> tuple[tuple[str, Kind], bool]:
    """What lines and heading say together, and whether nothing more is to be known.

    A heading is the last line above the hunk that starts at the margin, or, where the repository's settings say that it
    is Python, the last definition at any depth without its indentation; a parameter ``self`` shows the latter.
    """
    found = _DEFINITION.match(heading)
    if around.indent == 0 or found is None:
        return around.symbol(), around.indent == 0
    method = found[1] == "def" and _METHOD.search(heading) is not None
    if found[1] == "def" and around.names and around.names[-1][0] == "def":
        # a function within a function at the margin, or a method's neighbour that is not around it
        return around.symbol(), not method
    whole = Around((*around.names, (found[1], found[2])), 0)
    return whole.symbol(), whole.names[0][0] == "def" and not method
