"""Rebuild the files of a repository from what a run shows of them, before its edits and after; nothing is executed.

Read: views (cat, nl, head, sed -n, grep -n, an editor tool's view) and edits (a heredoc or `cat >`, `sed -i`, editing
tools of the shell and by tool calls, `git checkout FILE`, mv, cp, rm). After any other command that may have changed a
file its text counts as lost until all of it is shown again. A rebuilt text can still be wrong where a program changed a
file without naming it; what is shown later then contradicts it, and it counts as lost.

So is the patch of a run recovered that does not carry one: best a whole `git diff` that the run printed after its last
edit, else the edits, replayed on the texts that it showed. If the text around an edit was never shown there is none: a
part would be a wrong answer. Left out as scratch work: new files at the top of the repository or outside of it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterable

from unidiff import PatchSet
from unidiff.errors import UnidiffParseError

from data_prep.trajectories.actions import Action, Output, actions_of
from data_prep.trajectories.partial_file import LostError, Text, run_sed, sed_arguments
from data_prep.trajectories.run import AgentRun
from data_prep.trajectories.shell import Command, pipelines
from data_prep.trajectories.views import printed_diff, shown_by, silent
from data_prep.trajectories.writes import (
    CONTENTS,
    EDIT_TOOLS,
    PATHS,
    diff_targets,
    program_of,
    stream_edit,
    tool_arguments,
)

_WRITES = re.compile(r"open\([^)\n]{0,200}['\"][wax]\+?b?\+?['\"]|write_text|\.write\(|os\.re(?:name|place)|fileinput")
_MANY = re.compile(r"\bglob|os\.walk|sys\.argv|rglob")
_ANYWHERE = re.compile(r"git (?:checkout|stash|reset|restore|apply|clean)|patch [-<]|cd /")
_TOOL_DID = re.compile(r"has been (?:edited|updated)|created successfully|Successfully|replaced|undone")
_TOOL_EDITS = ("str_replace", "insert", "create", "undo_edit")
# Claude Code's tools by what they do in words of the editor tool, and its names of arguments.
_VERBS = {"Edit": "str_replace", "Write": "create", "Read": "view"}
_OTHER_NAMES = {"old_string": "old_str", "new_string": "new_str", "content": "file_text"}
_ARROW = re.compile(r"^( *\d+)\u2192", re.M)
_VIEW_TITLE = re.compile(r"Here's the result of running `cat -n` on [^\n]{0,300}:\n")
_HARMLESS = frozenset(
    """
    cat nl head tail grep egrep fgrep rg ls find wc pytest diff cmp cd echo printf file stat md5sum sha1sum sort cut
    uniq test [ export which chmod touch mkdir pip awk gawk tox nosetests source .
    """.split()
) | {""}
_ROOTS = ("/testbed", "/workspace/repo", "/repo")
_SYSTEM = {"tmp", "usr", "etc", "opt", "var", "bin", "lib", "proc", "sys", "dev", "home", "root", "mnt"}
_UPLOADED = re.compile(r"<uploaded_files>\s{0,9}(/[^\s<]{1,200})\s{0,9}</uploaded_files>")


class Call:
    """A command of an action: its program and words, what the program gets for them, its heredocs' texts, whether it
    worked; ``operands`` are the arguments that are no options, empty where one depends on the shell."""

    def __init__(self, command: Command, action: Action, ok: bool) -> None:
        self.command, self.action, self.ok = command, action, ok
        self.name, self.words = program_of(command)
        self.arguments = [word.exact for word in self.words]
        self.operands = [word or "" for word in self.arguments if not (word or "").startswith("-")]
        self.heredocs = [action.script[slice(*span)] for span in command.heredocs]


class Workspace:
    """The files of one run; with ``only`` these and no others, much faster, as turns that cannot matter are not parsed.

    Attributes:
        files: texts by path below the repository.
        shown: every piece of two lines and more that was shown of a file, before and after edits, by path.
        shown_diff: the last whole `git diff` that was printed, if nothing was edited since; else empty.
    """

    def __init__(self, run: AgentRun, only: Collection[str] | None = None) -> None:
        self.files: dict[str, Text] = {}
        self.shown: dict[str, list[tuple[str, ...]]] = {}
        self.shown_diff = ""
        self._only = only
        self._scripts: dict[str, str] = {}
        self._run = run
        uploaded = (_UPLOADED.search(turn.content) for turn in run.messages[:3] if turn.role == "user")
        self._roots = [*_ROOTS, *(found[1].rstrip("/") for found in uploaded if found)]
        self._folder = ""
        self._names = {posixpath.basename(path) for path in only or ()}
        for action in actions_of(run, bool if only is None else self._matters):
            (self._follow if action.name == "bash" else self._tool)(action)

    def _matters(self, text: str) -> bool:
        """Whether a turn can show or change one of the files; scripts that write to them join their names."""
        return any(name in text for name in self._names) or _ANYWHERE.search(text) is not None

    def _follow(self, action: Action) -> None:
        code = action.output.code if action.output else 0
        if code is not None:
            self._folder = ""  # every command of mini-swe-agent starts in the repository's root
        found = pipelines(action.script)
        for pipeline in found:
            self._edit(pipeline, action, not code)
        printing = [pipeline for pipeline in found if not silent(pipeline)]
        if len(printing) == 1 and action.output and (not code or program_of(printing[0][0])[0] == "grep"):
            self._see(printing[0], action.output)

    def _see(self, pipeline: list[Command], output: Output) -> None:
        for shown in shown_by(pipeline, output):
            text = self._find(shown.path)
            if text is not None:
                if len(shown.lines) > 1:
                    self.shown.setdefault(self._below(shown.path) or "", []).append(shown.lines)
                text.see(shown.start, shown.lines, shown.to_end)
        if not output.cut and output.head.startswith("diff --git ") and printed_diff(pipeline):
            self.shown_diff = output.head

    def _below(self, path: str) -> str | None:
        """The path below the repository; None outside of it."""
        if path.startswith("/"):
            root = next((root for root in self._roots if path == root or path.startswith(root + "/")), None)
            if root is None:
                return None
            path = path[len(root) + 1 :]
        else:
            path = posixpath.join(self._folder, path)
        path = posixpath.normpath(path)
        return None if path.startswith("..") else path

    def _find(self, path: str | None, create: bool = True) -> Text | None:
        below = self._below(path) if path else None
        if below in (None, ".") or (self._only is not None and below not in self._only):
            return None
        if create:
            self.files.setdefault(below, Text())
        return self.files.get(below)

    def _change(self, path: str | None, edit: Callable[[Text], None], create: bool = True) -> None:
        """Edit a file that is followed; its text is lost where the effect cannot be known."""
        text = self._find(path, create)
        if text is None:
            return
        if "/" in self._below(path):
            self.shown_diff = ""
        try:
            edit(text)
        except LostError as error:
            text.lose(str(error))

    def _lose(self, paths: Iterable[str | None], why: str) -> None:
        for path in paths:
            self._change(path, lambda text: text.lose(why), create=False)

    def _lose_named(self, code: str, why: str, everything: bool = False) -> None:
        names = [path for path in self.files if everything or posixpath.basename(path) in code]
        self._lose((posixpath.join(self._roots[0], path) for path in names), why)

    def _edit(self, pipeline: list[Command], action: Action, ok: bool) -> None:
        for command in pipeline:
            call = Call(command, action, ok)
            for path, append in command.outputs.items():
                self._written(path, call, append)
            try:
                if call.name in _PROGRAMS:
                    _PROGRAMS[call.name](self, call)
                elif call.name not in _HARMLESS:
                    self._lose(call.arguments, f"changed by {call.name}")
            except LostError as error:
                self._lose(call.arguments, str(error))

    def _cd(self, call: Call) -> None:
        """An unknown absolute folder near the top that is no system folder is taken for the repository's."""
        path = call.operands[0] if call.operands else ""
        parts = path.strip("/").split("/")
        if path.startswith("/") and self._below(path) is None and len(parts) <= 2 and parts[0] not in _SYSTEM:
            self._roots.append(path.rstrip("/"))
        below = self._below(path) if path else self._folder
        self._folder = "" if below in (None, ".") else below

    def _sed(self, call: Call) -> None:
        edit = stream_edit(call.words)
        given = sed_arguments(edit) if edit.in_place else []

        def change(text: Text) -> None:
            if not call.ok:
                raise LostError("a command that failed may have changed it")
            run_sed(text, given)

        for word in edit.files if edit.in_place else ():
            self._change(word.exact, change)

    def _tee(self, call: Call) -> None:
        for path in call.operands:
            self._written(path, call, "-a" in call.arguments)

    def _written(self, path: str, call: Call, append: bool) -> None:
        below = self._below(path)
        if below is None:
            return
        exact = len(call.heredocs) == 1 and call.name in ("cat", "tee") and len(call.command.words) <= 2 and call.ok
        body = call.heredocs[0] if exact else ""
        if exact and not append:
            self._scripts[below] = body
            if self._only is not None and _WRITES.search(body):
                self._names.add(posixpath.basename(below))
        if self._find(path, create=False) is None and self._find(path) is not None:
            earlier = self._run.messages[2 : call.action.turn]
            self.files[below] = Text(any(below in turn.content for turn in earlier if turn.role == "user"))

        def write(text: Text) -> None:
            if not exact or (append and not text.known):
                raise LostError("written by a command whose output is not shown")
            text.write([*(text.lines if append else ()), *body.split("\n")])

        self._change(path, write)

    def _git(self, call: Call) -> None:
        kind, *named = call.operands or [""]
        back = kind in ("checkout", "restore")
        for path in named if back else ():
            self._change(path, Text.reset, create=False)
        if kind in ("stash", "clean", "apply") or "--hard" in call.arguments or (back and "." in named):
            self.shown_diff = ""
            for text in self.files.values():
                if text.edited:
                    text.lose(f"git {kind} may have changed it")
        if kind == "apply":
            self._lose_named(call.action.script, "changed by a patch")

    def _remove(self, call: Call) -> None:
        for below in map(self._below, call.operands):
            text = self.files.get(below or "")
            if text is not None and text.existed and any(line is not None for line in text.first):
                text.lose("removed")
            else:
                self.files.pop(below or "", None)

    def _move(self, call: Call) -> None:
        if len(call.operands) != 2:
            return
        source, target = self._find(call.operands[0], create=False), self._find(call.operands[1])
        if source is not None and source.known and target is not None:
            self._change(call.operands[1], lambda text: text.write(source.lines))
        elif target is not None:
            self._lose(call.operands[1:], f"written by {call.name} from a file that was not shown")
        if call.name == "mv" and source is not None:
            self._lose(call.operands[:1], "moved away")

    def _python(self, call: Call) -> None:
        code = " ".join(call.heredocs)
        first = next(iter(call.arguments), None)
        if first == "-c":
            code = call.words[1].raw if len(call.words) > 1 else ""
        elif first and first != "-":
            code = self._scripts.get(self._below(first) or "", "")
        if _WRITES.search(code):
            self._lose_named(code, "changed by a Python script", everything=bool(_MANY.search(code)))

    def _edit_tool(self, call: Call) -> None:
        if call.ok:  # such a tool changes nothing when it fails
            self._tool_edit({key: word.exact for key, word in tool_arguments(call.name, call.words)})

    def _tool(self, action: Action) -> None:
        """The editor tool of SWE-agent and its relatives, single-purpose tools of the same fields, Claude Code's."""
        given = {_OTHER_NAMES.get(key, key): value for key, value in action.arguments.items()}
        verb = given.setdefault("command", _VERBS[action.name]) if action.name in _VERBS else given.get("command")
        reply = action.output.head if action.output is not None else ""
        if verb == "view":
            title, path = _VIEW_TITLE.search(reply), next((given[key] for key in given if key in PATHS), "")
            if title or action.name in _VERBS:
                lines = reply[title.end() :] if title else _ARROW.sub(r"\1\t", reply)
                self._see(pipelines(f"cat -n '{path}'")[0], Output(None, lines, cut=True))
        elif verb is None and action.name and action.name not in EDIT_TOOLS and CONTENTS & given.keys():
            self._unknown([given[key] for key in given if key in PATHS], f"an edit by {action.name}")
        elif "patch" in given:
            self._unknown(diff_targets(given["patch"]), "a patch")
        elif _TOOL_DID.search(reply) or (verb or "str_replace") not in _TOOL_EDITS:
            self._tool_edit(given)  # the tool says so when it changed something

    def _unknown(self, paths: Iterable[str], what: str) -> None:
        for path in paths:
            self._change(path, lambda text: text.lose(f"{what}, which is not known here"))

    def _tool_edit(self, given: dict[str, str | None]) -> None:
        verb = given.get("command", "str_replace")

        def edit(text: Text) -> None:
            if None in given.values():
                raise LostError("an edit that depends on the shell")
            new = given.get("new_str", given.get("insert_text", ""))
            if verb == "str_replace":
                text.replace_once(given.get("old_str", ""), new)
            elif verb == "insert" and given.get("insert_line", "").strip().isdecimal():
                line = int(given["insert_line"])
                text.splice(line + 1, line, new.split("\n"))
            elif verb == "create":
                text.existed &= bool(text.lines)
                text.write(given.get("file_text", "").removesuffix("\n").split("\n"))
            else:
                raise LostError(f"an edit by {verb}, which is not known here")

        self._change(next((given[key] for key in given if key in PATHS), None), edit)


# What a program does to the files; one that is neither here nor harmless may have changed all that it names.
_PROGRAMS: dict[str, Callable[[Workspace, Call], None]] = {
    **dict.fromkeys(EDIT_TOOLS, Workspace._edit_tool),
    **dict.fromkeys(
        ("patch", "apply_patch"), lambda space, call: space._lose_named(call.action.script, "changed by a patch")
    ),
    **dict.fromkeys(("mv", "cp"), Workspace._move),
    **{"sed": Workspace._sed, "tee": Workspace._tee, "git": Workspace._git, "rm": Workspace._remove},
    **{"python": Workspace._python, "cd": Workspace._cd},
}


def replayed_patch(run: AgentRun) -> str:
    """The unified diff of a run's edits, empty where it could not be known."""
    workspace = Workspace(run)
    edited = {path: text for path, text in sorted(workspace.files.items()) if text.edited}
    edited = {path: text for path, text in edited.items() if text.existed or "/" in path}
    try:
        shown = {part.path for part in PatchSet(workspace.shown_diff)}
        if shown and all(path in shown for path, text in edited.items() if text.existed):
            return workspace.shown_diff
    except UnidiffParseError:
        pass  # nothing that could be trusted
    try:
        return "".join(text.diff(path) for path, text in edited.items())
    except LostError:
        return ""
