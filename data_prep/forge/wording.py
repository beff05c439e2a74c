"""What issues and the scripted agent's thoughts say. Every sentence has several forms; a seed draws among them."""

from __future__ import annotations

import random

from data_prep.forge.bugs import Bug, Check
from data_prep.forge.probe import Outcome

_TITLES = (
    "{name}: wrong result for some inputs",
    "{name} behaves differently from what its code documents",
    "Unexpected outcome of {name}",
    "{name} is off for {argument}",
    "Regression in {name}",
    "{name}() no longer gives what it used to",
    "Strange value from {name} in {module}",
    "Problem with {module}.{name}",
)
_OPENINGS = (
    "I noticed this while upgrading a project of mine.",
    "A test of ours began to fail after the last update, and I could reduce it to a few lines.",
    "This worked for us until recently.",
    "Not sure whether this is intended, but it surprised me.",
    "While going through our logs I found a case that looks wrong.",
    "A colleague ran into this and I can confirm it on a clean checkout.",
    "Found with a small script that calls the function with many arguments.",
    "",
)
_SEEN = ("What I get:", "Here is a session that shows it:", "To reproduce:", "Steps:", "Minimal example:")
_WANTED = (
    "I expected {expected}.",
    "The right outcome would be {expected}.",
    "It should be {expected} instead.",
    "Earlier versions gave {expected} here.",
    "As I read the code, {expected} is what should come out.",
)
_CLOSINGS = (
    "Other calls that I tried are fine.",
    "Thanks for looking into it!",
    "It happens every time, on every platform I have here.",
    "I have no idea where this comes from.",
    "Happy to test a change.",
    "",
    "",
)


def result(outcome: Outcome) -> str:
    """``outcome`` in words."""
    return f"`{outcome.text}`" if outcome.kind == "value" else f"an error, `{outcome.text}`"


def session(check: Check, imports: bool = True) -> str:
    """An interpreter session that shows the wrong outcome."""
    lines = [f">>> {line}" for line in check.call.imports] if imports else []
    outcome = check.actual.text
    if check.actual.kind == "error":
        outcome = f"Traceback (most recent call last):\n  ...\n{outcome}"
    return "\n".join([*lines, f">>> {check.call.text}", outcome])


def issue(bug: Bug, draw: random.Random) -> str:
    """A report of the symptom; it never says what to change."""
    first, *more = bug.checks
    title = draw.choice(_TITLES).format(
        name=bug.function.name, module=bug.function.module, argument=_argument(first.call.text)
    )
    parts = [title, draw.choice(_OPENINGS), f"{draw.choice(_SEEN)}\n```\n{session(first)}\n```"]
    parts.append(draw.choice(_WANTED).format(expected=result(first.expected)))
    if more and draw.random() < 0.6:
        other = draw.choice(more)
        known = set(other.call.imports) <= set(first.call.imports)
        parts.append(f"{draw.choice(('Another one', 'The same with other arguments', 'Also'))}:")
        parts.append(f"```\n{session(other, not known)}\n```\nExpected: {result(other.expected)}.")
    parts.append(draw.choice(_CLOSINGS))
    return "\n\n".join(part for part in parts if part)


def _argument(call: str) -> str:
    inner = call.rpartition("(")[2].rstrip(")")
    return f"`{inner}`" if 0 < len(inner) < 30 else "some arguments"


# What the reader of a function says about the place of a bug, by its kind; never what has to stand there.
_SUSPICIONS = {
    "comparison": (
        "the comparison there decides the case of the report the wrong way",
        "that test treats the boundary differently from what the report expects",
        "values at the edge take the wrong side of this condition",
    ),
    "missing negation": (
        "the condition there looks inverted for this input",
        "this goes into the branch that should be skipped, and the other way round",
        "the truth value of that expression is the opposite of what the surrounding code needs",
    ),
    "added negation": (
        "the two branches seem to be entered the wrong way round",
        "this condition picks the branch meant for the other case",
    ),
    "off by one": (
        "the number there is next to the one that the rest of the function relies on",
        "this looks like an off-by-one: the position used is not the one needed",
        "counting this through by hand, that constant does not fit",
    ),
    "wrong default": (
        "the default in the signature explains it: the call of the report does not give this argument",
        "when the argument is left out, the value in the signature is used, and that gives this outcome",
    ),
    "wrong constant": (
        "the literal there does not fit what the function is supposed to give",
        "that constant shows up in the outcome of the report",
        "the value written there is not the one that the callers rely on",
    ),
    "swapped arguments": (
        "the arguments of that call are in an order that does not fit its parameters",
        "two values are handed over in each other's place there",
    ),
    "dropped branch": (
        "a case is not handled between these lines: nothing there treats the input of the report",
        "the function goes straight on here although the input of the report needs something of its own",
    ),
    "boolean operator": (
        "the way in which the conditions are combined there is too weak or too strong for this input",
        "with these operands the connective gives the wrong truth value",
    ),
    "arithmetic": (
        "the calculation there goes in the wrong direction",
        "evaluating this expression by hand gives the number of the report, so the operator is the problem",
    ),
    "wrong function": (
        "the call there works on the wrong side or in the wrong sense",
        "the function called there is the counterpart of the one that is needed",
    ),
    "missing return": (
        "the value is computed there and then lost",
        "nothing hands that value back to the caller",
    ),
    "wrong jump": (
        "the loop does not go on, or does not stop, where it should",
        "leaving the loop there and going on with it are mixed up",
    ),
}


