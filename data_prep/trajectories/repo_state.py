"""Rebuild the files of a repository from what a run shows of them, before its edits and after; nothing is executed.

Read: views (cat, nl, head, sed -n, grep -n, an editor tool's view) and edits (a heredoc or `cat >`, `sed -i`,
`edit_via_str_replace`, an editor tool's commands, `git checkout FILE`, mv, cp, rm). After any other command that may
have changed a file its text counts as lost until all of it is shown again. A rebuilt text can still be wrong where a
program changed a file without naming it; what is shown later then contradicts it, and it counts as lost.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterable

from data_prep.trajectories.actions import Action, Output, actions_of
from data_prep.trajectories.partial_file import LostError, Text
from data_prep.trajectories.run import AgentRun
from data_prep.trajectories.sed import run_sed, sed_arguments
from data_prep.trajectories.shell import Command, exact_value, pipelines
from data_prep.trajectories.views import printed_diff, program_of, shown_by, silent

_WRITES = re.compile(r"open\([^)\n]{0,200}['\"][wax]\+?b?\+?['\"]|write_text|\.write\(|os\.re(?:name|place)|fileinput")
_MANY = re.compile(r"\bglob|os\.walk|sys\.argv|rglob")
_EVERYWHERE = re.compile(r"git (?:checkout|stash|reset|restore|apply|clean)|\bpatch [-<]|\bcd /")
_TEMPORARY = re.compile(r"git stash|git reset --hard|git clean|git checkout \.|git checkout -- \.|git apply|\bpatch\b")
_ALL_FILES = re.compile(r"git checkout (?:-b|\w+$)|git (?:checkout|restore) \.")
_TOOL_DID = re.compile(r"has been edited|created successfully|Successfully|replaced|undone")
_SETTING = re.compile(r"[A-Za-z_]\w*=")
_VIEW_TITLE = re.compile(r"Here's the result of running `cat -n` on [^\n]{0,300}:\n")
_HARMLESS = frozenset(
    """
    cat nl head tail grep egrep fgrep rg ls find wc git pytest diff cmp cd echo printf file stat md5sum sha1sum sort cut
    uniq test [ export which sed chmod touch python python3 mkdir pip awk xargs env timeout time tox nosetests source .
    """.split()
)
_ROOTS = ("/testbed", "/workspace/repo", "/repo")
_SYSTEM = {"tmp", "usr", "etc", "opt", "var", "bin", "lib", "proc", "sys", "dev", "home", "root", "mnt"}
_UPLOADED = re.compile(r"<uploaded_files>\s{0,9}(/[^\s<]{1,200})\s{0,9}</uploaded_files>")


class Folders:
    """Where the repository is and where the shell stands."""

    def __init__(self, run: AgentRun) -> None:
        uploaded = (_UPLOADED.search(turn.content) for turn in run.messages[:3] if turn.role == "user")
        self._roots = [*_ROOTS, *(found[1].rstrip("/") for found in uploaded if found)]
        self._here = ""

    def below(self, path: str) -> str | None:
        """The path below the repository; None outside of it."""
        if path.startswith("/"):
            root = next((root for root in self._roots if path == root or path.startswith(root + "/")), None)
            if root is None:
                return None
            path = path[len(root) + 1 :]
        else:
            path = posixpath.join(self._here, path)
        path = posixpath.normpath(path) if path else "."
        return None if path.startswith("..") else path

    def home(self) -> None:
        """Back to the repository's root, where every command of mini-swe-agent starts."""
        self._here = ""

    def change(self, path: str) -> None:
        """`cd`. An unknown absolute folder near the top that is no system folder is taken for the repository's."""
        below = self.below(path)
        parts = path.strip("/").split("/")
        if below is None and path.startswith("/") and len(parts) <= 2 and parts[0] not in _SYSTEM:
            self._roots.append(path.rstrip("/"))
        self._here = "" if below in (None, ".") else below or ""


class Workspace:
    """The files of one run.

    Attributes:
        files: texts by path below the repository.
        shown: every piece of two lines and more that was shown of a file, before and after edits, by path.
        shown_diff: the last whole `git diff` that was printed, if nothing was edited since; else empty.
    """

    def __init__(self, run: AgentRun, only: Collection[str] | None = None) -> None:
        """Follow a run.

        Args:
            only: follow these files and no others; much faster, as turns that cannot matter are not parsed.
        """
        self.files: dict[str, Text] = {}
        self.shown: dict[str, list[tuple[str, ...]]] = {}
        self.shown_diff = ""
        self._only = frozenset(only) if only is not None else None
        self._scripts: dict[str, str] = {}
        self._run = run
        self._folders = Folders(run)
        self._names = {posixpath.basename(path) for path in only or ()}
        for action in actions_of(run, None if only is None else self._matters):
            self._follow(action)

    def text(self, path: str) -> Text | None:
        """The text followed under a path of the repository."""
        return self.files.get(path)

    def _matters(self, text: str) -> bool:
        """Whether a turn can show or change one of the files; scripts that write to them join their names."""
        return any(name in text for name in self._names) or (
            ("git " in text or "patch " in text or "cd /" in text) and _EVERYWHERE.search(text) is not None
        )

    def _follow(self, action: Action) -> None:
        if action.name != "bash":
            self._tool(action)
            return
        if action.output is None or action.output.code is not None:
            self._folders.home()
        ok = action.output is None or action.output.code in (0, None)
        found = pipelines(action.script)
        printing = [pipeline for pipeline in found if not silent(pipeline)]
        for pipeline in found:
            self._edit(pipeline, action, ok)
        if len(printing) == 1 and action.output is not None and (ok or program_of(printing[0]) == "grep"):
            self._see(printing[0], action.output)

    def _see(self, pipeline: list[Command], output: Output) -> None:
        for shown in shown_by(pipeline, output):
            text = self._find(shown.path)
            if text is not None:
                if len(shown.lines) > 1:
                    self.shown.setdefault(self._folders.below(shown.path) or "", []).append(shown.lines)
                text.see(shown.start, shown.lines, shown.to_end)
        if not output.cut and output.head.startswith("diff --git ") and printed_diff(pipeline):
            self.shown_diff = output.head

    def _find(self, path: str, create: bool = True) -> Text | None:
        below = self._folders.below(path)
        if below is None or below == "." or (self._only is not None and below not in self._only):
            return None
        if below not in self.files and create:
            self.files[below] = Text()
        return self.files.get(below)

    def _edit(self, pipeline: list[Command], action: Action, ok: bool) -> None:
        for command in pipeline:
            words = [exact_value(word.raw) for word in command.words]
            while words and words[0] is not None and _SETTING.match(words[0]):
                words = words[1:]
            if words[:1] == ["cd"] and len(words) > 1 and words[1]:
                self._folders.change(words[1])
                continue
            for path in command.outputs:
                self._written(path, command, action, ok)
            try:
                self._program(words[0] if words else None, words[1:], command, action, ok)
            except LostError as error:
                self._lose(words[1:], str(error))

    def _change(self, path: str | None, edit: Callable[[Text], None], create: bool = True) -> None:
        """Edit a file that is followed; its text is lost where the effect cannot be known."""
        text = self._find(path, create) if path else None
        if text is None or path is None:
            return
        self._changed(path)
        try:
            edit(text)
        except LostError as error:
            text.lose(str(error))

    def _changed(self, path: str) -> None:
        if "/" in (self._folders.below(path) or ""):
            self.shown_diff = ""

    def _lose(self, paths: Iterable[str | None], why: str) -> None:
        for path in paths:
            self._change(path, lambda text: text.lose(why), create=False)

    def _lose_named(self, code: str, why: str, everything: bool = False) -> None:
        for path, text in self.files.items():
            if everything or posixpath.basename(path) in code:
                self._changed(path)
                text.lose(why)

    def _program(
        self, name: str | None, arguments: list[str | None], command: Command, action: Action, ok: bool
    ) -> None:
        if name == "sed" and any((word or "").startswith(("-i", "--in-place")) for word in arguments):
            given, files = sed_arguments(arguments)
            if ok:
                for path in files:
                    self._change(path, lambda text: run_sed(text, given))
            else:
                self._lose(
                    [path for path in files if path and self._find(path)], "a command that failed may have changed it"
                )
        elif name == "edit_via_str_replace":
            if ok:  # the tool changes nothing when it fails
                self._replace(arguments)
        elif name == "tee":
            for word in arguments:
                if word and not word.startswith("-"):
                    self._written(word, command, action, ok, append="-a" in arguments)
        elif name == "git":
            self._git(arguments, action.script)
        elif name in ("mv", "cp", "rm"):
            self._move(name, [word or "" for word in arguments if not (word or "").startswith("-")])
        elif name in ("python", "python3"):
            self._python(arguments, command, action.script)
        elif name not in _HARMLESS:
            self._lose(arguments, f"changed by {name}")
            if name == "patch":
                self._lose_named(action.script, "changed by a patch")

    def _written(self, path: str, command: Command, action: Action, ok: bool, append: bool = False) -> None:
        script = action.script
        body = script[slice(*command.heredocs[0])] if len(command.heredocs) == 1 else None
        append = append or re.search(r">>\s*['\"]?" + re.escape(path), script) is not None
        below = self._folders.below(path)
        from_cat = bool(command.words) and command.words[0].raw in ("cat", "tee") and len(command.words) <= 2
        if below is not None and body is not None and from_cat and ok and not append:
            self._scripts[below] = body
            if self._only is not None and _WRITES.search(body):
                self._names.add(posixpath.basename(below))
        if below is not None and self._find(path, create=False) is None and self._find(path) is not None:
            earlier = self._run.messages[2 : action.turn]
            self.files[below] = Text(any(below in turn.content for turn in earlier if turn.role == "user"))

        def write(text: Text) -> None:
            if body is None or not from_cat or not ok or (append and not text.known):
                raise LostError("written by a command whose output is not shown")
            text.write([*(line or "" for line in text.lines if append), *body.split("\n")])

        self._change(path, write)

    def _replace(self, arguments: list[str | None]) -> None:
        given = list(arguments)
        while given and given[0] and given[0].startswith("-"):
            del given[0]

        def replace(text: Text) -> None:
            if len(given) < 3 or given[1] is None or given[2] is None:
                raise LostError("a replacement that depends on the shell")
            text.replace_once(given[1], given[2])

        self._change(given[0] if given else None, replace)

    def _git(self, arguments: list[str | None], script: str) -> None:
        kind = next((word for word in arguments if word and not word.startswith("-")), "")
        if kind in ("checkout", "restore") and not _ALL_FILES.search(script):
            for word in arguments:
                self._change(word, Text.reset, create=False)
        elif _TEMPORARY.search(script) and kind in ("stash", "reset", "clean", "checkout", "restore", "apply"):
            self.shown_diff = ""
            for text in self.files.values():
                if text.edited:
                    text.lose(f"git {kind} may have changed it")
            if kind == "apply":
                self._lose_named(script, "changed by a patch")

    def _move(self, name: str, paths: list[str]) -> None:
        if name == "rm":
            for below in map(self._folders.below, paths):
                text = self.files.get(below or "")
                if text is not None and text.existed and any(line is not None for line in text.first):
                    text.lose("removed")
                elif below is not None:
                    self.files.pop(below, None)
            return
        if len(paths) == 2:
            source = self._find(paths[0], create=False)

            def write(text: Text) -> None:
                if source is None or not source.known:
                    raise LostError(f"written by {name} from a file that was not shown")
                text.write([line or "" for line in source.lines])

            self._change(paths[1], write)
            if name == "mv" and source is not None:
                self._lose(paths[:1], "moved away")

    def _python(self, arguments: list[str | None], command: Command, script: str) -> None:
        code = " ".join(script[slice(*span)] for span in command.heredocs)
        if arguments and arguments[0] == "-c":
            code = command.words[2].raw if len(command.words) > 2 else ""
        elif arguments and arguments[0] and arguments[0] != "-":
            code = self._scripts.get(self._folders.below(arguments[0]) or "", "")
        if code and _WRITES.search(code):
            self._lose_named(code, "changed by a Python script", everything=bool(_MANY.search(code)))

    def _tool(self, action: Action) -> None:
        """The editor tool of SWE-agent and its relatives, and single-purpose tools of the same fields."""
        given = action.arguments
        path = given.get("path") or given.get("file_path") or ""
        if not path or self._find(path) is None:
            return
        reply = action.output.head if action.output is not None else ""
        verb = given.get("command") or ("str_replace" if "old_str" in given else "")
        if verb == "view":
            title = _VIEW_TITLE.search(reply)
            if title:
                self._see(pipelines(f"cat -n '{path}'")[0], Output(None, reply[title.end() :], cut=True))
            return
        if verb in ("str_replace", "insert", "create", "undo_edit") and not _TOOL_DID.search(reply):
            return  # the tool says so when it changed something

        def edit(text: Text) -> None:
            line = given.get("insert_line", "").strip()
            if verb == "str_replace":
                text.replace_once(given.get("old_str", ""), given.get("new_str", ""))
            elif verb == "insert" and line.isdigit():
                new = given.get("new_str", given.get("insert_text", ""))
                text.splice(int(line) + 1, int(line), new.split("\n"))
            elif verb == "create":
                if not text.lines:
                    text.existed = False
                text.write(given.get("file_text", "").removesuffix("\n").split("\n"))
            else:
                raise LostError(f"{action.name} {verb} is not known here")

        self._change(path, edit)
