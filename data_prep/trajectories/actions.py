"""What an agent's turns do and write, in fences, XML, JSON and edit blocks, and what came back.

Nothing is run. Which of the writes end up in given files is followed backwards: a file that is moved, copied, piped or
patched into one of them counts as one of them, and so does a script that writes one of them. A new form of edit block
is an entry of `_BLOCKS`.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat, takewhile
from operator import itemgetter
from typing import NamedTuple

from data_prep.trajectories.diffs import diffs_in
from data_prep.trajectories.run import AgentRun, Message
from data_prep.trajectories.writes import CONTENTS, PATHS, Piece, Write, diff_targets, fields_write, shell_writes

# A place in a run: ``messages[message].content[start:end]``.
Span = tuple[int, int, int]

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
_JSON_FIELD = re.compile(r'"(\w+)"\s{0,9}:\s{0,9}"([^"\\]*(?:\\.[^"\\]*)*)"?', re.S)
_XML = re.compile(
    r'<(?:function=|invoke\s+name=")(?P<tool>[\w.-]+)'
    r'|<parameter(?:=|\s+name=")(?P<field>[\w-]+)"?>(?P<value>.*?)(?:</parameter>|\Z)'
    r"|<execute_(?P<cell>bash|ipython)>(?P<code>.*?)(?:</execute_|\Z)"
    # Cline and its relatives have a tag for each tool and each argument.
    r"|<(?P<tag>write_to_file|replace_in_file|apply_diff|insert_content|search_and_replace|execute_command)>"
    r"(?P<inner>.*?)(?:</(?P=tag)>|\Z)",
    re.S,
)
_TAGS = tuple(
    "<parameter <execute_ <write_to_file> <replace_in_file> <apply_diff> <insert_content> <search_and_".split()
)
_ARGUMENT = re.compile(r"<(path|content|diff|search|replace|command)>(.*?)(?:</\1>|\Z)", re.S)
_LIST = re.compile(r'\[\s{0,9}(?:"[^"\\]*(?:\\.[^"\\]*)*"[\s,]{0,20})*\]', re.S)
_LISTED = re.compile(r'"(?:command|cmd)"\s{0,9}:\s{0,9}(?=\[)')
_OPENED = re.compile(
    r"^(?:(?:open|create)[ \t]+[\"']?|<function=(?:open|create)>\s*<parameter=(?:path|filename)>\s*)([^\s\"'<]+)", re.M
)
# Blocks of Aider and Cline; the name of the file stands on a line of its own above the first of them.
_REPLACE = re.compile(
    r"^[ \t]*(?:<{5,9}|-{5,9}) SEARCH>?[ \t]*\n(?P<body>.*?)(?:^[ \t]*(?:>{5,9}|\+{5,9}) REPLACE|\Z)", re.M | re.S
)
_TITLE = re.compile(
    r"^[ \t]*(?:<(?:parameter=)?path>|[#*`]{1,4} ?)?([\w./~+-]{1,200}\.\w{1,9})(?:</\w+>|[`*:]{0,4})[ \t]*$", re.M
)
# Edits written as blocks of text: what shows that there are some, the block, and the files that it goes into, by its
# body and the file that SWE-agent's editor shows.
_BLOCKS: tuple[tuple[str, re.Pattern[str], Callable[[str, str], list[str]]], ...] = (
    (
        "*** Begin Patch",
        re.compile(r"\*\*\* Begin Patch\n?(?P<body>.*?)\n?(?:\*\*\* End Patch|\Z)", re.S),
        lambda body, opened: diff_targets(body) or diff_targets(re.sub(r"\\+n", "\n", body)),
    ),
    (
        "\nend_of_",
        re.compile(
            r"^(?:edit|insert)(?:[ \t]+\d+(?::\d+)?)?[ \t]*(?:\n(?P<body>.*?))??(?:\nend_of_(?:edit|insert)|\Z)",
            re.M | re.S,
        ),
        lambda body, opened: [opened] if opened else [],
    ),
)

_RETURN_CODE = re.compile(r"\s*<returncode>\s*(-?\d+)\s*</returncode>")
_NOT_RUN = re.compile(r"\s*(?:Please always provide EXACTLY ONE action|Tool call error:|Your previous response)")
_HEAD, _TAIL = (re.compile(rf"<output_{part}>\n?(.*?)</output_{part}>", re.S) for part in ("head", "tail"))
_CLIPPED = re.compile(
    r"<response clipped>|\[\.\.\. .{0,40}(?:omitted|truncated|left out)|Observation was too long", re.I
)
_UNRESOLVED = re.compile(r"[$*?`{}\[\]]")


class Output(NamedTuple):
    """What came back: the return code, None where the format has none; the output's text, or head and tail of one that
    was cut."""

    code: int | None
    head: str
    tail: str = ""
    cut: bool = False


class Action(NamedTuple):
    """One thing that an agent's turn did: a script of ``bash``, or a tool by its name and arguments. The output is None
    where several actions share a turn or nothing came back."""

    turn: int
    name: str
    script: str
    output: Output | None
    arguments: dict[str, str]


def actions_of(run: AgentRun, wanted: Callable[[str], bool] = bool) -> Iterator[Action]:
    """The actions in order, without those that the agent's harness refused, of turns whose text is ``wanted``."""
    for turn, message in enumerate(run.messages):
        if message.role != "assistant" or not wanted(message.content):
            continue
        scripts, tools, named = _marked(message.content)
        pieces = map(_trimmed, scripts if tools or named else scripts[-1:])
        found = [(start, "bash", _listed(text)[0] or text, {}) for start, text in pieces]
        found += [(start, name, "", {key: text for key, (_, text) in fields}) for start, name, fields in tools]
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


