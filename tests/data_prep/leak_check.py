"""Says whether a context still shows lines of a patch. Written on its own: it uses nothing of the masker.

A line of the patch counts when it is added, has 12 or more characters besides white space, and is not old text. Old text
is what the issue says, what the patch itself shows as old, and what the run's environment had printed before the agent
wrote anything. Such a line must not be found in the context; both are compared with all white space taken out.
"""

import re

LEAST = 12
WRITES = re.compile(
    r"<<|\bsed\b.* -\w*i|\bsed -i|\bperl -|python[\d.]* (?:-[a-zA-Z] )*-(?:c|[ \n]|$)|\btee |\bpatch |git apply|\b(?:cp|mv) "
    r"|(?:echo|printf|cat)\b.*>|[^-=<>0-9&]>>? ?[\w./-]*\.\w+|str_replace|\bedit\b|\bcreate\b|\binsert\b|Begin Patch"
)


def squeezed(text):
    """The text without white space."""
    return re.sub(r"\s+", "", text)


def first_write(turns):
    """Number of turns before the agent's first command that could write anything."""
    for number, (role, content) in enumerate(turns):
        if role == "assistant":
            commands = re.findall(r"```\w*\n(.*?)(?:\n```|\Z)", content, re.S) or [content]
            if any(WRITES.search(command) for command in commands):
                return number
    return len(turns)


def lines_to_hide(turns, patch, issue):
    """The patch's lines that must not show: {squeezed: line}. ``turns`` is the run as recorded, (role, content)."""
    added, old = [], []
    for line in patch.split("\n"):
        if line.startswith("+++ ") or line.startswith("--- "):
            continue
        if line.startswith("+"):
            added.append(line[1:])
        elif line[:1] in ("-", " "):
            old.append(squeezed(line[1:]))
    before = [content for role, content in turns[: first_write(turns)] if role != "assistant"]
    old += [squeezed(text) for text in [issue, *before]]
    hidden = {}
    for line in added:
        key = squeezed(line)
        if len(key) >= LEAST and not any(key in text for text in old):
            hidden[key] = line
    return hidden


def leaks_left(context, turns, patch, issue):
    """The patch's lines that the context shows; ``context`` and ``turns`` are lists of (role, content)."""
    text = "\n".join(content for _, content in context)
    shown = squeezed(text)
    return [line for key, line in lines_to_hide(turns, patch, issue).items() if key in shown]
