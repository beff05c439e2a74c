"""Questions over a run whose answer follows from its steps by rule. A kind that cannot be asked says why.

Each kind is a function ``(steps, draw) -> Iterator[Question | Unasked]``; KINDS lists them. A question is only made
when its answer is the only one that the transcript supports, and does not stand in the question.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from data_prep.tasks.trace import Step

_LONGEST = 80
_GREP = re.compile(r"(?:^|[;&|(]\s*|\s)grep\s")
_SED = re.compile(r"^sed\s+-i\s")
_PATH = re.compile(r"[\w./+-]*\w\.\w{1,6}")
_CREATED = re.compile(
    r"^cat\s+(?:<<-?\s*['\"]?\w+['\"]?\s*>\s*([\w./+-]+)|>\s*([\w./+-]+)\s*<<-?\s*['\"]?\w+['\"]?)\s*$"
)
_FOUND = re.compile(r"(?P<path>[\w./+-]+\.\w{1,6})[:-](?P<line>\d+)[:-](?P<text>.*)")
_IN_FILE = re.compile(r"(?P<path>[\w./+-]+\.\w{1,6}):(?:\d+:)?(?P<text>.*)")
_NUMBERED = re.compile(r"(?P<line>\d+):(?P<text>.*)")
_DEFINITION = re.compile(r"\s*(?:async\s+)?(?P<what>def|class)\s+(?P<name>\w+)")
_SCRIPT = re.compile(r"^(?:\w+=\S+\s+)*(?:python3?|\./)\s*(?:-\w\s+\S+\s+)*(?P<script>[\w./-]+\.py)\b")
_LABELLED = re.compile(r"(?P<label>[A-Za-z][\w '()\[\]./-]{2,50}?)\s*[:=]\s+(?P<value>\S.*)")


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        kind: its name in KINDS.
        text: the question itself.
        answer: the only right one.
        form: what kind of thing the answer is, for the instruction.
        evidence: lines that must stay in the transcript, by step.
    """

    kind: str
    text: str
    answer: str
    form: str
    evidence: dict[int, tuple[str, ...]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Unasked:
    """Why a kind, or one question of it, is not asked."""

    kind: str
    reason: str


Asked = Iterator[Question | Unasked]


def first_failure(steps: list[Step], draw: random.Random) -> Asked:
    failed = [step.number for step in steps if step.code]
    if not failed:
        yield Unasked("first_failure", "no command failed")
    elif failed[0] == 1:
        yield Unasked("first_failure", "the answer is the first step")
    else:
        text = "In which step did a command fail (exit with a code other than 0) for the first time?"
        yield Question("first_failure", text, str(failed[0]), "the number of the step")


def failures(steps: list[Step], draw: random.Random) -> Asked:
    count = sum(step.code != 0 for step in steps)
    if not count:
        yield Unasked("failures", "no command failed")
    else:
        yield Question("failures", "How many steps ended with an exit code other than 0?", str(count), "a number")


def before_failure(steps: list[Step], draw: random.Random) -> Asked:
    failed = next((index for index, step in enumerate(steps) if step.code), 0)
    if not failed:
        yield Unasked("before_failure", "no command failed, or the first one did")
        return
    last = steps[failed - 1]
    program = last.command.strip().split()[0] if last.command.strip() else ""
    if "\n" in last.command.strip() or not 3 < len(last.line) <= _LONGEST or not re.match(r"\w", program):
        yield Unasked("before_failure", "the command is long or no single line")
    else:
        text = "What was the whole command of the step right before the first one that failed?"
        yield Question("before_failure", text, last.line, "the command", {last.number: (last.line,)})


def nth_exit_code(steps: list[Step], draw: random.Random) -> Asked:
    runs: dict[str, list[Step]] = defaultdict(list)
    for step in steps:
        match = _SCRIPT.match(step.line)
        if match and "\n" not in step.command.strip():
            runs[match["script"]].append(step)
    repeated = {script: found for script, found in runs.items() if len({step.code for step in found}) > 1}
    if not repeated:
        yield Unasked("nth_exit_code", "no script was run with different exit codes")
    for script, found in sorted(repeated.items()):
        named = [step for step in steps if script in step.command and step not in found and "<<" not in step.line]
        if any(re.search(rf"(?:python3?|\./)\S*\s*{re.escape(script)}", step.command) for step in named):
            yield Unasked("nth_exit_code", "it is not clear which steps run the script")
            continue
        # Most runs of most scripts end with 0; each code is asked for as often as any other.
        code = draw.choice(sorted({step.code for step in found}))
        place = draw.choice([index for index, step in enumerate(found) if step.code == code])
        text = f"What was the exit code of run number {place + 1} of the script {script}, counting from 1?"
        yield Question("nth_exit_code", text, str(found[place].code), "a number", {s.number: (s.line,) for s in found})


def script_runs(steps: list[Step], draw: random.Random) -> Asked:
    runs: Counter[str] = Counter()
    for step in steps:
        if match := _SCRIPT.match(step.line):
            runs[match["script"]] += 1
    several = sorted(script for script, count in runs.items() if count > 1)
    if not several:
        yield Unasked("script_runs", "no script was run twice")
    for script in several:
        mentions = [s for s in steps if re.search(rf"(?:^|[\s/]){re.escape(script)}\b", s.command)]
        starts = [s for s in mentions if (m := _SCRIPT.match(s.line)) and m["script"] == script]
        others = [s for s in mentions if s not in starts and re.search(r"python3?\b.*\.py\b|&&|;", s.command)]
        if others or any("\n" in s.command.strip() or "&&" in s.line or ";" in s.line for s in starts):
            yield Unasked("script_runs", "it is not clear which steps run the script")
            continue
        text = f"In how many steps was the script {script} run?"
        yield Question("script_runs", text, str(runs[script]), "a number", {s.number: (s.line,) for s in starts})


def printed(steps: list[Step], draw: random.Random) -> Asked:
    found = []
    for step in steps:
        if step.cut or not _SCRIPT.match(step.line):
            continue
        labels: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for line in step.lines:
            if match := _LABELLED.fullmatch(line):
                labels[match["label"]].append((match["value"].strip(), line))
        for label, values in sorted(labels.items()):
            value, line = values[0]
            if len(values) == 1 and len(value) <= _LONGEST and re.search(r"\w", value) and label.lower() != "file":
                if value.lower() not in label.lower() and step.output.count(f"{label}") == 1:
                    found.append((step, label, value, line))
    if not found:
        yield Unasked("printed", "no run of a script prints a line with one label")
        return
    step, label, value, line = draw.choice(found)
    text = f"Step {step.number} printed a line that begins with {label!r}. What stands behind the ':' or '=' in it?"
    yield Question("printed", text, value, "the text as printed", {step.number: (line,)})


def definition_file(steps: list[Step], draw: random.Random) -> Asked:
    places: dict[tuple[str, str], dict[str, tuple[int, str]]] = defaultdict(dict)
    for step in steps:
        if not _GREP.search(step.line):
            continue
        for line in step.lines:
            found = _IN_FILE.fullmatch(line)
            what = _DEFINITION.match(found["text"]) if found else None
            if found and what:
                path = found["path"].removeprefix("./")
                places[what["what"], what["name"]].setdefault(path, (step.number, line))
    if not places:
        yield Unasked("definition_file", "no search showed a definition with its file")
    choices = []
    for (what, name), paths in sorted(places.items()):
        path, (number, line) = next(iter(paths.items()))
        if len(paths) > 1:
            yield Unasked("definition_file", "the name is defined in several files")
        elif name.lower() in path.lower():
            yield Unasked("definition_file", "the file is named like the definition")
        else:
            choices.append((what, name, path, number, line))
    if choices:
        what, name, path, number, line = draw.choice(choices)
        noun = "class" if what == "class" else "function or method"
        text = f"A search in this run showed where the {noun} {name} is defined. In which file?"
        yield Question("definition_file", text, path, "the path of the file as shown", {number: (line,)})


def grep_line(steps: list[Step], draw: random.Random) -> Asked:
    found: dict[str, set[str]] = defaultdict(set)
    where: dict[str, tuple[Step, str]] = {}
    for step in steps:
        if not _GREP.search(step.line):
            continue
        for line in step.lines:
            match = _FOUND.fullmatch(line) or _NUMBERED.fullmatch(line)
            if match:
                text = match["text"].strip()
                found[text].add(match["line"])
                where.setdefault(text, (step, line))
    usable = []
    for text, numbers in sorted(found.items()):
        step, line = where[text]
        if not 8 <= len(text) <= _LONGEST or not re.search(r"[A-Za-z]{3}", text) or step.cut:
            continue
        if len(numbers) > 1:
            yield Unasked("grep_line", "the text was found at several lines")
        elif next(iter(numbers)) in re.findall(r"\d+", text):
            yield Unasked("grep_line", "the number stands in the text")
        elif sum(text in shown for shown in step.lines) == 1:
            usable.append((text, next(iter(numbers)), step, line))
    if not usable:
        yield Unasked("grep_line", "no search showed a text at one numbered line")
        return
    text, number, step, line = draw.choice(usable)
    asked = f"A search in this run found the line `{text}`. What is its line number in the file it was found in?"
    yield Question("grep_line", asked, number, "a number", {step.number: (line,)})


def first_sed(steps: list[Step], draw: random.Random) -> Asked:
    edits = [step for step in steps if _SED.match(step.line)]
    if not edits:
        yield Unasked("first_sed", "nothing was edited with sed -i")
        return
    path = edits[0].command.strip().split()[-1]
    paths = {edit.command.strip().split()[-1] for edit in edits}
    plain = _PATH.fullmatch(path) and not re.search(r"&&|\|\||;\s*sed", edits[0].command)
    hidden = [s for s in steps if s.number < edits[0].number and re.search(r"\bsed\b.*\s-i\b", s.command)]
    if not plain or hidden:
        yield Unasked("first_sed", "it is not clear which file came first")
    elif len(paths) == 1 and len(edits) == 1:
        yield Unasked("first_sed", "only one command edits with sed -i")
    else:
        shown = edits[0].command.strip().split("\n")
        text = "Which file did the first command that starts with `sed -i` edit?"
        yield Question("first_sed", text, path, "the path of the file", {edits[0].number: (shown[0], shown[-1])})


def created(steps: list[Step], draw: random.Random) -> Asked:
    names: dict[str, int] = {}
    for step in steps:
        if match := _CREATED.match(step.line):
            names.setdefault(match[1] or match[2], step.number)
    if len(names) < 2:
        yield Unasked("created", "fewer than two files were written with cat")
        return
    text = "How many different files were written with commands that start with `cat` and a here-document (<<)?"
    evidence = {step.number: (step.line,) for step in steps if _CREATED.match(step.line)}
    odd = [s for s in steps if re.match(r"cat\b", s.line) and "<<" in s.line and not _CREATED.match(s.line)]
    if odd:
        yield Unasked("created", "some here-document goes elsewhere")
    else:
        yield Question("created", text, str(len(names)), "a number", evidence)


def first_mention(steps: list[Step], draw: random.Random) -> Asked:
    first: dict[str, int] = {}
    times: Counter[str] = Counter()
    for step in steps:
        for path in set(_PATH.findall(step.command)):
            path = path.removeprefix("./")
            if "/" in path and path.endswith((".py", ".txt", ".cfg", ".toml", ".md", ".rst")):
                first.setdefault(path, step.number)
                times[path] += 1
    names = sorted(
        path for path, number in first.items() if number > 2 and sum(other.endswith(path) for other in first) == 1
    )
    if not names:
        yield Unasked("first_mention", "no file with a folder is named after the second step")
        return
    path = draw.choice(names)
    step = steps[first[path] - 1]
    holding = tuple(line for line in step.command.strip().split("\n") if path in line)
    text = f"Which step is the first one whose command names the file {path}?"
    yield Question("first_mention", text, str(first[path]), "the number of the step", {step.number: holding[:1]})


KINDS: dict[str, Callable[[list[Step], random.Random], Asked]] = {
    kind.__name__: kind
    for kind in (
        first_failure, failures, before_failure, nth_exit_code, script_runs, printed, definition_file, grep_line,
        first_sed, created, first_mention,
    )
}  # fmt: skip
