"""What the outputs of a run state, by rule: a count of tests, a line of a traceback, an exit status, a printed value.

A kind of fact is an entry of `KINDS`: a pattern of what commands print, with the value as a group, and a question.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from data_prep.trajectories.actions import Action, actions_of
from data_prep.trajectories.run import AgentRun

_LONGEST_COMMAND = 160
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth".split()


class Kind(NamedTuple):
    """One kind of fact; several patterns may be of one kind.

    Attributes:
        pattern: of a place in what came back, with the group ``value``.
        question: with the pattern's other groups; it follows the words that name the command.
        around: what stands before and after the value wherever the run shows it; the first is a look-behind without
            its closing bracket.
        elsewhere: the file (group ``path``) may be named by no other command: a view of it would tell.
        unsaid: what no turn of the agent may speak of.
    """

    name: str
    pattern: re.Pattern[str]
    question: str
    around: tuple[str, str] = (r"(?<![\w.]", r"(?!\w|\.\d)")
    elsewhere: bool = False
    unsaid: re.Pattern[str] | None = None


def _kind(name: str, pattern: str, question: str, **more: object) -> Kind:
    return Kind(name, re.compile(pattern, re.M), question, **more)


KINDS: tuple[Kind, ...] = (
    _kind(
        "exit status",
        r"^<returncode>(?P<value>[1-9]\d*)</returncode>",
        "With which exit status did it end?",
        around=("(?<=<returncode>", "(?=</returncode>)"),
        unsaid=re.compile(r"exit(?:ed|s)? (?:code|status|with)|return ?code|status code", re.I),
    ),
    _kind(
        "assertion",
        r"^AssertionError: (?P<value>[^\n]{1,80}?) != [^\n]{1,80}$",
        "An assertion failed in it because two values differ. Which value stands left of the `!=`?",
    ),
    _kind(
        "assertion",
        r"^AssertionError: [^\n]{1,80}? != (?P<value>[^\n]{1,80})$",
        "An assertion failed in it because two values differ. Which value stands right of the `!=`?",
    ),
    _kind("error", r"^(?P<value>[A-Za-z_][\w.]*(?:Error|Exception)): ", "Which exception does its output name?"),
    _kind("tests", r"^(?:Ran|Found) (?P<value>\d+) test", "How many tests were found or run?"),
    _kind(
        "counts",
        r"(?<![\w.])(?P<value>\d+) (?P<name>passed|failed|skipped|xfailed|deselected)\b",
        "How many tests does its summary give as {name}?",
    ),
    _kind(
        "traceback",
        r'^ *File "(?P<path>[^"\n]+)", line (?P<value>\d+), in (?P<name>\S+)',
        "At which line of {path} is {name} in the traceback that it printed?",
        elsewhere=True,
    ),
    _kind(
        "printed",
        r"^(?P<name>[A-Za-z][\w '()\[\].-]{2,50}?)\s*[:=] +(?P<value>\S.{0,78}?) *$",
        "What stands behind `{name}` in its output?",
    ),
    _kind(
        "constant",
        r"^(?: *\d+[:\t-])?[ \t]*(?P<name>[A-Za-z_][\w.]*) ?= ?(?P<value>\d+|'[^'\n]{1,78}'|\"[^\"\n]{1,78}\"),?$",
        "To what is {name} set in the code that it printed?",
    ),
    _kind(
        "found",
        r"^(?P<path>[\w./+-]+\.\w+):(?P<value>\d+):(?P<text>.{0,200})$",
        "At which line of {path} did it find `{text}`?",
        elsewhere=True,
    ),
    _kind(
        "file",
        r"^(?P<value>[\w./+-]+\.\w+)[:-](?:\d+[:-])?(?P<text>.{8,200})$",
        "In which file did it find `{text}`?",
        elsewhere=True,
    ),
    _kind("seconds", r"^Ran \d+ tests? in (?P<value>\d+\.\d+s)", "How long did the tests take?"),
)


_AROUND = {kind.name: kind.around for kind in KINDS}


def standing(kind: str, *values: str) -> re.Pattern[str]:
    """Finds the values where they stand by themselves."""
    before, after = _AROUND[kind]
    # The value first: a pattern that begins with fixed text is searched for many times faster.
    return re.compile("|".join(f"{value}{before}{value}){after}" for value in map(re.escape, values)))


class Fact(NamedTuple):
    """A value that message ``reply`` states, and the question that it answers; empty where the output gives several
    answers, or the command cannot be named. ``command`` is the command's first line."""

    kind: str
    reply: int
    value: str
    question: str
    command: str = ""


def _single(run: AgentRun) -> Iterator[Action]:
    """The shell commands that had a turn for themselves and got a reply."""
    actions = list(actions_of(run))
    turns = Counter(action.turn for action in actions)
    for action in actions:
        reply = run.messages[action.turn + 1 : action.turn + 2]
        if action.name == "bash" and turns[action.turn] == 1 and reply and reply[0].role != "assistant":
            yield action


def facts_of(run: AgentRun) -> list[Fact]:
    """All facts in order."""
    actions = list(_single(run))
    named = _named([action.script.strip().partition("\n")[:2] for action in actions])
    scripts = [action.script for action in actions]
    facts: list[Fact] = []
    for number, (action, (command, how)) in enumerate(zip(actions, named, strict=True)):
        reply = action.turn + 1
        others = "\n".join(scripts[:number] + scripts[number + 1 :])
        for kind in KINDS:
            asked: dict[str, set[str]] = defaultdict(set)
            found: list[tuple[str, str]] = []
            for match in kind.pattern.finditer(run.messages[reply].content):
                groups = {key: text.strip() for key, text in match.groupdict().items()}
                if kind.elsewhere and groups.get("path", groups["value"]).rsplit("/", 1)[-1] in others:
                    continue
                question = f"{how} {kind.question.format(**groups)}" if how else ""
                found.append((groups["value"], question))
                asked[question].add(groups["value"])
            facts += [
                Fact(kind.name, reply, value, question if len(asked[question]) == 1 else "", command)
                for value, question in found
            ]
    return facts


def _named(commands: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The first line of each command (given with the line break behind it, if there is one), and words that tell it
    from the others; empty words where there are none."""
    times, seen = Counter(commands), Counter()
    named = []
    for command in commands:
        seen[command] += 1
        line, words = command[0].strip(), ""
        if 1 < len(line) <= _LONGEST_COMMAND and times[command] <= len(_ORDINALS):
            what = "a command with more lines after" if command[1] else "the command"
            again = f" for the {_ORDINALS[seen[command] - 1]} time" if times[command] > 1 else ""
            words = f"The agent ran {what} `{line}`{again}."
        named.append((line, words))
    return named
