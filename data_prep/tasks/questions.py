"""Questions over a run whose answer follows from its steps by rule. A kind that cannot be asked says why.

Each kind is a function of the steps and a source of chance that gives questions and reasons for not asking; KINDS lists
them. A question is only made when its answer is the only one that the transcript supports, and does not stand in the
question.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from data_prep.tasks.transcript import Step

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
_UNCLEAR = "it is not clear which steps run the script"


@dataclass(frozen=True)
class Question:
    """One question with its only right answer, and what kind of thing that is, for the instruction.

    ``evidence``: lines that must stay in the transcript, by step.
    """

    text: str
    answer: str
    form: str
    evidence: dict[int, tuple[str, ...]] = field(default_factory=dict, hash=False)


# A string is the reason why a kind, or one question of it, is not asked.
Asked = Iterator[Question | str]


def first_failure(steps: list[Step], draw: random.Random) -> Asked:
    failed = [step.number for step in steps if step.code]
    text = "In which step did a command fail (exit with a code other than 0) for the first time?"
    if not failed or failed[0] == 1:
        yield "the answer is the first step" if failed else "no command failed"
    else:
        yield Question(text, str(failed[0]), "the number of the step")


def failures(steps: list[Step], draw: random.Random) -> Asked:
    count = sum(step.code != 0 for step in steps)
    text = "How many steps ended with an exit code other than 0?"
    yield Question(text, str(count), "a number") if count else "no command failed"


def before_failure(steps: list[Step], draw: random.Random) -> Asked:
    failed = next((index for index, step in enumerate(steps) if step.code), 0)
    last = steps[failed - 1] if failed else None
    text = "What was the whole command of the step right before the first one that failed?"
    if last is None:
        yield "no command failed, or the first one did"
    elif last.several or not 3 < len(last.line) <= _LONGEST or not re.match(r"\w", last.line):
        yield "the command is long or no single line"
    else:
        yield Question(text, last.line, "the command", _shown(last))


def nth_exit_code(steps: list[Step], draw: random.Random) -> Asked:
    runs = {script: [step for step in found if not step.several] for script, found in _runs(steps).items()}
    repeated = {script: found for script, found in runs.items() if len({step.code for step in found}) > 1}
    if not repeated:
        yield "no script was run with different exit codes"
    for script, found in sorted(repeated.items()):
        others = [step.command for step in steps if step not in found and "<<" not in step.line]
        if any(re.search(rf"(?:python3?|\./)\S*\s*{re.escape(script)}", command) for command in others):
            yield _UNCLEAR
            continue
        # Most runs of most scripts end with 0; each code is asked for as often as any other.
        code = draw.choice(sorted({step.code for step in found}))
        place = draw.choice([index for index, step in enumerate(found) if step.code == code])
        text = f"What was the exit code of run number {place + 1} of the script {script}, counting from 1?"
        yield Question(text, str(found[place].code), "a number", _shown(*found))


def script_runs(steps: list[Step], draw: random.Random) -> Asked:
    several = {script: found for script, found in sorted(_runs(steps).items()) if len(found) > 1}
    if not several:
        yield "no script was run twice"
    for script, starts in several.items():
        named = re.compile(rf"(?:^|[\s/]){re.escape(script)}\b")
        others = [step.command for step in steps if step not in starts and named.search(step.command)]
        more = any(step.several or "&&" in step.line or ";" in step.line for step in starts)
        text = f"In how many steps was the script {script} run?"
        if more or any(re.search(r"python3?\b.*\.py\b|&&|;", command) for command in others):
            yield _UNCLEAR
        else:
            yield Question(text, str(len(starts)), "a number", _shown(*starts))


def printed(steps: list[Step], draw: random.Random) -> Asked:
    found = []
    for step in steps:
        if step.cut or not _SCRIPT.match(step.line):
            continue
        labels: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for line in step.lines:
            if match := _LABELLED.fullmatch(line):
                labels[match["label"]].append((match["value"].strip(), line))
        for label, [(value, line), *others] in sorted(labels.items()):
            plain = not others and len(value) <= _LONGEST and re.search(r"\w", value) and label.lower() != "file"
            if plain and value.lower() not in label.lower() and step.output.count(label) == 1:
                text = (
                    f"Step {step.number} printed a line that begins with {label!r}. What stands behind the ':' or '='"
                )
                found.append(Question(f"{text} in it?", value, "the text as printed", {step.number: (line,)}))
    yield draw.choice(found) if found else "no run of a script prints a line with one label"


def definition_file(steps: list[Step], draw: random.Random) -> Asked:
    places: dict[tuple[str, str], dict[str, tuple[int, str]]] = defaultdict(dict)
    for step, line in _searched(steps):
        found = _IN_FILE.fullmatch(line)
        if found and (what := _DEFINITION.match(found["text"])):
            path = found["path"].removeprefix("./")
            places[what["what"], what["name"]].setdefault(path, (step.number, line))
    if not places:
        yield "no search showed a definition with its file"
    choices = []
    for (what, name), paths in sorted(places.items()):
        path, (number, line) = next(iter(paths.items()))
        noun = "class" if what == "class" else "function or method"
        text = f"A search in this run showed where the {noun} {name} is defined. In which file?"
        if len(paths) > 1:
            yield "the name is defined in several files"
        elif name.lower() in path.lower():
            yield "the file is named like the definition"
        else:
            choices.append(Question(text, path, "the path of the file as shown", {number: (line,)}))
    if choices:
        yield draw.choice(choices)


def grep_line(steps: list[Step], draw: random.Random) -> Asked:
    found: dict[str, set[str]] = defaultdict(set)
    where: dict[str, tuple[Step, str]] = {}
    for step, line in _searched(steps):
        if match := _FOUND.fullmatch(line) or _NUMBERED.fullmatch(line):
            text = match["text"].strip()
            found[text].add(match["line"])
            where.setdefault(text, (step, line))
    usable = []
    for text, numbers in sorted(found.items()):
        step, line = where[text]
        if not 8 <= len(text) <= _LONGEST or not re.search(r"[A-Za-z]{3}", text) or step.cut:
            continue
        if len(numbers) > 1:
            yield "the text was found at several lines"
        elif min(numbers) in re.findall(r"\d+", text):
            yield "the number stands in the text"
        elif sum(text in shown for shown in step.lines) == 1:
            asked = (
                f"A search in this run found the line `{text}`. What is its line number in the file it was found in?"
            )
            usable.append(Question(asked, min(numbers), "a number", {step.number: (line,)}))
    yield draw.choice(usable) if usable else "no search showed a text at one numbered line"


def first_sed(steps: list[Step], draw: random.Random) -> Asked:
    edits = [step for step in steps if _SED.match(step.line)]
    if not edits:
        yield "nothing was edited with sed -i"
        return
    first = edits[0]
    path, shown = first.command.split()[-1], first.command.strip().split("\n")
    plain = _PATH.fullmatch(path) and not re.search(r"&&|\|\||;\s*sed", first.command)
    text = "Which file did the first command that starts with `sed -i` edit?"
    if not plain or any(re.search(r"\bsed\b.*\s-i\b", step.command) for step in steps[: first.number - 1]):
        yield "it is not clear which file came first"
    elif len(edits) == 1:
        yield "only one command edits with sed -i"
    else:
        yield Question(text, path, "the path of the file", {first.number: (shown[0], shown[-1])})


def created(steps: list[Step], draw: random.Random) -> Asked:
    written = [(step, match[1] or match[2]) for step in steps if (match := _CREATED.match(step.line))]
    names = {name for _, name in written}
    if len(names) < 2:
        yield "fewer than two files were written with cat"
    elif sum(bool(re.match(r"cat\b.*<<", step.line)) for step in steps) > len(written):
        yield "some here-document goes elsewhere"
    else:
        text = "How many different files were written with commands that start with `cat` and a here-document (<<)?"
        yield Question(text, str(len(names)), "a number", _shown(*(step for step, _ in written)))


def first_mention(steps: list[Step], draw: random.Random) -> Asked:
    first: dict[str, Step] = {}
    for step in steps:
        for path in _PATH.findall(step.command):
            path = path.removeprefix("./")
            if "/" in path and path.endswith((".py", ".txt", ".cfg", ".toml", ".md", ".rst")):
                first.setdefault(path, step)
    later = sorted(path for path, step in first.items() if step.number > 2)
    names = [path for path in later if sum(other.endswith(path) for other in first) == 1]
    if not names:
        yield "no file with a folder is named after the second step"
        return
    step = first[path := draw.choice(names)]
    holding = next(line for line in step.command.strip().split("\n") if path in line)
    text = f"Which step is the first one whose command names the file {path}?"
    yield Question(text, str(step.number), "the number of the step", {step.number: (holding,)})


def _runs(steps: list[Step]) -> dict[str, list[Step]]:
    """Steps that begin with a run of a script, by script."""
    runs: dict[str, list[Step]] = defaultdict(list)
    for step in steps:
        if match := _SCRIPT.match(step.line):
            runs[match["script"]].append(step)
    return runs


def _searched(steps: list[Step]) -> Iterator[tuple[Step, str]]:
    """Lines that searches gave."""
    return ((step, line) for step in steps if _GREP.search(step.line) for line in step.lines)


def _shown(*steps: Step) -> dict[int, tuple[str, ...]]:
    """Evidence: the commands' first lines."""
    return {step.number: (step.line,) for step in steps}


KINDS: dict[str, Callable[[list[Step], random.Random], Asked]] = {
    kind.__name__: kind
    for kind in (
        first_failure, failures, before_failure, nth_exit_code, script_runs, printed, definition_file, grep_line,
        first_sed, created, first_mention,
    )
}  # fmt: skip
