"""A scripted agent that works on an issue in a box: every command is run, and its own output decides."""

from __future__ import annotations

import difflib
import random
from collections.abc import Sequence
from typing import NamedTuple

from contextrl_verl.agents.task import Call
from contextrl_verl.sandbox.box import Finished
from data_prep.forge import wording
from data_prep.forge.bugs import Check, Fix, Issue, same_ends
from data_prep.forge.mutate import apply, functions
from data_prep.forge.workplace import Workplace

_LONG_FILE = 400


class Habits(NamedTuple):
    """How often the agent takes the longer way."""

    wrong_first: float = 0.3
    gives_up: float = 0.12
    forgets_import: float = 0.15
    leaves_script: float = 0.06


class Agent:
    """Works on one issue; ``messages`` is the transcript. Attempts of one seed get the same report of the issue."""

    def __init__(
        self, place: Workplace, issue: Issue, seed: str, habits: Habits | None = None, attempt: int = 0
    ) -> None:
        self.place, self.issue, self.habits = place, issue, habits or Habits()
        self.draw = random.Random(f"{seed}/attempt {attempt}" if attempt else seed)
        self.function = issue.function
        self.path, self.name = self.function.path, self.function.name
        self.script = self.draw.choice(("reproduce.py", "reproduce_issue.py", "check_issue.py", "demo.py"))
        self.seen, self.end = "", "submit"  # what the next thought begins with, and the last thought
        self.messages = [
            {"role": "system", "content": wording.SYSTEM},
            {"role": "user", "content": wording.task(issue, random.Random(f"{seed}/issue"))},
        ]

    def work(self) -> str:
        """Go through the issue and submit; returns the submitted diff."""
        self._explore()
        expected = self._reproduce()
        self._mend(expected)
        self._finish()
        return self.messages[-1]["content"]

    def _say(self, key: str, **values: object) -> str:
        known = {"name": self.name, "path": self.path, "package": self.path.split("/")[0], "line": self.function.first}
        return wording.say(key, self.draw, **(known | values))

    def _chance(self, probability: float) -> bool:
        return self.draw.random() < probability

    def _step(self, thought: str, *commands: str) -> Finished:
        """Run one of some commands; ``thought`` is a key of the wording or a sentence."""
        command = self.draw.choice(commands)
        thought = thought if " " in thought else self._say(thought)
        done = self.place.run(command)
        content = f"THOUGHT: {f'{self.seen} {thought}'.strip()}\n\n```bash\n{command}\n```"
        self.messages.append({"role": "assistant", "content": content})
        self.messages.append({"role": "user", "content": wording.observation(done)})
        self.seen = ""
        return done

    def _explore(self) -> None:
        package, name = self.path.split("/")[0], self.name
        self._step(
            "look", "ls", f"ls {package}", "git ls-files | head -n 40", "find . -name '*.py' | sort | head -n 50"
        )
        self._step(
            "search",
            f'grep -rn "def {name}" --include=*.py . | sort',
            f'git grep -n "def {name}("',
            f"grep -n 'def {name}' {self.path}",
            f"grep -rn --include='*.py' -e 'def {name}\\b' {package} | sort",
        )
        self._read()
        if self._chance(0.4):
            self._step("usages", *(f'git grep -n "{name}(" -- "*.py" | head -n {count}' for count in (10, 15, 20)))

    def _read(self) -> None:
        if self.issue.text.count("\n") < _LONG_FILE and self._chance(0.25):
            self._step("whole", f"cat {self.path}", f"cat -n {self.path}")
            return
        first, after = max(1, self.function.first - self.draw.randrange(0, 8)), self.draw.randrange(0, 12)
        last = self.function.last + after
        self._step(
            "read",
            f"sed -n '{first},{last}p' {self.path}",
            f"nl -ba {self.path} | sed -n '{first},{last}p'",
            f"cat -n {self.path} | sed -n '{first},{last}p'",
            f"grep -n -A {last - self.function.first} 'def {self.name}' {self.path}",
            f"head -n {last} {self.path} | tail -n {last - first + 1}",
        )

    def _reproduce(self) -> str:
        """Write the script, run it, and perhaps try more calls; returns what it prints once the bug is mended."""
        checks = self.issue.checks
        chosen = checks[: self.draw.randint(1, 3)]
        calls = [check.call for check in chosen]
        thought, write = "reproduce", f"cat <<'EOF' > {self.script}\n%s\nEOF"
        if self._chance(self.habits.forgets_import):
            self._step(thought, write % _attempts(calls))
            self._step("run", f"python {self.script}")
            thought = "name_error"
        self._step(thought, write % _body(calls))
        done = self._step("run", f"python {self.script}", f"python3 {self.script}")
        self.seen = self._say("seen", got=_last_line(done.output))
        if self._chance(0.5):
            others = [check.call for check in checks[1:3]] + [call for call, _ in self.issue.controls[:2]]
            self._try_calls("narrow", others)
        return "".join(f"{_printed(check)}\n" for check in chosen)

    def _try_calls(self, thought: str, calls: Sequence[Call]) -> None:
        if calls:
            self._step(thought, f"python - <<'EOF'\n{_body(calls)}\nEOF")

    def _mend(self, expected: str) -> None:
        """A first idea, which may be wrong, and then the right one, unless the agent stays with the wrong one."""
        stays = self._chance(self.habits.gives_up)
        wrong = self._other_idea() if stays or self._chance(self.habits.wrong_first) else None
        if wrong is not None:
            done = self._try(wrong, self._say("guess", line=wrong.first, quote=wrong.removed[0].strip()))
            got = {"got": _last_line(done.output), "expected": _last_line(expected)}
            if done.output == expected:
                self.seen = self._say("right", **got)
                return
            if stays:
                self.end = self._say("give_up", **got)
                return
            self._step(
                self._say("wrong", **got), f"git checkout -- {self.path}", f"git checkout {self.path} && git diff"
            )
            if self._chance(0.5):
                self._read()
        fix = self.issue.fix
        quote = fix.removed[0].strip() if len(fix.removed) == 1 else ""
        done = self._try(fix, wording.suspicion(self.issue.kind, fix.first, quote, self.draw))
        self.seen = self._say("right", got=_last_line(done.output))

    def _other_idea(self) -> Fix | None:
        """Some other small change in the function, near the bug."""
        text, fix = self.issue.text, self.issue.fix
        lines, mended = text.split("\n"), fix.on(text)
        ideas = [
            (abs(mutation.first - fix.first), mutation)
            for function, mutations in functions(self.path, text)
            for mutation in mutations
            if (function.qualname, function.first) == (self.function.qualname, self.function.first)
            and mutation.first == mutation.last
            and mutation.kind not in ("missing return", "dropped branch")
            and apply(text, [mutation]) != mended
        ]
        if not ideas:
            return None
        _, idea = self.draw.choice(sorted(ideas)[:6])
        return Fix(idea.first, (lines[idea.first - 1],), (apply(text, [idea]).split("\n")[idea.first - 1],))

    def _try(self, fix: Fix, reason: str) -> Finished:
        """Make a change and run the script."""
        thought = f"{reason} {self._say('edit')}"
        for command in _edits(self.path, self.issue.text, fix, self.draw):
            self._step(thought, command)
            thought = "apply"
        return self._step("again", f"python {self.script}")

    def _finish(self) -> None:
        if self._chance(0.6):
            self._try_calls("others", [call for call, _ in self.issue.controls[: self.draw.randint(1, 4)]])
        if self._chance(0.4):
            self._step("diff", "git diff", f"git diff -- {self.path}", "git diff --stat")
        if not self._chance(self.habits.leaves_script):
            self._step("clean", f"rm {self.script}")
        done = self._step(self.end, wording.SUBMIT)
        self.messages[-1]["content"] = done.output.partition("\n")[2]


