"""What an agent's turn holds, fences, XML and JSON tool calls, edit blocks, and what came back for each of them.

A new form of edit block is an entry of `_BLOCKS`; names of tools' arguments stand in `writes`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat, takewhile
from operator import itemgetter
from typing import NamedTuple

from data_prep.trajectories.run import AgentRun
from data_prep.trajectories.writes import CONTENTS, PATHS, Region, Write, diff_targets, fields_write

_FENCED = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n`]*\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.M | re.S)
_SHELLS = ("", "bash", "sh", "shell", "zsh", "console", "mswea_bash_command")
_COMMAND_LINE = re.compile(
    r"^(?:\$ )?(?:cd|sed|cat|python3?|perl|echo|printf|patch|git|tee|ed|cp|mv|edit_via_str_replace|apply_patch"
    r"|str_replace_editor|str_replace|insert|create|edit) ",
    re.M,
)
_COMMANDS = frozenset("command cmd code script keystrokes bash".split())
_SUBCOMMANDS = frozenset("view create str_replace insert undo_edit".split())
_SHELL_TOOLS = ("bash", "execute_bash")
_NESTED = ("arguments", "kwargs")
_JSON_NAMES = _COMMANDS | CONTENTS | PATHS | {*_NESTED, "input"}
_JSON_FIELD = re.compile(r'"(\w+)"\s{0,9}:\s{0,9}"([^"\\]*(?:\\.[^"\\]*)*)"?', re.S)
_JSON_PIECE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))|[^\\]+|\\", re.S)
_JSON_CHARS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_XML = re.compile(
    r'<(?:function=|invoke\s+name=")(?P<tool>[\w.-]+)'
    r'|<parameter(?:=|\s+name=")(?P<field>[\w-]+)"?>(?P<value>.*?)(?:</parameter>|\Z)',
    re.S,
)
_OPENED = re.compile(r"^(?:open|create)[ \t]+[\"']?([^\s\"']+)", re.M)
# Edits written as blocks of text: what shows that there are some, the block, and the files that it goes into, by its
# body and the file that SWE-agent's editor shows.
_BLOCKS: tuple[tuple[str, re.Pattern[str], Callable[[str, str], list[str]]], ...] = (
    (
        "*** Begin Patch",
        re.compile(r"\*\*\* Begin Patch\n?(?P<body>.*?)\n?(?:\*\*\* End Patch|\Z)", re.S),
        lambda body, opened: diff_targets(body) or diff_targets(body.replace("\\n", "\n")),
    ),
    (
        "\nend_of_edit",
        re.compile(r"^edit[ \t]+\d+(?::\d+)?[ \t]*(?:\n(?P<body>.*?))??(?:\nend_of_edit|\Z)", re.M | re.S),
        lambda body, opened: [opened] if opened else [],
    ),
)

_RETURN_CODE = re.compile(r"\s*<returncode>\s*(-?\d+)\s*</returncode>")
_NOT_RUN = re.compile(r"\s*(?:Please always provide EXACTLY ONE action|Tool call error:|Your previous response)")
_HEAD, _TAIL = (re.compile(rf"<output_{part}>\n?(.*?)</output_{part}>", re.S) for part in ("head", "tail"))
_CLIPPED = re.compile(
    r"<response clipped>|\[\.\.\. .{0,40}(?:omitted|truncated|left out)|Observation was too long", re.I
)


@dataclass
class Calls:
    """What a turn holds: shell text to be read further (and whether a fence says that it is some), edits that are
    already known, calls of other tools (place, name, arguments)."""

    regions: list[Region] = field(default_factory=list)
    named: bool = False
    writes: list[Write] = field(default_factory=list)
    tools: list[tuple[int, str, dict[str, str]]] = field(default_factory=list)

    def add(self, name: str, value: Region, fields: list[tuple[str, Region]]) -> bool:
        """Add an argument of a tool: to the shell text or to the fields; True."""
        if name in _COMMANDS and value.text.strip() not in _SUBCOMMANDS:
            self.regions.append(value)
        else:
            fields.append((name, value))
        return True


class Output(NamedTuple):
    """What came back.

    Attributes:
        code: return code; None where the format has none.
        head: the output's text, or its beginning if it was cut.
        tail: the end of a cut output.
        cut: whether something is missing between the two.
    """

    code: int | None
    head: str
    tail: str = ""
    cut: bool = False


class Action(NamedTuple):
    """One thing done.

    Attributes:
        turn: index of the agent's turn.
        name: ``bash``, or the tool's name.
        script: text of the command; empty for tools.
        output: what came back for this action alone; None where several actions share a turn or nothing came back.
        arguments: of a tool.
    """

    turn: int
    name: str
    script: str
    output: Output | None
    arguments: dict[str, str]


def actions_of(run: AgentRun, wanted: Callable[[str], bool] = bool) -> Iterator[Action]:
    """The actions in order, without those the agent's harness refused.

    Args:
        wanted: asked with the text of each agent's turn; turns it refuses are passed over.
    """
    for turn, message in enumerate(run.messages):
        if message.role != "assistant" or not wanted(message.content):
            continue
        calls = Calls()
        _add_marked(message.content, calls)
        regions = calls.regions if calls.tools or calls.named else calls.regions[-1:]
        found = [(region.places[0], "bash", _trimmed(region).text, {}) for region in regions]
        found += [(start, name, "", arguments) for start, name, arguments in calls.tools]
        replies = [one.content for one in takewhile(lambda one: one.role != "assistant", run.messages[turn + 1 :])]
        if replies and not _NOT_RUN.match(replies[0]):
            outputs = map(output_of, replies) if len(replies) >= len(found) else repeat(None)
            found.sort(key=itemgetter(0))
            for (_, name, script, arguments), output in zip(found, outputs, strict=False):
                yield Action(turn, name, script, output, arguments)


def output_of(reply: str) -> Output:
    """The parts of an observation of mini-swe-agent, SWE-agent or any other harness."""
    match = _RETURN_CODE.match(reply)
    if match is None:
        text = reply.removeprefix("OBSERVATION:\n")
        clip = _CLIPPED.search(text)
        return Output(None, text[: clip.start()] if clip else text, cut=clip is not None)
    code, rest = int(match[1]), reply[match.end() :]
    _, whole, output = rest.partition("<output>\n")
    if whole:
        return Output(code, output.rpartition("</output>")[0] if "</output>" in output else output)
    head, tail = _HEAD.search(rest), _TAIL.search(rest)
    return Output(code, head[1] if head else rest.lstrip("\n"), tail[1] if head and tail else "", cut=True)


def find_calls(content: str, opened: str = "") -> Calls:
    """The commands and edits of one turn, marked or not; ``opened`` is the file that SWE-agent's editor shows then."""
    calls = Calls()
    for sign, block, targets_of in _BLOCKS:
        for match in block.finditer(content) if sign in content else ():
            if match["body"] is not None:
                targets = targets_of(match["body"], opened)
                calls.writes.append(Write([match.span("body")], targets, unknown=not targets))
    if _add_marked(content, calls) or ('":' in content and _add_json(_part(content, 0, len(content)), calls)):
        return calls
    if match := _COMMAND_LINE.search(content):
        calls.regions.append(_part(content, match.start(), len(content)))
    return calls


