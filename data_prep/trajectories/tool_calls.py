"""Finds the places of an assistant's turn that hold commands or edits: fences, JSON and XML tool calls, edit blocks."""

from __future__ import annotations

import bisect
import json
import re
from dataclasses import dataclass, field

from data_prep.trajectories.writes import Write, diff_targets

_FENCE = re.compile(r"[ \t]*```[ \t]*([\w+-]*)[^\n`]*\n")
_FENCE_END = re.compile(r"[ \t]*```[ \t]*$", re.M)
_SHELLS = ("", "bash", "sh", "shell", "zsh", "console", "mswea_bash_command")
_COMMAND_LINE = re.compile(
    r"^(?:\$ )?(?:cd|sed|cat|python3?|perl|echo|printf|patch|git|tee|ed|cp|mv|edit_via_str_replace|apply_patch"
    r"|str_replace_editor|str_replace|insert|create|edit) ",
    re.M,
)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.S)
_PLAIN = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}

_COMMANDS = frozenset("command cmd code script keystrokes bash".split())
_CONTENTS = frozenset(
    "old_str new_str file_text insert_text text old_string new_string content new_content old_text new_text patch diff "
    "search replace replacement insert_line_text edits to_replace code_edit contents".split()
)
_PATHS = frozenset("path file_path filepath filename file target_file".split())
_SHELL_TOOLS = ("bash", "execute_bash")
_SUBCOMMANDS = frozenset("view create str_replace insert undo_edit".split())
_JSON_FIELD = re.compile(r'"(\w+)"\s{0,9}:\s{0,9}"([^"\\]*(?:\\.[^"\\]*)*)"?', re.S)
_XML_TAG = re.compile(r'<(?:function=|invoke\s+name=")(?P<tool>[\w.-]+)|<parameter(?:=|\s+name=")(?P<field>[\w-]+)"?>')

_ACI_EDIT = re.compile(r"^edit[ \t]+\d+(?::\d+)?[ \t]*\n", re.M)
_ACI_OPEN = re.compile(r"^(?:open|create)[ \t]+[\"']?([^\s\"']+)", re.M)
_PATCH_BEGIN = "*** Begin Patch"


@dataclass(frozen=True)
class Region:
    """Shell text and where it stands: ``at(i)`` is the place in the turn of the text's character ``i``."""

    text: str
    start: int
    jumps: tuple[int, ...] = ()
    shifts: tuple[int, ...] = ()

    def at(self, offset: int) -> int:
        """The place in the turn of a place in the text."""
        index = bisect.bisect_right(self.jumps, offset)
        return self.start + offset + (self.shifts[index - 1] if index else 0)


@dataclass
class Calls:
    """What a turn holds.

    Attributes:
        regions: shell text to be read further.
        writes: edits that are already known.
        tools: calls of other tools than the shell: place, name, arguments.
        named: whether a fence says that it holds shell text.
    """

    regions: list[Region] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    tools: list[tuple[int, str, dict[str, str]]] = field(default_factory=list)
    named: bool = False


def find_calls(content: str, opened: str = "") -> Calls:
    """The commands and edits of one turn; ``opened`` is the file that SWE-agent's editor shows at that moment."""
    calls = Calls()
    if _PATCH_BEGIN in content:
        _patch_blocks(content, calls)
    if "\nend_of_edit" in content:
        _aci_edits(content, calls, opened)
    if marked_calls(content, calls):
        return calls
    if '":' in content and _json(Region(content, 0), calls, 0):
        return calls
    match = _COMMAND_LINE.search(content)
    if match is not None:
        calls.regions.append(Region(content[match.start() :], match.start()))
    return calls


def marked_calls(content: str, calls: Calls) -> bool:
    """Add what stands in fences and XML tags; a fence without a language counts only where no fence names a shell."""
    unnamed = _fences(content, calls) if "```" in content else []
    if calls.named:
        return True
    found = "<parameter" in content and _xml(content, calls)
    calls.regions += unnamed
    return found or bool(unnamed)


def trimmed(value: str) -> str:
    """A parameter's value: the line breaks that belong to the tags are not part of it."""
    return value[1:-1] if len(value) > 1 and value[0] == "\n" and value[-1] == "\n" else value


def last_opened(content: str, before: str) -> str:
    """The file that SWE-agent's editor shows after the turn."""
    if "open " not in content and "create " not in content:
        return before
    found = _ACI_OPEN.findall(content)
    return found[-1] if found else before


def _fences(content: str, calls: Calls) -> list[Region]:
    """Add the fences that name a shell; those without a language are given back."""
    position = 0
    named, unnamed = [], []
    while (opening := _fence(_FENCE, content, position)) is not None:
        closing = _fence(_FENCE_END, content, opening.end())
        stop = max(opening.end(), closing.start() - 1) if closing else len(content)
        language = opening[1].lower()
        if language in _SHELLS:
            (named if language else unnamed).append(Region(content[opening.end() : stop], opening.end()))
        position = closing.end() if closing else len(content)
    calls.regions += named
    calls.named = bool(named)
    return unnamed


def _fence(pattern: re.Pattern[str], content: str, position: int) -> re.Match[str] | None:
    """The first line at or behind the position that starts with a fence of this form."""
    while (at := content.find("```", position)) >= 0:
        line_start = content.rfind("\n", 0, at) + 1
        match = pattern.match(content, line_start) if line_start >= position else None
        if match is not None:
            return match
        line_end = content.find("\n", at)
        if line_end < 0:
            return None
        position = line_end + 1
    return None