def _body(calls: Sequence[Call]) -> str:
    return "\n".join([*sorted({line for call in calls for line in call.imports}), _attempts(calls)])


def _attempts(calls: Sequence[Call]) -> str:
    """Statements that print what the calls give, errors included."""
    return "\n".join(
        f"try:\n    result = {call.text}\n    print(repr(list(result) if hasattr(result, '__next__') else result))\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
        for call in calls
    )


def _printed(check: Check) -> str:
    """What the script prints for a check that is right."""
    if check.expected.kind == "value":
        return check.expected.text
    name, _, message = check.expected.text.partition(": ")
    return f"{name} {message}"


def _last_line(output: str) -> str:
    lines = output.strip().split("\n")
    return lines[-1].strip()[:160] or "nothing"


def _edits(path: str, text: str, fix: Fix, draw: random.Random) -> list[str]:
    """One or two commands that make the change, in a way drawn at random from those that can."""
    ways = [_substituted(path, fix), _substituted(path, fix), _patch(path, text, fix)]
    script = _script(path, text, fix)
    if script:
        ways.append([f"python - <<'EOF'\n{script}\nprint(\"replaced\")\nEOF"])
        ways.append([f"cat <<'EOF' > apply_fix.py\n{script}\nEOF", "python apply_fix.py && rm apply_fix.py"])
    return draw.choice([way for way in ways if way])


