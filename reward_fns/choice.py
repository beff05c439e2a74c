r"""Which option did a free-form response choose? A strict, linear-time parser.

The response names an option when, outside ``<think>`` blocks, it is a bare label, or states one in ``\boxed{}``, in
``<answer></answer>``, or in a phrase ("The correct option is A", "Answer: B", "I choose option A"). Statements must
agree. A contradicted, negated, doubled, asked or conditional statement names nothing, and so does doubt about which.

One-character labels are matched in their exact case, because "a" is an article; longer ones in any case.
The whole response is read. Every repetition in the patterns is bounded, so the time is linear in its length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from reward_fns.text import strip_thinking

_OPEN = r"""[\s*_"'“‘`(\[$]"""
_CLOSE = r"""[*_"'”’`)\]$]"""
_NOUN = r"(?:(?i:(?:the\s{1,3})?(?:option|choice|context|candidate|label|letter))\s{1,3})"
_BOXED = re.compile(r"\s{0,4}(?:\\(?:text|textbf|mathrm|mathbf)\s?\{([^{}]{0,80})\}|([^{}]{0,80}))\s{0,4}\}")
_TAGGED = re.compile(r"([^<]{0,80})</answer>", re.IGNORECASE)
_CLAUSE_END = re.compile(r"[.,;:!?\n]|\b(?:so|thus|therefore|hence|but|because|since)\b", re.IGNORECASE)
_DENIED = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|doubt|deny|false|wrong|incorrect|unlikely|worst|isnt)|n['’]t)\b",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"\b(?:if|whether|suppose|supposing|assume|assuming|unless|either|other|opposite|distractor|might|may|perhaps|"
    r"maybe)\b|\A\W*(?:which|what)\b",
    re.IGNORECASE,
)
_UNDECIDED = re.compile(r"[\s*_]{0,6}(?:both|either|neither|none|unclear|unknown|undecided)\b", re.IGNORECASE)
_CLAUSE_CHARS = 60
_BARE_CHARS = 200

# ---- where a response may state or deny its choice: the phrases and marks that a label follows
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


def _find_cues(text: str) -> list[tuple[int, int, str]]:
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


