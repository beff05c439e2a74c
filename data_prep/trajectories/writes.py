"""What a pipeline of shell commands, or a script inside it, writes: where the new text stands, into which files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from data_prep.trajectories.shell import Command, Word, pipelines

Span = tuple[int, int, str]


@dataclass(slots=True)
class Write:
    """One piece of text the agent puts into the world.

    Attributes:
        spans: where the text stands, with the kind of edit.
        targets: paths that it is written to.
        feeds: paths whose text goes into the targets.
        unknown: it writes a file whose name cannot be read off the command.
        script: it is a program that writes files itself.
    """

    spans: list[Span] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    feeds: list[str] = field(default_factory=list)
    unknown: bool = False
    script: bool = False


_WRAPPERS = frozenset("sudo env time timeout xargs nohup exec command find nice do then else if ! { while".split())
_EDITORS = frozenset("ed ex vi vim nvim".split())
_EDIT_TOOLS = frozenset("edit_via_str_replace str_replace_editor str_replace_based_edit_tool apply_patch".split())
_ACI = frozenset("edit insert create str_replace".split())
_COPIERS = frozenset("cp mv install ln rsync".split())
_PRINTERS = frozenset("echo printf cat".split())
_KNOWN = frozenset("sed gsed perl ruby tee patch git awk gawk".split()) | _EDITORS | _EDIT_TOOLS | _COPIERS
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_IN_PLACE = re.compile(r"-[nErsuz]*i|--in-place")
_PERL_IN_PLACE = re.compile(r"-[a-zA-Z0-9]*i")
_PYTHON = re.compile(r"python[\d.]*")

_OPENS_TO_WRITE = re.compile(r"""[,=(]\s*\\?["'](?:[wax]b?t?\+?b?|r[bt]?\+b?)\\?["']""")
_MODES = tuple(f"{quote}{mode}" for quote in "'\"" for mode in ("w", "a", "x", "r+", "rb+", "rt+"))
_WRITES_ANYHOW = (
    *(".write_text(", ".write_bytes(", "fileinput", "inplace=", "inplace =", "shutil.copy", "shutil.move"),
    *("os.rename(", "os.replace(", "sed -i", "'sed'", '"sed"', "git apply", "patch -p", "FileUtils", "File.write"),
)
_TEMPORARY = re.compile(r"tempfile|tmp|temp_dir|StringIO", re.I)
_PATH_LITERAL = re.compile(r"""["']([\w./~+-]{1,200}\.\w{1,5})\\?["']""")
_PATH_LOOSE = re.compile(r"""(?<![\w./~+-])([\w./~+-]{1,200}\.\w{1,5})(?![\w(.])""")
_DIFF_TARGET = re.compile(r"^(?:\+\+\+|---) (?:[ab]/)?([^\s]+)|^\*\*\* (?:Update|Add|Delete) File: (\S+)", re.M)
_DIFF_HUNK = re.compile(r"^@@", re.M)


def looks_like_diff(text: str) -> bool:
    """Whether the text is a diff that ``patch``, ``git apply`` or ``apply_patch`` takes."""
    if "@@" not in text or not _DIFF_HUNK.search(text):
        return text.startswith("*** Begin Patch")
    return bool(_DIFF_TARGET.search(text))


def diff_targets(text: str) -> list[str]:
    """The files a diff names."""
    return [path for pair in _DIFF_TARGET.findall(text) if (path := pair[0] or pair[1]) and path != "/dev/null"]


def script_writes(code: str) -> Write | None:
    """What a script writes and reads by the paths it spells out; None if it writes no file."""
    opens = "open" in code and any(mode in code for mode in _MODES) and _OPENS_TO_WRITE.search(code)
    if not opens and not any(sign in code for sign in _WRITES_ANYHOW):
        return None
    literals = _PATH_LITERAL.findall(code)
    paths = list(dict.fromkeys(literals + _PATH_LOOSE.findall(code)))
    unknown = not literals and not any("/" in path for path in paths) and not _TEMPORARY.search(code)
    return Write(targets=paths, feeds=paths, unknown=unknown, script=True)


def shell_writes(text: str) -> list[Write]:
    """What each pipeline of the text writes, in order; a pipeline that only reads is left out."""
    found = []
    for pipeline in pipelines(text):
        write = _pipeline(pipeline, text)
        if write is not None:
            cut = next((word.end for command in pipeline for word in command.words if not word.is_closed), None)
            if cut is not None and write.spans:
                # A quote that is never closed: where the arguments end is anyone's guess, so all the rest is content.
                start, _, kind = min(write.spans)
                write.spans = [(start, max(cut, max(end for _, end, _ in write.spans)), kind)]
            found.append(write)
    return found


def _pipeline(commands: list[Command], text: str) -> Write | None:
    write = Write()
    spans = write.spans
    writing = False

    def moves(targets: list[Word], feeds: list[Word]) -> bool:
        write.targets += [word.value for word in targets]
        write.feeds += [word.value for word in feeds]
        return True

    for command in commands:
        name, rest, plain = _tool(command)
        files = [word for word in rest if not word.raw.startswith("-")]
        if name in ("sed", "gsed", "perl", "ruby"):
            writing |= _stream_editor(name, rest, write)
        elif _PYTHON.fullmatch(name):
            writing |= _python(rest, command, write)
        elif name == "tee":
            writing = moves([word for word in rest if not word.value.startswith("-")], [])
        elif name in _EDITORS:
            writing |= _line_editor(rest, command, write)
        elif name == "patch" or (name == "git" and rest and rest[0].value in ("apply", "am")):
            write.feeds += command.reads
            write.unknown |= not command.heredocs and len(commands) == 1
            writing = moves(files, files)
        elif name in _COPIERS and len(rest) > 1:
            writing = moves(files[-1:], files[:-1])
        elif name in _EDIT_TOOLS or (name in _ACI and rest):
            writing |= _edit_tool(name, rest, command, write)
        elif name in ("awk", "gawk") and any(word.value == "inplace" for word in rest):
            spans += [(*word.inside, "awk -i inplace") for word in rest if word.is_quoted]
            writing = moves(plain, [])
        if command.outputs:
            write.targets += command.outputs
            write.feeds += command.reads
            writing = moves([], plain)
    for command in commands:
        for start, end in command.heredocs:
            _body(text[start:end], write)
            if writing or write.script or write.targets or write.unknown:
                spans.append((start, end, "heredoc"))
    if writing and write.targets:
        _printed(commands, write)
    if not spans and not write.targets and not write.unknown:
        return None
    return write


def _tool(command: Command) -> tuple[str, list[Word], list[Word]]:
    """The program that runs behind ``sudo``, ``xargs``, ``VAR=...`` and the like, its arguments, those not quoted."""
    name, rest = "", command.words
    wrapped = False
    for index, word in enumerate(command.words[:42]):
        if _ASSIGNMENT.match(word.raw):
            continue
        program = word.value.rsplit("/", 1)[-1]
        if program in _WRAPPERS:
            wrapped = True
        elif not wrapped or program in _KNOWN or _PYTHON.fullmatch(program):
            name, rest = program, command.words[index + 1 :]
            break
    return name, rest, [word for word in rest if not word.is_quoted]


def _stream_editor(name: str, rest: list[Word], write: Write) -> bool:
    """``sed -i``, ``perl -pi -e``, ``ruby -i``: every script is content, the other words are files."""
    perl = name in ("perl", "ruby")
    in_place, scripts, files = False, [], []
    take_next, explicit = False, False
    for word in rest:
        raw = word.raw
        if take_next:
            scripts.append(word.inside)
            take_next, explicit = False, True
        elif raw.startswith("-") and len(raw) > 1:
            in_place |= bool((_PERL_IN_PLACE if perl else _IN_PLACE).match(raw))
            if raw.startswith("--expression="):
                scripts.append((word.start + 13, word.end))
                explicit = True
            elif not raw.startswith("--") and raw.endswith(("e", "E")) and (perl or raw.endswith("e")):
                take_next = True
            elif not perl and raw.startswith("-e"):
                scripts.append((word.start + 2, word.end))
                explicit = True
        elif raw in ("''", '""'):
            continue
        elif not explicit and not scripts:
            scripts.append(word.inside)
        else:
            files.append(word.value)
    if not in_place:
        return False
    write.spans += [(start, end, f"{name} -i") for start, end in scripts]
    write.targets += files
    write.unknown |= not files
    return True


def _python(rest: list[Word], command: Command, write: Write) -> bool:
    """``python -c`` and ``python - <<EOF``: content if the script writes files; always text of the agent's own."""
    for index, word in enumerate(rest):
        if word.raw == "-c" and index + 1 < len(rest):
            code = rest[index + 1]
            _body(code.raw, write)
            write.spans.append((*code.inside, "python -c"))
            if write.script:
                write.spans += [(*more.inside, "python -c") for more in rest[index + 2 :] if more.is_quoted]
            return False
        if not word.raw.startswith("-"):
            return False
    if command.heredocs:
        write.spans += [(start, end, "python -") for start, end in command.heredocs]
    return False


def _line_editor(rest: list[Word], command: Command, write: Write) -> bool:
    """``ed -s file <<EOF``, ``ex -sc '...' file``, ``vim -c '...' file``."""
    write.spans += [(*word.inside, "ed") for word in rest if word.is_quoted]
    files = [word.value for word in rest if not word.is_quoted and not word.raw.startswith("-")]
    write.targets += files
    write.feeds += command.reads
    write.unknown |= not files
    return True


def _edit_tool(name: str, rest: list[Word], command: Command, write: Write) -> bool:
    """Command-line editing tools: the first word that is a path is the file, every longer argument is content."""
    values = [word.value for word in rest]
    if name.startswith("str_replace_") and values[:1] in (["view"], ["undo_edit"]):
        return False
    content, files = [], []
    previous = ""
    for word, value in zip(rest, values, strict=True):
        is_path = "\n" not in value and len(value) < 300 and not word.is_quoted and ("/" in value or "." in value)
        if previous in ("--path", "--file") or (is_path and not files and not previous.startswith("--")):
            files.append(value)
        elif not value.startswith("--") and (word.is_quoted or previous.startswith("--")):
            content.append((*word.inside, name))
        elif value.startswith("--") and "=" in value:
            content.append((word.start + value.index("=") + 1, word.end, name))
        elif not value.startswith("-") and len(value) > 12:
            content.append((*word.inside, name))
        previous = value if value.startswith("--") and "=" not in value else ""
    if not content and not command.heredocs and not files:
        return False
    write.spans += content
    write.targets += files
    write.unknown |= not files and not command.heredocs
    return True


def _body(text: str, write: Write) -> None:
    """Add what a heredoc or an inline script writes by itself."""
    if looks_like_diff(text):
        write.targets += diff_targets(text)
        write.script = True
        return
    inner = script_writes(text)
    if inner is not None:
        write.targets += inner.targets
        write.feeds += inner.feeds
        write.unknown |= inner.unknown
        write.script = True


def _printed(commands: list[Command], write: Write) -> None:
    """The arguments of ``echo``, ``printf`` and the like, when their output goes into a file."""
    taken = {span[0] for span in write.spans}
    for command in commands:
        name, rest, _ = _tool(command)
        for word in rest:
            start, end = word.inside
            if start in taken or not (word.is_quoted or name in ("echo", "printf")):
                continue
            if name in _COPIERS or name == "tee" or word.raw.startswith("-"):
                continue
            if name in _PRINTERS | {"awk", "gawk", "sed", "gsed", "tr", "python", "python3"}:
                write.spans.append((start, end, name))
                if name in ("echo", "printf"):
                    _body(word.raw, write)