def writes_of(messages: Sequence[Message]) -> list[tuple[int, Write]]:
    """Every write of the assistant's turns with the turn's index; spans are places in the turn's content."""
    found: list[tuple[int, Write]] = []
    opened = ""  # the file that SWE-agent's editor shows
    for index, message in enumerate(messages):
        if message.role == "assistant":
            text = message.content
            named = _OPENED.findall(text) if "open" in text or "create" in text else []
            opened = named[-1] if named else opened
            found += [(index, write) for write in _writes_in(text, opened)]
    return found


def _writes_in(content: str, opened: str) -> list[Write]:
    writes = [Write([(found.start, found.end)], found.files) for found in diffs_in(content) if found.files]
    for sign, block, targets_of in _BLOCKS:
        for match in block.finditer(content) if sign in content else ():
            if match["body"] is not None:
                targets = targets_of(match["body"], opened)
                writes.append(Write([match.span("body")], targets, unknown=not targets))
    named, read = [], 0
    for match in _REPLACE.finditer(content) if " SEARCH" in content else ():
        named = _TITLE.findall(content, read, match.start())[-1:] or named
        read = match.end()
        writes.append(Write([match.span("body")], [*named], unknown=not named))
    scripts, tools, _ = _marked(content)
    for _, tool, fields in tools:
        writes += fields_write(fields, tool, opened)
    found = _json_writes(content) if ('":' in content and not (scripts or tools)) or "<tool_call>" in content else []
    if not scripts and not tools and not found and (match := _COMMAND_LINE.search(content)):
        scripts = [(match.start(), content[match.start() :])]
    writes += found
    for at, text in scripts:
        listed, _ = _listed(text)
        for write in shell_writes(listed or text):
            # Of a command that is written as a list no part can be taken out by itself.
            spans = [(0, len(text))] if listed and write.spans else write.spans
            write.spans = [(at + start, at + end) for start, end in spans]
            writes.append(write)
    return writes


def _listed(text: str, start: int = 0) -> tuple[str, int]:
    """The script of a command that is written as a JSON list, such as ``["bash", "-lc", "..."]``, and where the list
    ends; empty if there is none at the place."""
    match = _LIST.match(text, start)
    try:
        words = json.loads(match[0], strict=False) if match else []
    except ValueError:
        words = []
    shell = len(words) == 3 and words[1] in ("-c", "-lc")
    return (words[2] if shell else shlex.join(words)), match.end() if match else start


def _trimmed(piece: Piece) -> Piece:
    """A parameter's value: the line breaks that belong to the tags are not part of it."""
    start, text = piece
    return (start + 1, text[1:-1]) if len(text) > 1 and text[0] == text[-1] == "\n" else piece