def last_opened(content: str, before: str) -> str:
    """The file that SWE-agent's editor shows after the turn."""
    found = _OPENED.findall(content) if "open " in content or "create " in content else []
    return found[-1] if found else before


def _part(content: str, start: int, end: int) -> Region:
    return Region(content[start:end], range(start, max(start, end) + 1))


def _trimmed(region: Region) -> Region:
    """A parameter's value: the line breaks that belong to the tags are not part of it."""
    text, places = region
    return Region(text[1:-1], places[1:-1]) if len(text) > 1 and text[0] == text[-1] == "\n" else region


def _add_marked(content: str, calls: Calls) -> bool:
    """Add what stands in fences and XML tags; a fence without a language counts only where no fence names a shell."""
    unnamed = []
    for match in _FENCED.finditer(content) if "```" in content else ():
        language, (start, end) = match[1].lower(), match.span(2)
        if language in _SHELLS:
            # The line break in front of the closing fence is the fence's.
            region = _part(content, start, end - (start < end < match.end()))
            (calls.regions if language else unnamed).append(region)
    calls.named = bool(calls.regions)
    if not calls.named:
        if "<parameter" in content:
            _add_xml(content, calls)
        calls.regions += unnamed
    return bool(calls.tools or calls.regions)


def _add_xml(content: str, calls: Calls) -> None:
    tools: list[tuple[int, str, list[tuple[str, Region]]]] = []
    for match in _XML.finditer(content):
        if match["tool"] or not tools:
            tools.append((match.start(), match["tool"] or "", []))
        if match["field"]:
            calls.add(match["field"], _trimmed(_part(content, *match.span("value"))), tools[-1][2])
    for start, name, fields in tools:
        calls.writes += fields_write(fields)
        if fields and name not in _SHELL_TOOLS:
            calls.tools.append((start, name, {key: value.text for key, value in fields}))


def _add_json(region: Region, calls: Calls, depth: int = 0) -> bool:
    fields: list[tuple[str, Region]] = []
    found = False
    for match in _JSON_FIELD.finditer(region.text):
        if match[1] not in _JSON_NAMES:
            continue
        value = _unescaped(match[2], region.places[match.start(2) : match.end(2) + 1])
        if match[1] in _NESTED:
            found |= depth < 3 and _add_json(value, calls, depth + 1)
        elif match[1] != "input" or "*** Begin Patch" in value.text:
            found |= calls.add("patch" if match[1] == "input" else match[1], value, fields)
    calls.writes += fields_write(fields)
    return found


def _unescaped(raw: str, places: Sequence[int]) -> Region:
    """The text that a JSON string stands for."""
    if "\\" not in raw:
        return Region(raw, places)
    pieces: list[str] = []
    origin: list[int] = []
    for match in _JSON_PIECE.finditer(raw):
        plain = match[1] is None and match[2] is None
        pieces.append(
            match[0] if plain else chr(int(match[1], 16)) if match[1] else _JSON_CHARS.get(match[2], match[2])
        )
        origin += places[match.start() : match.end() if plain else match.start() + 1]
    return Region("".join(pieces), [*origin, places[-1]])
