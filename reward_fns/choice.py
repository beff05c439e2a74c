r"""Which option did a free-form response choose? A strict, linear-time parser, and the rewards that use it.

The response names an option when, outside ``<think>`` blocks, it is a bare label, or states one in ``\boxed{}``, in
``<answer></answer>``, or in a phrase ("The correct option is A", "Answer: B", "I choose option A"). Statements must
agree. A contradicted, negated, doubled, asked or conditional statement names nothing, and so does doubt about which.

One-character labels are matched in their exact case, because "a" is an article; longer ones in any case.
The whole response is read. Every repetition in the patterns is bounded, so the time is linear in its length.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from reward_fns.registry import RewardConfigError, reward
from reward_fns.text import as_strings, require_str, strip_thinking

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
    """``(start, end, kind)`` of every cue in ``text``, in order; a label is expected from ``end`` on.

    Kinds: ``answer``, ``option`` and ``choose`` are phrases, ``box`` and ``tag`` open markup, ``no`` denies.
    """
    # The only character that changes the length of a text in lower case is the dotted capital I.
    folded = text.replace("\u0130", "i").lower()
    cues: list[tuple[int, int, str]] = []
    for kind, (literals, pattern, before) in _CUES.items():
        for literal in literals:
            at = folded.find(literal)
            while at >= 0:
                cue, left = pattern.match(folded, at), max(0, at - _BEFORE_CHARS)
                lead = cue and before and before.search(folded[left:at])
                if cue and (lead or not before):
                    cues.append((left + lead.start() if lead else at, cue.end(), kind))
                at = folded.find(literal, at + len(literal))
    return sorted(cues)


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


_grammar = lru_cache(maxsize=256)(_Grammar)


def parse_choice(text: str, labels: Sequence[str] = ("A", "B")) -> str | None:
    """The label (one of ``labels``, as written there) that ``text`` chooses, or None; None for what is no string."""
    visible = strip_thinking(text) if isinstance(text, str) else None
    if visible is None or not labels:
        return None
    visible = visible.strip()
    grammar = _grammar(tuple(labels))
    if len(visible) <= _BARE_CHARS and (whole := grammar.bare.match(visible)):
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


@reward("contextrl/selection*")
def score_selection(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> dict[str, Any]:
    """1.0 for the supporting option, whose label is ``ground_truth``, of ``extra_info["labels"]`` (default A, B).

    Raises RewardConfigError when the labels are not strings or the ground truth is not one of them.
    """
    labels = (extra_info or {}).get("labels")
    options = ("A", "B") if labels is None else as_strings(labels, 'extra_info["labels"]')
    if len({label if len(label) == 1 else label.casefold() for label in options}) < len(options):
        raise RewardConfigError(f'extra_info["labels"] must be distinct (longer ones also without case): {options!r}.')
    return _chosen(solution_str, ground_truth, options, "selection")


@reward("contextrl/multiple_choice*")
def score_multiple_choice(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> dict[str, Any]:
    """1.0 for the capital letter ``ground_truth`` of ``extra_info["num_options"]`` (2 to 26, default 10) letters.

    Raises RewardConfigError when either is out of range.
    """
    count = (extra_info or {}).get("num_options")
    count = 10 if count is None else count
    # Parquet and pandas hand integers over as numpy scalars or whole floats.
    if isinstance(count, bool | str) or not hasattr(count, "__int__") or int(count) != count or not 2 <= count <= 26:
        raise RewardConfigError(f'extra_info["num_options"] must be a whole number from 2 to 26, not {count!r}.')
    return _chosen(solution_str, ground_truth, string.ascii_uppercase[: int(count)], "multiple-choice")


def _chosen(response: str, truth: Any, options: Sequence[str], name: str) -> dict[str, Any]:
    if require_str(truth, name) not in tuple(options):
        raise RewardConfigError(f"The {name} reward's ground_truth {truth!r} is not one of {list(options)}.")
    choice = parse_choice(response, options)
    return {"score": float(choice == truth), "parsed": choice or ""}