def _marked(content: str) -> tuple[list[Piece], list[tuple[int, str, list[tuple[str, Piece]]]], bool]:
    """What stands in fences and XML tags: scripts, calls of other tools (place, name, fields), whether a fence names a
    shell. A fence without a language counts only where none does; what stands inside another piece is part of that."""
    scripts: list[Piece] = []
    unnamed: list[Piece] = []
    tools: list[tuple[int, str, list[tuple[str, Piece]]]] = []
    found = [match for match in _FENCED.finditer(content) if match[1].lower() in _SHELLS] if "```" in content else []
    found += _XML.finditer(content) if any(sign in content for sign in _TAGS) else ()
    named, covered = any(match.re is _FENCED and match[1] for match in found), 0
    for match in sorted(found, key=lambda match: match.start()):
        if match.start() < covered:
            continue
        if match.re is _FENCED:
            # The line break in front of the closing fence is the fence's.
            start, end = match.span(2)
            piece = start, content[start : end - (start < end < match.end())]
            (scripts if match[1] else unnamed).append(piece)
            covered = match.end() if match[1] else covered
            continue
        covered = match.end()
        tool, fields = match["tool"] or match["tag"] or match["cell"], []
        if tool or not tools:
            tools.append((match.start(), tool or "", []))
        if match["field"]:
            fields = [(match["field"], match.start("value"), match["value"])]
        elif match["cell"]:
            fields = [("code", match.start("code"), match["code"])]
        elif match["tag"]:
            at = match.start("inner")
            fields = [(found[1], at + found.start(2), found[2]) for found in _ARGUMENT.finditer(match["inner"])]
        for name, *piece in fields:
            piece = _trimmed(tuple(piece))
            if name in _COMMANDS and piece[1].strip() not in _SUBCOMMANDS and "python" not in tools[-1][1]:
                scripts.append(piece)
            else:
                tools[-1][2].append((name, piece))
    scripts += () if named else unnamed
    return scripts, [tool for tool in tools if tool[2] and tool[1] not in _SHELL_TOOLS], named


def _json_writes(text: str, depth: int = 0) -> list[Write]:
    """What calls written as JSON write; a command or a call inside a string that writes is masked as a whole."""
    writes: list[Write] = []
    fields: list[tuple[str, Piece]] = []
    for match in _JSON_FIELD.finditer(text):
        name, value = match.groups()
        if name in CONTENTS or name in PATHS:
            fields.append((name, (match.start(2), value)))
        elif name in _COMMANDS or (name in ("arguments", "kwargs") and depth < 3):
            try:
                value = json.loads(f'"{value}"', strict=False)
            except ValueError:
                pass  # cut off or no JSON: as it stands
            found = shell_writes(value) if name in _COMMANDS else _json_writes(value, depth + 1)
            for write in found:
                write.spans = [match.span(2)] if write.spans else []
            writes += found
    for match in _LISTED.finditer(text):
        script, end = _listed(text, match.end())
        for write in shell_writes(script):
            write.spans = [(match.end(), end)] if write.spans else []
            writes.append(write)
    return writes + fields_write(fields)


class Paths:
    """A set of paths that may be spelt from any folder: two paths agree if one ends with the other."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._by_name: dict[str, set[tuple[str, ...]]] = {}
        self.update(paths)

    def update(self, paths: Iterable[str]) -> None:
        """Add paths; one with a variable or a pattern in it is no path."""
        for path in paths:
            parts = _parts(path)
            if parts and not _UNRESOLVED.search(path):
                self._by_name.setdefault(parts[-1], set()).add(parts)

    def __contains__(self, path: str) -> bool:
        parts = _parts(path)
        if not parts or _UNRESOLVED.search(parts[-1]):
            return bool(parts)
        known = self._by_name.get(parts[-1], set())
        if _UNRESOLVED.search(path):
            return bool(known)
        return any(parts[-len(other) :] == other[-len(parts) :] for other in known)


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.strip().split("/") if part not in ("", ".", "..", "~"))


def edits_of(writes: list[tuple[int, Write]], files: Iterable[str]) -> list[tuple[int, Write]]:
    """Those of the writes that end up in the given files."""
    hot = Paths(files)

    def touches(write: Write) -> bool:
        return write.unknown or any(path in hot for path in write.targets)

    for _, write in reversed(writes):
        if touches(write):
            hot.update([*write.feeds, *(write.targets if write.script else ())])
    return [(index, write) for index, write in writes if touches(write)]


def contents_of(edits: list[tuple[int, Write]]) -> list[Span]:
    """Where the edits' contents stand, in order; those that overlap are joined."""
    return disjoint((index, *span) for index, write in edits for span in write.spans)


def disjoint(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, without empty ones; those that overlap are joined."""
    result: list[Span] = []
    for message, start, end in sorted(spans):
        if start < end and result and result[-1][0] == message and start < result[-1][2]:
            result[-1] = (message, result[-1][1], max(end, result[-1][2]))
        elif start < end:
            result.append((message, start, end))
    return result