def _substituted(path: str, fix: Fix) -> list[str]:
    """``sed -i 's/old/new/'`` on one line, with the shortest piece that is found first in the line."""
    if len(fix.removed) != 1 or len(fix.added) != 1 or "'" in fix.removed[0] + fix.added[0]:
        return []
    (old,), (new,) = fix.removed, fix.added
    start, end = same_ends(old, new)
    # Whole words around the difference; sed replaces the first occurrence, which must be this one.
    while start > 0 and (old[start - 1].isalnum() or old[start - 1] == "_" or start + end >= len(old)):
        start -= 1
    while end > 0 and (old[-end].isalnum() or old[-end] == "_"):
        end -= 1
    while old.find(old[start : len(old) - end]) != start and start > 0:
        start -= 1
    piece, instead = old[start : len(old) - end], new[start : len(new) - end]
    if not piece or old.replace(piece, instead, 1) != new:
        return []
    return [f"sed -i '{fix.first}s/{_escaped(piece, '/.*[]^$')}/{_escaped(instead, '/&')}/' {path}"]


def _escaped(text: str, special: str) -> str:
    return "".join("\\" + letter if letter in "\\" + special else letter for letter in text)


def _patch(path: str, text: str, fix: Fix) -> list[str]:
    """``git apply`` of a diff."""
    before, after = ([line + "\n" for line in version.split("\n")[:-1]] for version in (text, fix.on(text)))
    diff = "".join(difflib.unified_diff(before, after, f"a/{path}", f"b/{path}"))
    return [f"cat <<'EOF' > fix.patch\n{diff}EOF", "git apply fix.patch && rm fix.patch"]


def _script(path: str, text: str, fix: Fix) -> str:
    """A script that replaces the lines, with as many neighbours as make them unique in the file; empty if none do."""
    lines = text.split("\n")
    start, stop = fix.first - 1, fix.first - 1 + len(fix.removed)
    for around in range(0 if fix.removed else 1, 6):
        low, high = max(0, start - around), min(len(lines), stop + around)
        blocks = lines[low:high], [*lines[low:start], *fix.added, *lines[stop:high]]
        old, new = ("".join(line + "\n" for line in block) for block in blocks)
        if text.count(old) == 1:
            for quotes in ('"""', "'''"):
                if all(quotes not in part and "\\" not in part and part[:1] != quotes[0] for part in (old, new)):
                    return (
                        f'from pathlib import Path\n\npath = Path("{path}")\ntext = path.read_text()\n'
                        f"old = {quotes}{old}{quotes}\nnew = {quotes}{new}{quotes}\n"
                        "assert text.count(old) == 1\npath.write_text(text.replace(old, new))"
                    )
            return ""
    return ""