def suspicion(bug: Bug, line: int, shown: str, draw: random.Random) -> str:
    """Why the agent suspects a line, which is quoted as it stands in the buggy file."""
    reason = draw.choice(_SUSPICIONS[bug.mutation.kind])
    quote = shown.strip()
    if not quote:
        return draw.choice(("Around line {line}: {reason}.", "I look at line {line}: {reason}.")).format(
            line=line, reason=reason
        )
    forms = (
        "Line {line} reads `{quote}`. I think {reason}.",
        "The interesting place is `{quote}` (line {line}): {reason}.",
        "`{quote}` on line {line} stands out, because {reason}.",
        "Going through the function step by step with the input of the report, I stop at line {line}, "
        "`{quote}`: {reason}.",
    )
    return draw.choice(forms).format(line=line, quote=quote, reason=reason)


def say(key: str, draw: random.Random, **values: object) -> str:
    """One of the forms of a thought."""
    return draw.choice(THOUGHTS[key]).format(**values)


THOUGHTS = {
    "look": (
        "First a look at what is here.",
        "I begin with the layout of the repository.",
        "Let me see which files there are before I search for `{name}`.",
        "I do not know this code yet, so I list it first.",
    ),
    "history": ("Is there any history that helps?", "A short look at the log.", "I check what the last commits did."),
    "search": (
        "Now I look for the definition of `{name}`.",
        "The report is about `{name}`. Where is it defined?",
        "I search for `{name}`.",
        "`{name}` must be defined somewhere under `{package}`; grep will tell.",
    ),
    "miss": (
        "Perhaps the message or value of the report occurs in the sources.",
        "I try whether the sources hold the outcome of the report literally.",
        "Before anything else I grep for what the report shows.",
    ),
    "missed": ("That finds nothing useful, so I search for the function.", "No luck; by name then."),
    "read": (
        "It is in `{path}`. I read it.",
        "I read the function in `{path}`.",
        "Let me see the code around line {line} of `{path}`.",
        "`{path}` holds it; now the code itself.",
    ),
    "whole": ("I print the whole file to see what else is in there.", "`{path}` in full, for the context."),
    "usages": (
        "Who else uses it? A change must not break the callers.",
        "I check where `{name}` is called.",
        "Let me see the callers before I touch anything.",
    ),
    "reproduce": (
        "I write a script with the calls of the report.",
        "Before I change anything I want to see the problem. I put the calls of the report into a file.",
        "Time to reproduce it.",
        "A small script will show whether I see the same.",
    ),
    "run": ("Now I run it.", "Let us see what it prints.", "I run the script.", "Running it shows what happens now."),
    "name_error": (
        "I forgot an import in the script.",
        "The script lacks an import; that is my mistake, not the library's. I write it again.",
    ),
    "seen": (
        "The script prints `{actual}`, as reported.",
        "I see the same as in the report: `{actual}`.",
        "Confirmed: `{actual}`.",
    ),
    "narrow": (
        "I try a few more inputs to see when it goes wrong.",
        "Which other calls are affected? I print some.",
        "To narrow it down I call it with other arguments.",
    ),
    "edit": ("I change it.", "I correct that.", "Here is the change.", "I edit `{path}`."),
    "apply": ("Now I apply it.", "The change is written down; I carry it out.", "Applying it."),
    "again": (
        "I run the script again.",
        "Does it print what the report expects now?",
        "Same script, new code.",
        "Let me check the change with the script.",
    ),
    "wrong": (
        "It prints `{got}` and not `{expected}`, so that was not it. I take the change back and look again.",
        "Still not `{expected}` but `{got}`. My first idea was wrong; I undo it.",
        "`{got}`: no. I restore the file and think again.",
    ),
    "unsure": (
        "It prints `{got}`. I cannot get any further with this than the change I have, so I will leave it there.",
        "Now it is `{got}`. This is not quite what the report asks for, but I see no better change.",
    ),
    "right": (
        "Now it prints `{got}`, which is what the report asks for.",
        "`{got}`: as expected.",
        "That gives `{got}`. The report's case is right now.",
    ),
    "others": (
        "I check that calls that were right before still are.",
        "Other inputs must not change; I try some.",
        "A few more calls, to be sure that nothing else moved.",
    ),
    "diff": ("I look at my change once more.", "Let me see the difference that I made.", "What did I change in total?"),
    "status": ("Which files did I touch?", "I check the state of the working folder."),
    "clean": ("The script is no longer needed.", "I remove what I made for testing.", "Cleaning up."),
    "submit": (
        "The case of the report works and nothing else changed as far as I can see. I submit.",
        "I am done: the calls of the report give what they should.",
        "Everything I wanted to check is checked. Submitting.",
    ),
    "give_up": (
        "I cannot make more progress here, so I submit what I have.",
        "This is as far as I get. I submit it.",
    ),
}
