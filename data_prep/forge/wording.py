"""What issues and the scripted agent's turns say. Every sentence has several forms; a seed draws among them."""

from __future__ import annotations

import random

from contextrl_verl.agents.task import Outcome
from contextrl_verl.sandbox.box import WORKPLACE, Finished
from data_prep.forge.bugs import Check, Issue

SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && git add -A && git diff --cached"
LONGEST_OUTPUT = 10_000

SYSTEM = """You work on software through a shell. Each of your answers holds your reasoning and one shell command.

Write them like this:

<format_example>
THOUGHT: what you know, and why the next command is worth running

```bash
the command
```
</format_example>

An answer with no command, or with more than one block, is not carried out."""

_TASK = f"""<pr_description>
Consider the following PR description:
%s
</pr_description>

<instructions>
# Task

Change the source files under {WORKPLACE} so that what the description reports no longer happens. {WORKPLACE} is the
working directory of every command, and every command runs in a shell of its own. Commands must not wait for input.

Find the code, write a script that shows the problem and run it, edit the source, run the script again. When you are
done, send exactly this command, after which nothing more can be changed:

```bash
{SUBMIT}
```
</instructions>"""

_TOO_LONG = """<warning>
This output is too long to be shown whole; its middle is left out.
Ask for less: a range of lines with sed, a narrower grep, or the first lines with head.
</warning>"""


def observation(done: Finished) -> str:
    """The user turn that reports a command; as mini-swe-agent does it, long output keeps its two ends."""
    head, output = f"<returncode>{done.returncode}</returncode>\n", done.output
    if len(output) < LONGEST_OUTPUT:
        end = "" if output.endswith("\n") or not output else "\n"
        return f"{head}<output>\n{output}{end}</output>"
    half = LONGEST_OUTPUT // 2
    return (
        f"{head}{_TOO_LONG}<output_head>\n{output[:half]}\n</output_head>\n"
        f"<elided_chars>\n{len(output) - LONGEST_OUTPUT} characters elided\n</elided_chars>\n"
        f"<output_tail>\n{output[-half:]}\n</output_tail>"
    )


# The parts of an issue, one a line; a line is drawn of each.
_TITLE = """\
{name}: wrong result for some inputs
{name} behaves differently from what its code documents
{name} is off for {argument}
{name}() no longer gives what it used to
Problem with {module}.{name}"""
_OPENING = """\
I noticed this while upgrading a project of mine.
A test of ours began to fail after the last update, and I could reduce it to a few lines.
Not sure whether this is intended, but it surprised me.
While going through our logs I found a case that looks wrong.
A colleague ran into this and I can confirm it on a clean checkout."""
_SEEN = "What I get:\nHere is a session that shows it:\nTo reproduce:\nMinimal example:"
_WANTED = """\
I expected {expected}.
The right outcome would be {expected}.
It should be {expected} instead.
As I read the code, {expected} is what should come out."""
_CLOSING = """\
Other calls that I tried are fine.
Thanks for looking into it!
I have no idea where this comes from.
"""


def _result(outcome: Outcome) -> str:
    return f"`{outcome.text}`" if outcome.kind == "value" else f"an error, `{outcome.text}`"


def _session(check: Check) -> str:
    """An interpreter session that shows the wrong outcome, and nothing of the right one."""
    lines = [f">>> {line}" for line in (*check.call.imports, check.call.text)]
    traceback = ["Traceback (most recent call last):", "  ..."] if check.actual.kind == "error" else []
    return "\n".join(["```", *lines, *traceback, check.actual.text, "```"])


def task(issue: Issue, draw: random.Random) -> str:
    """The first user turn."""
    return _TASK % report(issue, draw)


def report(issue: Issue, draw: random.Random) -> str:
    """A report of the symptom, with one or two of the issue's checks, which never says what to change."""
    first, *more = issue.checks
    given = first.call.text.rpartition("(")[2].rstrip(")")
    values = {
        "name": issue.function.name,
        "module": issue.function.module,
        "argument": f"`{given}`" if 0 < len(given) < 30 else "some arguments",
        "expected": _result(first.expected),
    }
    title, opening, seen, wanted, closing = (
        draw.choice(forms.split("\n")).format(**values) for forms in (_TITLE, _OPENING, _SEEN, _WANTED, _CLOSING)
    )
    parts = [title, opening, f"{seen}\n{_session(first)}", wanted]
    if more and draw.random() < 0.6:
        other = draw.choice(more)
        parts.append(f"The same with other arguments:\n{_session(other)}\nExpected: {_result(other.expected)}.")
    return "\n\n".join(part for part in (*parts, closing) if part)