class _Grammar:
    """The patterns that depend on the label set."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.canonical = {label if len(label) == 1 else label.casefold(): label for label in labels}
        longest_first = sorted(map(re.escape, labels), key=len, reverse=True)
        # One character after re.escape may be two, so measure the label itself.
        long = {re.escape(label) for label in labels if len(label) > 1}
        one = "(?:" + "|".join(f"(?i:{label})" if label in long else label for label in longest_first) + r")(?!\w)"
        self.bare = re.compile(
            rf"{_OPEN}{{0,8}}{_NOUN}?{_OPEN}{{0,8}}(?P<label>{one}){_CLOSE}{{0,8}}[.!]?{_CLOSE}{{0,8}}\Z"
        )
        self.slot = re.compile(
            rf"{_OPEN}{{0,12}}(?P<noun>{_NOUN})?(?P<open>[*_\"'“‘`(\[$]{{0,4}})(?P<label>{one})(?P<close>{_CLOSE}{{0,6}})"
        )
        # What may follow a naked label. A plain noun may not: in "Answer: A dog" the A is an article.
        self.follow = re.compile(
            r"[ \t]{0,8}(?:\Z|[\r\n])|[.,;:!)\]*]{1,4}(?:\s|\Z)|[ \t]{0,4}[—–]|\s{1,3}-{1,2}\s|\s{1,3}[(<]"
            r"|\s{1,3}(?i:because|since|as|for|due|given|based|rather|over|instead|not|which|while|whereas|but|so|and|it"
            r"|the|this)\b"
        )
        another = rf"{_NOUN}?{_OPEN}{{0,6}}(?!I\s+[a-z])({one})"
        self.doubled = re.compile(
            rf"[\s(]{{0,4}}(?:(?:,\s{{0,2}})?(?i:or|nor|vs\.?|versus|and\s?/\s?or)\s{{1,3}}(?:\w{{1,12}}\s{{1,3}}){{0,2}}"
            rf"|(?:,\s{{0,2}})?(?i:and)\s{{1,3}}|[,/&|+]\s{{0,3}}){another}"
            rf"|[.;]?\s{{1,3}}{another}{_CLOSE}{{0,4}}[.]?\s{{0,2}}(?:\Z|\n)"
        )
        self.unsure = re.compile(r"[\s.]{0,3}\?|\s{1,3}(?i:(?:only\s{1,3})?(?:if|unless))\b")

    def label(self, match: re.Match[str]) -> str | None:
        """Return the label as the caller wrote it; None for a look-alike that only regular expressions equate."""
        return self.canonical.get(match["label"] if len(match["label"]) == 1 else match["label"].casefold())

    def names_two(self, text: str, end: int, label: str | None) -> bool:
        """Whether a different label is offered right after ``label``, which ends at ``end``."""
        match = self.doubled.match(text, end)
        other = match and (match[1] or match[2])
        return bool(other) and self.canonical.get(other if len(other) == 1 else other.casefold()) != label


@lru_cache(maxsize=256)
def _grammar(labels: tuple[str, ...]) -> _Grammar:
    return _Grammar(labels)


def parse_choice(text: str, labels: Sequence[str] = ("A", "B")) -> str | None:
    """Return the label (one of ``labels``, as written there) that ``text`` chooses, or None.

    Never raises for any string; a ``text`` that is not a string gives None. The rules are in the module docstring.
    """
    visible = strip_thinking(text) if isinstance(text, str) else None
    if visible is None or not labels:
        return None
    visible = visible.strip()
    grammar = _grammar(tuple(labels))
    if len(visible) <= _BARE_CHARS:
        whole = grammar.bare.match(visible)
        if whole:
            return grammar.label(whole)
    affirmed: set[str] = set()
    denied: set[str] = set()
    decided = False
    for start, end, kind in _find_cues(visible):
        label, verdict = _read_statement(visible, start, end, kind, grammar)
        if verdict == "both":
            return None
        if verdict == "undecided":
            decided = False
        elif label is not None and verdict == "denied":
            denied.add(label)
        elif label is not None:
            affirmed.add(label)
            decided = True
    if not decided or len(affirmed) != 1 or affirmed & denied:
        return None
    return affirmed.pop()


def _read_statement(text: str, start: int, end: int, kind: str, grammar: _Grammar) -> tuple[str | None, str]:
    """Return ``(label or None, "affirmed" | "denied" | "both" | "undecided")`` for one cue at ``start:end``."""
    if kind in ("box", "tag"):
        body = (_BOXED if kind == "box" else _TAGGED).match(text, end)
        content = "" if body is None else (body[1] or body[body.re.groups] or "")
        inner = grammar.bare.match(content.strip())
        if inner is None:
            return None, "undecided"
        label, end = grammar.label(inner), body.end()
        if grammar.names_two(text, end, label):
            return None, "both"
    else:
        slot = grammar.slot.match(text, end)
        if slot is None:
            undecided = kind in ("answer", "option") and _UNDECIDED.match(text, end)
            return None, "undecided" if undecided else "affirmed"
        label, end = grammar.label(slot), slot.end()
        if kind == "no":
            return label, "denied"
        if grammar.names_two(text, end, label):
            return None, "both"
        wrapped = slot["noun"] or (slot["close"] and text[slot.start("label") - 1] in "*_\"'“‘`([$")
        possessive = slot["close"][:1] in ("'", "’") and text[end : end + 1].isalpha()
        if grammar.unsure.match(text, end):
            return None, "undecided"
        # A closing bracket, quote or star is itself a fine thing to follow a label: "A) the dog".
        closed = slot["close"] and not text[end : end + 1].isalnum()
        if possessive or not (wrapped or closed or grammar.follow.match(text, end)):
            return None, "affirmed"
    clause = text[max(0, start - _CLAUSE_CHARS) : start]
    clause = _CLAUSE_END.split(clause)[-1] if clause else clause
    if _DENIED.search(clause):
        return label, "denied"
    if _ASKED.search(clause):
        return None, "affirmed"
    return label, "affirmed"
