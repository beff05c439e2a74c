"""Says whether a context still shows lines of a patch. Written on its own: it uses nothing of the masker.

A line of the patch counts when it is added, has 12 or more characters besides white space, and is not old text. Old
text is what the issue says, what the patch itself shows as old, what the run's environment had printed before the agent
wrote anything, and what it printed before the first edit of a patched file without the agent having spelt it first.
Such a line must not be found in the context; both are compared with all white space taken out. Nor may the context hold
a diff's headers for a patched file, the places of its hunks, or a line of the agent's that is a draft of an added line.
"""

import re
from difflib import SequenceMatcher

LEAST = 12
LIKE = 0.82
WRITES = re.compile(
    r"<<|\bsed\b.* -\w*i|\bsed -i|\bperl -|python[\d.]* (?:-[a-zA-Z] )*-(?:c|[ \n]|$)|\btee |\bpatch |git apply"
    r"|\b(?:cp|mv) "
    r"|(?:echo|printf|cat)\b.*>|[^-=<>0-9&]>>? ?[\w./-]*\.\w+|str_replace|\bedit\b|\bcreate\b|\binsert\b|Begin Patch"
)


def squeezed(text):
    """The text without white space."""
    return re.sub(r"\s+", "", text)


def first_write(turns, paths=None):
    """Number of turns before the agent's first command that could write anything, or could write one of the paths."""
    endings = [re.escape("/".join(path.split("/")[-2:])) for path in paths or ()]
    bare = [r"\bcd .*(?:\n.*){0,99}(?<![\w/.])" + re.escape(path.split("/")[-1]) for path in paths or ()]
    named = re.compile("|".join(endings + bare))
    for number, (role, content) in enumerate(turns):
        if role == "assistant":
            commands = re.findall(r"```\w*\n(.*?)(?:\n```|\Z)", content, re.S) or [content]
            if any(WRITES.search(command) and named.search(command) for command in commands):
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
    paths = {line[6:].strip() for line in patch.split("\n") if line.startswith(("+++ b/", "--- a/"))}
    hidden, spelt = {}, ""
    for line in added:
        key = squeezed(line)
        if len(key) >= LEAST and not any(key in text for text in old):
            hidden[key] = line
    for role, content in turns[: first_write(turns, paths)]:
        text = squeezed(content)
        if role == "assistant":
            spelt += text
        else:
            hidden = {key: line for key, line in hidden.items() if key not in text or key in spelt}
    return hidden


def leaks_left(context, turns, patch, issue):
    """The patch's lines that the context shows; ``context`` and ``turns`` are lists of (role, content)."""
    text = "\n".join(content for _, content in context)
    shown = squeezed(text)
    return [line for key, line in lines_to_hide(turns, patch, issue).items() if key in shown]


def signs_left(context, patch):
    """Headers of the patch that the context shows: of its files, its blobs and its hunks."""
    text = "\n".join(content for _, content in context)
    names = re.findall(r"^(?:\+\+\+ b/|--- a/)(\S+)", patch, re.M)
    signs = re.findall(r"^index \w+\.\.\w+|^@@ -\d+,\d+ \+\d+,\d+ @@", patch, re.M)
    signs += [sign + name for name in names for sign in ("diff --git a/", "+++ b/", "--- a/")]
    return sorted({sign for sign in signs if sign in text})


def drafts_left(context, patch):
    """The agent's lines that are like an added line of the patch, and less like every old line: (line, added line)."""
    new = {" ".join(line[1:].split()) for line in patch.split("\n") if line[:1] == "+" and line[:4] != "+++ "}
    old = {" ".join(line[1:].split()) for line in patch.split("\n") if line[:1] in ("-", " ") and line[:4] != "--- "}
    new = {line for line in new - old if len(squeezed(line)) >= LEAST}
    said = {" ".join(line.split()) for role, content in context if role == "assistant" for line in content.split("\n")}
    found = []
    for added in sorted(new):
        matcher = SequenceMatcher(None, b=added, autojunk=False)
        for line in said:
            low, high = sorted((len(line), len(added)))
            if 2 * low >= LIKE * (low + high):
                matcher.set_seq1(line)
                if matcher.quick_ratio() >= LIKE and (like := matcher.ratio()) >= LIKE:
                    if all(SequenceMatcher(None, line, one, autojunk=False).ratio() < like for one in old):
                        found.append((line, added))
    return found
