"""What a pipeline of shell commands, a script inside it or a tool call writes: where the new text stands, into which
files. What each program writes stands in one table (`PROGRAMS`), the arguments of editing tools in another
(`EDIT_TOOLS`): a new editing tool is an entry there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import dropwhile
from typing import NamedTuple

from data_prep.trajectories.shell import Command, Word, pipelines

# What a program writes by its arguments: content, files that it goes into, files that it comes from.
Parts = tuple[list[Word], list[Word], list[Word]]

# Editing tools of the command line: the names of their arguments, by position; others are given as --name.
EDIT_TOOLS = {
    "edit_via_str_replace": ("path", "old_str", "new_str"),
    "str_replace_editor": ("command", "path"),
    "str_replace_based_edit_tool": ("command", "path"),
    "apply_patch": ("patch",),
    **dict.fromkeys(("edit", "insert", "create", "str_replace"), ("path", "old_str", "new_str")),
}
# Names of arguments, in whatever way a tool is called.
PATHS = frozenset("path file_path filepath filePath filename file_name file target_file relative_path".split())
CONTENTS = frozenset(
    "old_str new_str file_text insert_text text old_string new_string content new_content old_text new_text patch diff "
    "search replace replacement replacement_text insert_line_text edits to_replace code_edit contents oldString "
    "newString".split()
)
_EDITS_ANYHOW = frozenset(
    "old_str new_str old_string new_string oldString newString file_text patch diff to_replace replacement_text".split()
)
# Tools that edit the file which SWE-agent's editor shows.
_WINDOW_TOOLS = ("edit", "insert")
_DIFF_READERS = ("patch", "git", "apply_patch")
_PRINTERS = frozenset("echo printf cat awk gawk sed gsed tr python".split())
_WRAPPERS = frozenset("sudo env time timeout xargs nohup exec command find nice do then else if ! { while".split())
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_IN_PLACE = re.compile(r"-[a-df-zA-Z0-9]*i|--in-place")
_PYTHON = re.compile(r"python[\d.]*")

_OPENS_TO_WRITE = re.compile(r"""[,=(]\s*\\?["'](?:[wax]b?t?\+?b?|r[bt]?\+b?)\\?["']""")
_WRITES_ANYHOW = (
    *(".write_text(", ".write_bytes(", "fileinput", "inplace=", "inplace =", "shutil.copy", "shutil.move"),
    *("os.rename(", "os.replace(", "sed -i", "'sed'", '"sed"', "git apply", "patch -p", "FileUtils", "File.write"),
    # Functions of OpenHands' notebook.
    *("edit_file_by_replace(", "edit_file_by_line(", "edit_file(", "append_file(", "insert_content_at_line("),
)
_TEMPORARY = re.compile(r"tempfile|tmp|temp_dir|StringIO", re.I)
_PATH_LITERAL = re.compile(r"""["']([\w./~+-]{1,200}\.\w{1,5})\\?["']""")
_PATH_LOOSE = re.compile(r"""(?<![\w./~+-])([\w./~+-]{1,200}\.\w{1,5})(?![\w(.])""")
_DIFF_TARGET = re.compile(
    r"^[ \t>\d]*(?:(?:\+\+\+|---) (?:[ab]/)?|\*\*\* (?:Update|Add|Delete) File: |diff --git a/)([^\s]+)", re.M
)


# Text in a turn: where it starts, and the text.
Piece = tuple[int, str]


@dataclass(slots=True)
class Write:
    """One piece of text the agent puts into the world: where it stands, the paths that it is written to, those whose
    text goes into them; whether it writes a file whose name cannot be read off the command, whether it is a program
    that writes files itself."""

    spans: list[tuple[int, int]] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    feeds: list[str] = field(default_factory=list)
    unknown: bool = False
    script: bool = False

    def add_code(self, text: str) -> None:
        """Add what a heredoc or an inline script writes by itself, by the paths it spells out."""
        if text.startswith("*** Begin Patch") or ("\n@@" in f"\n{text}" and _DIFF_TARGET.search(text)):
            self.targets += diff_targets(text)
            self.script = True
        elif ("open" in text and _OPENS_TO_WRITE.search(text)) or any(sign in text for sign in _WRITES_ANYHOW):
            literals = _PATH_LITERAL.findall(text)
            paths = list(dict.fromkeys(literals + _PATH_LOOSE.findall(text)))
            self.targets += paths
            self.feeds += paths
            self.unknown |= not any("/" in path for path in paths) and not literals and not _TEMPORARY.search(text)
            self.script = True


def diff_targets(text: str) -> list[str]:
    """The files a diff names."""
    return [path for path in _DIFF_TARGET.findall(text) if path != "/dev/null"]


def fields_write(fields: list[tuple[str, Piece]], tool: str = "", opened: str = "") -> list[Write]:
    """What a call of a tool writes by its arguments, if anything; ``opened`` is the file that SWE-agent's editor shows.

    What is run in a notebook is always text of the agent's own.
    """
    if "python" in tool:
        cells = [Write([(start, start + len(text))]) for _, (start, text) in fields]
        for write, (_, (_, text)) in zip(cells, fields, strict=True):
            write.add_code(text)
        return cells
    names = {name for name, _ in fields}
    spans = [(start, start + len(text)) for name, (start, text) in fields if name in CONTENTS]
    targets = [text.strip() for name, (_, text) in fields if name in PATHS]
    targets += [path for name, (_, text) in fields if name in ("patch", "diff") for path in diff_targets(text)]
    edits = bool(targets or names & _EDITS_ANYHOW or tool in _WINDOW_TOOLS or {"search", "replace"} <= names)
    targets = targets or [opened] * bool(opened)
    return [Write(spans, targets, unknown=not targets)] if spans and edits else []


def shell_writes(text: str) -> list[Write]:
    """What each pipeline of the text writes, in order; a pipeline that only reads is left out."""
    found = []
    for pipeline in pipelines(text):
        write = _pipeline(pipeline, text)
        if not write.spans and not write.targets and not write.unknown:
            continue
        cut = next((word.end for command in pipeline for word in command.words if not word.is_closed), None)
        if cut is not None and write.spans:
            # A quote that is never closed: where the arguments end is anyone's guess, so all the rest is content.
            starts, ends = zip(*write.spans, strict=True)
            write.spans = [(min(starts), max(cut, *ends))]
        found.append(write)
    return found


def _pipeline(commands: list[Command], text: str) -> Write:
    write, writing = Write(), False
    calls = [(*program_of(command), command) for command in commands]
    heredocs = [span for command in commands for span in command.heredocs]
    for name, words, command in calls:
        if name == "python":
            _python(words, command, write)
        if name in PROGRAMS and (parts := PROGRAMS[name](words)) is not None:
            contents, targets, feeds = parts
            write.spans += [word.inside for word in contents]
            patched = [path for word in contents for path in diff_targets(word.value)] if name == "apply_patch" else []
            write.targets += [*(word.value for word in targets), *patched]
            write.feeds += [*(word.value for word in feeds), *command.reads]
            write.unknown |= not (heredocs or patched if name in _DIFF_READERS else targets)
            writing = True
        if command.outputs:
            write.targets += command.outputs
            write.feeds += [*(word.value for word in words if not word.is_quoted), *command.reads]
            writing = True
    for start, end in heredocs:
        write.add_code(text[start:end])
        if writing or write.script or write.targets or write.unknown:
            write.spans.append((start, end))
    if writing and write.targets:
        # The arguments of echo, printf and the like, whose output goes into a file.
        taken = {start for start, _ in write.spans}
        for name, words, _ in calls:
            prints = name in ("echo", "printf")
            for word in words if name in _PRINTERS else ():
                if word.inside[0] not in taken and (word.is_quoted or prints) and not word.raw.startswith("-"):
                    write.spans.append(word.inside)
                    if prints:
                        write.add_code(word.raw)
    return write


def program_of(command: Command) -> tuple[str, list[Word]]:
    """The program that runs behind ``sudo``, ``xargs``, ``VAR=...`` and the like, and its arguments."""
    wrapped = False
    for index, word in enumerate(command.words[:42]):
        if _ASSIGNMENT.match(word.raw):
            continue
        program = word.value.rsplit("/", 1)[-1]
        program = "python" if _PYTHON.fullmatch(program) else program
        if program in _WRAPPERS:
            wrapped = True
        elif not wrapped or program in PROGRAMS or program == "python":
            return program, command.words[index + 1 :]
    return "", command.words


class StreamEdit(NamedTuple):
    """The arguments of ``sed``, ``perl`` or ``ruby``: every script is content, the other words are files."""

    options: list[str]
    scripts: list[Word]
    files: list[Word]

    @property
    def in_place(self) -> bool:
        """Whether it changes the files."""
        return any(map(_IN_PLACE.match, self.options))


def stream_edit(words: Iterable[Word], sed: bool = True) -> StreamEdit:
    """Read the arguments of a stream editor."""
    found, script_next = StreamEdit([], [], []), False
    for word in words:
        raw = word.raw
        if script_next:
            found.scripts.append(word)
            script_next = False
        elif raw.startswith("--expression="):
            found.scripts.append(word.behind(13))
        elif raw.startswith("-") and len(raw) > 1:
            letters = raw.split(".")[0]
            script_next = raw == "--expression" or (raw[1] != "-" and letters.endswith("e" if sed else ("e", "E")))
            if sed and raw.startswith("-e") and not script_next:
                found.scripts.append(word.behind(2))
            else:
                found.options.append(letters)
        elif raw not in ("''", '""'):
            (found.files if found.scripts else found.scripts).append(word)
    return found


def _stream_editor(words: list[Word], sed: bool = True) -> Parts | None:
    edit = stream_edit(words, sed)
    return (edit.scripts, edit.files, []) if edit.in_place else None


def _python(words: list[Word], command: Command, write: Write) -> None:
    """``python -c`` and ``python - <<EOF``: always text of the agent's own; more of it if the script writes files."""
    rest = list(dropwhile(lambda word: word.raw[:1] == "-" and word.raw != "-c", words))
    if not rest or [word.raw for word in rest] == ["-c"]:
        write.spans += command.heredocs
    elif rest[0].raw == "-c":
        _, code, *more = rest
        write.add_code(code.raw)
        write.spans += [code.inside, *(word.inside for word in more if word.is_quoted and write.script)]


def _copy(words: list[Word]) -> Parts | None:
    files = _operands(words)
    return ([], files[-1:], files[:-1]) if len(words) > 1 else None


def _line_editor(words: list[Word]) -> Parts:
    """``ed -s FILE <<EOF``, ``ex -sc '...' FILE``, ``vim -c '...' FILE``."""
    return [word for word in words if word.is_quoted], [word for word in _operands(words) if not word.is_quoted], []


def tool_arguments(name: str, words: Iterable[Word]) -> list[tuple[str, Word]]:
    """The arguments of an editing tool by name; the name is empty where neither it nor its place is known."""
    found: list[tuple[str, Word]] = []
    names, flag = iter(EDIT_TOOLS[name]), ""
    for word in words:
        given, sign, _ = word.raw.removeprefix("--").partition("=")
        if flag:
            found.append((flag, word))
            flag = ""
        elif word.raw.startswith("--") and sign:
            found.append((given, word.behind(len(given) + 3)))
        elif word.raw.startswith("--"):
            flag = given
        elif found or not word.raw.startswith("-"):
            found.append((next(names, ""), word))
    return found


def _edit_tool(words: list[Word], name: str) -> Parts | None:
    """The file is the argument that is named so; what has a name of content, is quoted or long is content."""
    arguments = tool_arguments(name, words)
    if any(key == "command" and word.value in ("view", "undo_edit") for key, word in arguments):
        return None
    files = [word for key, word in arguments if key in PATHS and not word.is_quoted and re.search(r"[./]", word.raw)]
    contents = [
        word
        for key, word in arguments
        if key in CONTENTS or (key != "command" and word not in files and (word.is_quoted or len(word.raw) > 12))
    ]
    return (contents, files, []) if contents or files or name == "apply_patch" else None


def _operands(words: Iterable[Word]) -> list[Word]:
    return [word for word in words if not word.raw.startswith("-")]


# Programs that write, by their arguments; None where they only read.
PROGRAMS: dict[str, Callable[[list[Word]], Parts | None]] = {
    **dict.fromkeys(("sed", "gsed"), _stream_editor),
    **dict.fromkeys(("perl", "ruby"), partial(_stream_editor, sed=False)),
    **dict.fromkeys(("cp", "mv", "install", "ln", "rsync"), _copy),
    **dict.fromkeys(("ed", "ex", "vi", "vim", "nvim"), _line_editor),
    "tee": lambda words: ([], _operands(words), []),
    "patch": lambda words: ([], _operands(words), _operands(words)),
    "git": lambda words: PROGRAMS["patch"](words) if words and words[0].value in ("apply", "am") else None,
    **{name: partial(_edit_tool, name=name) for name in EDIT_TOOLS},
}
