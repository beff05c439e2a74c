"""Where a response may state or deny its choice: the phrases and marks that a label follows."""

from __future__ import annotations

import re

_IS = (
    r"[*_]{0,3}\s{0,3}(?:[:：=]|(?:is|was|would\s{1,3}be|should\s{1,3}be|must\s{1,3}be)\b"
    r"(?:\s{1,3}(?:clearly|therefore|definitely|indeed|thus|simply|then))?(?:[*_]{0,3}\s{0,3}:)?)"
)
_DENIES = r"(?:\b(?:not|never|neither|isnt)|n['’]t)\b(?:\s{1,3}be\b)?"
_CHOOSE = r"\b(?:choose|chose|chosen|choosing|select(?:ed|ing)?|pick(?:ed|ing)?|go(?:ing)? with)\b"
# Kind of cue -> (literals one of which starts it, pattern from there on, pattern that must end right before it).
# Looking for literals in C keeps a long response as cheap as a short one. All is lower case, as the folded text is.
_CUES: dict[str, tuple[tuple[str, ...], re.Pattern[str], re.Pattern[str] | None]] = {
    "answer": (
        ("answer",),
        re.compile(r"\banswer(?:\s{1,3}(?:to\s{1,3}(?:the|this)\s{1,3}(?:question|query)|choice|option))?" + _IS),
        None,
    ),
    "option": (
        ("option", "choice", "selection"),
        re.compile(r"\b(?:option|choice|selection)" + _IS),
        re.compile(r"\b(?:correct|right|best|better|final|chosen|selected|supporting|my)\s{1,3}\Z"),
    ),
    "choose": (
        ("choose", "chose", "choosing", "select", "pick", "go with", "going with"),
        re.compile(_CHOOSE),
        re.compile(
            r"\bi(?:['’](?:ll|d|m|ve))?\s{1,3}"
            r"(?:(?:will|would|have|am|therefore|thus|hence|must|finally)\s{1,3}){0,2}\Z"
        ),
    ),
    "box": (("\\boxed",), re.compile(r"\\boxed\s?\{"), None),
    "tag": (("<answer>",), re.compile("<answer>"), None),
    "no": (("not", "never", "neither", "isnt", "n't", "n’t"), re.compile(_DENIES), None),
}
_BEFORE_CHARS = 40


def find_cues(text: str) -> list[tuple[int, int, str]]:
    """Return ``(start, end, kind)`` of every cue in ``text``, in order; a label is expected from ``end`` on.

    Kinds: ``answer``, ``option`` and ``choose`` are phrases, ``box`` and ``tag`` open markup, ``no`` denies.
    """
    # The only character that changes the length of a text in lower case is the dotted capital I.
    folded = text.replace("\u0130", "i").lower()
    cues: list[tuple[int, int, str]] = []
    for kind, (literals, pattern, before) in _CUES.items():
        for literal in literals:
            at = folded.find(literal)
            while at >= 0:
                cue = pattern.match(folded, at)
                if cue:
                    start = at
                    if before:
                        left = max(0, at - _BEFORE_CHARS)
                        lead = before.search(folded[left:at])
                        start = left + lead.start() if lead else -1
                    if start >= 0:
                        cues.append((start, cue.end(), kind))
                at = folded.find(literal, at + len(literal))
    cues.sort()
    return cues
