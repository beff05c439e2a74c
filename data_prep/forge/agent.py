"""A scripted agent that works on an issue in the scratch folder: every command is run, and its own output decides."""

from __future__ import annotations

import random
import shlex
from dataclasses import dataclass

from data_prep.forge import edits, wording
from data_prep.forge.base import Fix, Issue
from data_prep.forge.bugs import Check
from data_prep.forge.mutate import Mutation, apply, functions
from data_prep.forge.probe import Call
from data_prep.forge.record import SUBMIT, SYSTEM, answer, observation, task
from data_prep.forge.sandbox import Finished, Sandbox

_LONG_FILE = 400


@dataclass(frozen=True)
class Habits:
    """How often the agent takes the longer way, drawn per run."""

    wrong_first: float = 0.3
    gives_up: float = 0.12
    forgets_import: float = 0.15
    leaves_script: float = 0.06


class Agent:
    """Works on one issue; ``messages`` is the transcript."""

    def __init__(self, sandbox: Sandbox, issue: Issue, seed: str, habits: Habits | None = None) -> None:
        self.sandbox = sandbox
        self.issue = issue
        self.draw = random.Random(seed)
        self.habits = habits or Habits()
        self.path = issue.bug.function.path
        self.function = issue.bug.function
        self.script = self.draw.choice(("reproduce.py", "reproduce_issue.py", "repro.py", "check_issue.py", "demo.py"))
        self.messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": task(wording.issue(issue.bug, random.Random(f"{seed}/issue")))},
        ]

    def work(self) -> str:
        """Go through the issue and submit; returns the submitted diff."""
        self._explore()
        expected = self._reproduce()
        if self.draw.random() < 0.5:
            self._narrow()
        self._mend(expected)
        self._finish()
        return self.messages[-1]["content"]

    def _step(self, thought: str, command: str) -> Finished:
        done = self.sandbox.run(command)
        self.messages.append({"role": "assistant", "content": answer(thought, command)})
        self.messages.append({"role": "user", "content": observation(done)})
        return done

    def _go_on(self, key: str, command: str) -> None:
        """A step whose thought begins with what was seen before."""
        self._step(f"{self.seen} {self._say(key)}".strip(), command)
        self.seen = ""

    def _say(self, key: str, **values: object) -> str:
        known = {"name": self.function.name, "path": self.path, "package": self.path.split("/")[0]}
        return wording.say(key, self.draw, **(known | {"line": self.function.first} | values))

    def _chance(self, probability: float) -> bool:
        return self.draw.random() < probability

    # Looking around

    def _explore(self) -> None:
        package = self.path.split("/")[0]
        look = ["ls", f"ls {package}", f"git ls-files | head -n {self.draw.choice((30, 40, 60))}"]
        look.append("find . -name '*.py' -not -path './.git/*' | sort | head -n 50")
        self._step(self._say("look"), self.draw.choice(look))
        if self._chance(0.25):
            self._step(
                self._say("history"), self.draw.choice(("git log --oneline | head -n 5", "git log --stat | tail -n 5"))
            )
        found = ""
        if self._chance(0.25):
            text = self.issue.bug.checks[0].actual.text.strip("'\"")[:24].split("\n")[0]
            self._step(self._say("miss"), f"git grep -n -F -e {shlex.quote(text)} | head -n 10")
            found = self._say("missed") + " "
        name = self.function.name
        search = (
            f'grep -rn "def {name}" --include=*.py . | sort',
            f'git grep -n "def {name}("',
            f"grep -n 'def {name}' {self.path}",
            f"grep -rn --include='*.py' -e 'def {name}\\b' {package} | sort",
        )
        self._step(found + self._say("search"), self.draw.choice(search))
        self._read()
        if self._chance(0.4):
            self._step(
                self._say("usages"), f'git grep -n "{name}(" -- "*.py" | head -n {self.draw.choice((10, 15, 20))}'
            )

    def _read(self) -> None:
        before, after = self.draw.randrange(0, 8), self.draw.randrange(0, 12)
        first, last = max(1, self.function.first - before), self.function.last + after
        length = self.function.last - self.function.first + after
        ways = [
            f"sed -n '{first},{last}p' {self.path}",
            f"nl -ba {self.path} | sed -n '{first},{last}p'",
            f"cat -n {self.path} | sed -n '{first},{last}p'",
            f"grep -n -A {length} 'def {self.function.name}' {self.path}",
            f"head -n {last} {self.path} | tail -n {last - first + 1}",
        ]
        if self.issue.text.count("\n") < _LONG_FILE and self._chance(0.25):
            self._step(self._say("whole"), self.draw.choice((f"cat {self.path}", f"cat -n {self.path}")))
        else:
            self._step(self._say("read"), self.draw.choice(ways))

    # Seeing the problem

    def _reproduce(self) -> str:
        """Write the script and run it; returns what it prints once the bug is mended."""
        checks = list(self.issue.bug.checks[: self.draw.randint(1, 3)])
        calls = [check.call for check in checks]
        if self._chance(self.habits.forgets_import):
            self._write(self._say("reproduce"), calls, imports=False)
            self._step(self._say("run"), f"python {self.script}")
            self._write(self._say("name_error"), calls)
        else:
            self._write(self._say("reproduce"), calls)
        done = self._step(self._say("run"), self.draw.choice((f"python {self.script}", f"python3 {self.script}")))
        self.seen = self._say("seen", actual=_last_line(done.output))
        return "".join(f"{_printed(check)}\n" for check in checks)

    def _write(self, thought: str, calls: list[Call], imports: bool = True) -> None:
        body = _body(calls, imports, "").strip("\n")
        form = self.draw.choice(("cat <<'EOF' > {name}\n{body}\nEOF", "cat > {name} <<'EOF'\n{body}\nEOF"))
        self._step(thought, form.format(name=self.script, body=body))

    def _narrow(self) -> None:
        calls = [check.call for check in self.issue.bug.checks[1:3]] + [call for call, _ in self.issue.controls[:2]]
        if calls:
            self._go_on("narrow", f"python - <<'EOF'\n{_body(calls)}\nEOF")

    # Mending

    def _mend(self, expected: str) -> None:
        """A first idea, which may be wrong, and then the right one, unless the agent stays with the wrong one."""
        stays = self._chance(self.habits.gives_up)
        if stays or self._chance(self.habits.wrong_first):
            wrong = self._other_idea()
            if wrong is not None:
                done = self._try(wrong, self._guess(wrong))
                if done.output == expected:
                    self.seen = self._say("right", got=_last_line(done.output))
                    return
                got = {"got": _last_line(done.output), "expected": _last_line(expected)}
                if stays:
                    self.seen = f"{self._say('unsure', **got)} {self._say('give_up')}"
                    return
                back = self.draw.choice(
                    (f"git checkout -- {self.path}", f"git checkout {self.path} && git diff --stat")
                )
                self._step(self._say("wrong", **got), back)
                if self._chance(0.5):
                    self._read()
                self.seen = ""
        fix = self.issue.fix
        shown = " ".join(line.strip() for line in fix.removed) if len(fix.removed) == 1 else ""
        done = self._try(fix, wording.suspicion(self.issue.bug, fix.first, shown, self.draw))
        self.seen = self._say("right", got=_last_line(done.output))

    def _other_idea(self) -> Fix | None:
        """Some other small change in the function, near the bug."""
        lines = self.issue.text.split("\n")
        mended = self.issue.fix.on(self.issue.text)
        found: list[Mutation] = []
        for function, mutations in functions(self.path, self.issue.text):
            if function.qualname == self.function.qualname and function.first == self.function.first:
                found = [
                    m for m in mutations if m.first == m.last and m.kind not in ("missing return", "dropped branch")
                ]
        found = [m for m in found if apply(self.issue.text, [m]) != mended and "\n" not in m.new]
        if not found:
            return None
        found.sort(key=lambda m: (abs(m.first - self.issue.fix.first), m))
        idea = self.draw.choice(found[:6])
        changed = apply(self.issue.text, [idea]).split("\n")
        return Fix(idea.first, (lines[idea.first - 1],), (changed[idea.first - 1],))

    def _guess(self, idea: Fix) -> str:
        return self.draw.choice(
            (
                f"My first suspicion is line {idea.first}, `{idea.removed[0].strip()}`.",
                f"I would start with `{idea.removed[0].strip()}` on line {idea.first}.",
                f"Perhaps it is line {idea.first}: `{idea.removed[0].strip()}`. Let me change that and see.",
            )
        )

    def _try(self, fix: Fix, reason: str) -> Finished:
        """Make a change and run the script."""
        thought = f"{self.seen} {reason} {self._say('edit')}".strip()
        self.seen = ""
        for command in edits.commands(self.path, self.issue.text, fix, self.draw):
            self._step(thought, command)
            thought = self._say("apply")
        return self._step(self._say("again"), f"python {self.script}")

    # The end

    def _finish(self) -> None:
        controls = [call for call, _ in self.issue.controls[: self.draw.randint(1, 4)]]
        if controls and self._chance(0.6):
            self._go_on("others", f"python - <<'EOF'\n{_body(controls)}\nEOF")
        if self._chance(0.4):
            self._go_on("diff", self.draw.choice(("git diff", f"git diff -- {self.path}", "git diff --stat")))
        if not self._chance(self.habits.leaves_script):
            self._go_on("clean", f"rm {self.script}")
            if self._chance(0.3):
                self._step(self._say("status"), "git status --short")
        done = self.sandbox.run(SUBMIT)
        thought = f"{self.seen} {self._say('submit')}".strip() if "give" not in self.seen else self.seen
        self.messages.append({"role": "assistant", "content": answer(thought, SUBMIT)})
        self.messages.append({"role": "user", "content": done.output.partition("\n")[2]})


def _body(calls: list[Call], imports: bool = True, *between: str) -> str:
    """Statements that print what the calls give, errors included."""
    lines = sorted({line for call in calls for line in call.imports}) if imports else []
    attempts = [
        f"try:\n    result = {call.text}\n    print(repr(list(result) if hasattr(result, '__next__') else result))\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
        for call in calls
    ]
    return "\n".join([*lines, *between, *attempts])


def _printed(check: Check) -> str:
    """What the script prints for a check that is right."""
    if check.expected.kind == "value":
        return check.expected.text
    name, _, message = check.expected.text.partition(": ")
    return f"{name} {message}"


def _last_line(output: str) -> str:
    lines = [line for line in output.split("\n") if line.strip()]
    return lines[-1].strip()[:160] if lines else "nothing"