# What the reader of a function says about the place of a bug, by its kind; never what has to stand there.
_SUSPICIONS = {
    "comparison": "that test treats the boundary differently from what the report expects",
    "missing negation": "the condition there looks inverted for this input",
    "added negation": "the two branches seem to be entered the wrong way round",
    "off by one": "the number there is next to the one that the rest of the function relies on",
    "wrong default": "when the argument is left out, the value in the signature is used, and that gives this outcome",
    "wrong constant": "the literal there does not fit what the function is supposed to give",
    "swapped arguments": "the arguments of that call are in an order that does not fit its parameters",
    "dropped branch": "a case is not handled between these lines: nothing there treats the input of the report",
    "boolean operator": "the way in which the conditions are combined there gives the wrong truth value",
    "arithmetic": "the calculation there goes in the wrong direction",
    "wrong function": "the function called there is the counterpart of the one that is needed",
    "missing return": "the value is computed there and then lost",
    "wrong jump": "the loop does not go on, or does not stop, where it should",
}
_THOUGHTS = {
    "suspect": """\
Line {line} reads `{quote}`. I think {reason}.
The interesting place is `{quote}` (line {line}): {reason}.
Going through the function with the input of the report, I stop at line {line}, `{quote}`: {reason}.""",
    "suspect place": "Around line {line}: {reason}.\nI look at line {line}: {reason}.",
    "guess": "My first suspicion is line {line}, `{quote}`.\nPerhaps it is `{quote}` on line {line}; I change that.",
    "look": "First a look at what is here.\nI begin with the layout of the repository.",
    "search": "Now I look for the definition of `{name}`.\nThe report is about `{name}`. Where is it defined?",
    "read": "It is in `{path}`. I read it.\nLet me see the code around line {line} of `{path}`.",
    "whole": "I print the whole file to see what else is in there.\n`{path}` in full, for the context.",
    "usages": "Who else uses it? A change must not break the callers.\nI check where `{name}` is called.",
    "reproduce": """\
Before I change anything I want to see the problem. I put the calls of the report into a file.
A small script will show whether I see the same.""",
    "run": "Now I run it.\nLet us see what it prints.",
    "name_error": "I forgot an import in the script.\nThe script lacks an import; that is not the library's mistake.",
    "seen": "The script prints `{got}`, as reported.\nI see the same as in the report: `{got}`.",
    "narrow": "I try a few more inputs to see when it goes wrong.\nTo narrow it down I call it with other arguments.",
    "edit": "I change it.\nHere is the change.\nI edit `{path}`.",
    "apply": "Now I apply it.\nThe change is written down; I carry it out.",
    "again": "I run the script again.\nDoes it print what the report expects now?",
    "wrong": """\
It prints `{got}` and not `{expected}`, so that was not it. I take the change back and look again.
Still not `{expected}` but `{got}`. My first idea was wrong; I undo it.""",
    "give_up": """\
It prints `{got}`. I cannot get any further with this than the change I have, so I submit it.
Now it is `{got}`. This is not quite what the report asks for, but I see no better change, so I submit it.""",
    "right": "Now it prints `{got}`, which is what the report asks for.\n`{got}`: as expected.",
    "others": "I check that calls that were right before still are.\nOther inputs must not change; I try some.",
    "diff": "I look at my change once more.\nWhat did I change in total?",
    "clean": "The script is no longer needed.\nI remove what I made for testing.",
    "submit": """\
The case of the report works and nothing else changed as far as I can see. I submit.
I am done: the calls of the report give what they should.""",
}


def say(key: str, draw: random.Random, **values: object) -> str:
    """One of the forms of a thought."""
    return draw.choice(_THOUGHTS[key].split("\n")).format(**values)


def suspicion(kind: str, line: int, quote: str, draw: random.Random) -> str:
    """Why the agent suspects a line, quoted as it stands in the buggy file, or a place between lines."""
    key = "suspect" if quote else "suspect place"
    return say(key, draw, line=line, quote=quote, reason=_SUSPICIONS[kind])