def _add_fields(fields: list[tuple[str, str, tuple[int, int]]], calls: Calls) -> None:
    """Turn the fields (name, value, where the value stands) of a tool call into an edit."""
    paths = [value.strip() for name, value, _ in fields if name in _PATHS]
    edit = any(name in ("old_str", "new_str", "old_string", "new_string", "file_text") for name, _, _ in fields)
    spans = [
        (start, end, "tool call")
        for name, _, (start, end) in fields
        if name in _CONTENTS and (paths or edit or name in ("patch", "diff"))
    ]
    if spans:
        targets = list(paths)
        for name, value, _ in fields:
            if name in ("patch", "diff", "input"):
                targets += diff_targets(value)
        calls.writes.append(Write(spans=spans, targets=targets, unknown=not targets))


def _xml(content: str, calls: Calls) -> bool:
    tools: list[tuple[int, str, list[tuple[str, str, tuple[int, int]]]]] = []
    position = 0
    while (match := _XML_TAG.search(content, position)) is not None:
        start = position = match.end()
        if match["tool"] or not tools:
            tools.append((match.start(), match["tool"] or "", []))
        name = match["field"]
        if name is None:
            continue
        position = content.find("</parameter>", start)
        position = len(content) if position < 0 else position
        value = content[start:position]
        if name in _COMMANDS and value.strip() not in _SUBCOMMANDS:
            calls.regions.append(Region(value, start))
        else:
            inner = start + len(value) - len(value.lstrip("\n"))
            tools[-1][2].append((name, value, (inner, max(inner, start + len(value.rstrip("\n"))))))
    for start, name, fields in tools:
        _add_fields(fields, calls)
        if fields and name not in _SHELL_TOOLS:
            calls.tools.append((start, name, {key: trimmed(value) for key, value, _ in fields}))
    return bool(calls.tools or calls.regions)


def _json(region: Region, calls: Calls, depth: int) -> bool:
    fields, found = [], False
    for match in _JSON_FIELD.finditer(region.text):
        name = match[1]
        if name not in _COMMANDS | _CONTENTS | _PATHS and name not in ("arguments", "input", "kwargs"):
            continue
        start, end = match.span(2)
        raw = match[2]
        inner = _unescape(raw, region, start)
        if depth < 3 and name in ("arguments", "kwargs") and _json(inner, calls, depth + 1):
            found = True
        elif name in _COMMANDS and inner.text.strip() not in _SUBCOMMANDS:
            calls.regions.append(inner)
            found = True
        elif name in _CONTENTS or name in _PATHS:
            fields.append((name, inner.text, (region.at(start), region.at(end))))
            found = True
        elif name == "input" and _PATCH_BEGIN in raw:
            fields.append(("patch", inner.text, (region.at(start), region.at(end))))
            found = True
    _add_fields(fields, calls)
    return found


def _unescape(raw: str, outer: Region, start: int) -> Region:
    """The text that a JSON string stands for, with its characters' places in the turn."""
    base = outer.at(start)
    if "\\" not in raw and not outer.jumps:
        return Region(raw, base)
    pieces, jumps, shifts = [], [], []
    position, length = 0, 0

    def note(raw_at: int) -> None:
        shift = outer.at(start + raw_at) - base - length
        if not shifts or shifts[-1] != shift:
            jumps.append(length)
            shifts.append(shift)

    for match in _ESCAPE.finditer(raw):
        note(position)
        pieces.append(raw[position : match.start()])
        length += match.start() - position
        note(match.start())
        character = chr(int(match[1], 16)) if match[1] else _PLAIN.get(match[2], match[2])
        pieces.append(character)
        length += 1
        position = match.end()
    note(position)
    pieces.append(raw[position:])
    return Region("".join(pieces), base, tuple(jumps), tuple(shifts))


def _patch_blocks(content: str, calls: Calls) -> None:
    position = 0
    while (begin := content.find(_PATCH_BEGIN, position)) >= 0:
        start = begin + len(_PATCH_BEGIN)
        start += content[start : start + 1] == "\n"
        stop = content.find("*** End Patch", start)
        stop = len(content) if stop < 0 else stop
        body = content[start:stop]
        targets = diff_targets(body) or diff_targets(_loosely_unescaped(body))
        end = stop - (content[stop - 1 : stop] == "\n" and stop > start)
        calls.writes.append(Write([(start, end, "apply_patch")], targets, unknown=not targets))
        position = stop


def _loosely_unescaped(text: str) -> str:
    try:
        return json.loads(f'"{text}"')
    except ValueError:
        return text.replace("\\n", "\n")


def _aci_edits(content: str, calls: Calls, opened: str) -> None:
    opened = last_opened(content, opened)
    position = 0
    while (match := _ACI_EDIT.search(content, position)) is not None:
        stop = content.find("\nend_of_edit", match.end() - 1)
        stop = len(content) if stop < 0 else stop
        if stop >= match.end():
            targets = [opened] if opened else []
            calls.writes.append(Write([(match.end(), stop, "edit")], targets, unknown=not opened))
        position = max(stop, match.end())
