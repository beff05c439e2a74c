"""Verification that needs no judge: rules for a pair by itself, and rules between the pairs of a file."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from contextrl_verl.pairs import Context, ContrastivePair
from data_prep.report.text import MASK

# An added line of a patch is distinctive from so many characters on, blanks at its ends apart.
PATCH_LINE = 16
DUPLICATE = "duplicate"
_MISSING = "image file missing"
_LEFT_OUT = re.compile(r"\[\.\.\. .{0,60}?left out.{0,20}?\.\.\.\]")
# As git writes it, or without its numbers.
_HUNK = re.compile(r"^@@ (?:-\d+(?:,\d+)? \+\d+(?:,\d+)?|\.\.\.) @@", re.M)


class RuleSettings(BaseModel):
    """Bounds of the rules: the longest over the shortest context, in characters, at most."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    length_ratio: float = Field(2.0, ge=1)


def text_of(context: Context) -> str:
    """All text of a context; empty for images."""
    if context.kind == "messages":
        return "\n".join(f"[{message.role}]\n{message.content}" for message in context.messages)
    return context.text or ""


def _digest(*parts: str | bytes) -> str:
    state = hashlib.blake2b(digest_size=12)
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        state.update(b"%d:" % len(data) + data)
    return state.hexdigest()


def context_digest(context: Context) -> str:
    """Equal for contexts with equal text, blanks apart, or equal encoded images."""
    images = [image.bytes if image.bytes is not None else Path(image.path).read_bytes() for image in _images(context)]
    return _digest(context.kind, *images, " ".join(text_of(context).split()))


def content_of(pair: ContrastivePair) -> str:
    """A digest of what a judge or person sees of a pair."""
    return _digest(pair.query, pair.answer, *map(context_digest, pair.contexts))


def couple_of(pair: ContrastivePair) -> str:
    """The same for all directions of a couple: a digest of its contexts in any order."""
    return _digest(*sorted(map(context_digest, pair.contexts)))


def _images(*contexts: Context) -> list[Any]:
    return [image for context in contexts for image in context.images or ()]


def _is_empty(context: Context) -> bool:
    # Marks of what was hidden are nothing to read, and neither are the names of the speakers.
    text = "".join(message.content for message in context.messages or ()) or context.text or ""
    return context.kind != "images" and not _LEFT_OUT.sub("", MASK.sub("", text)).strip()


def _uneven(pair: ContrastivePair, settings: RuleSettings) -> bool:
    lengths = [len(text_of(context)) for context in pair.contexts]
    return max(lengths) > settings.length_ratio * max(min(lengths), 1)


def distinctive_lines(patch: str) -> set[str]:
    """Added lines of a unified diff that nothing else in it shows: not removed, not unchanged, not mere punctuation."""
    added, other = set(), set()
    for line in patch.splitlines():
        if not line.startswith(("+++", "---", "diff ", "index ", "@@")):
            (added if line.startswith("+") else other).add(line[1:].strip())
    return {
        line for line in added - other if len(line) >= PATCH_LINE and sum(map(str.isalnum, line)) >= PATCH_LINE // 2
    }


def _shows_patch(pair: ContrastivePair, contexts: Iterable[Context]) -> bool:
    lines = distinctive_lines(pair.answer) if _HUNK.search(pair.answer) else ()
    return any(line in text for text in map(text_of, contexts) for line in lines)


# Reason to drop a pair, and whether it holds. The first that does counts; images must be there before they are read.
PAIR_RULES: dict[str, Callable[[ContrastivePair, RuleSettings], Any]] = {
    "blank question or answer": lambda pair, _: not pair.answer.strip() or not pair.query.strip(),
    "the answer holds a mask": lambda pair, _: MASK.search(pair.answer),
    "the answer is the question": lambda pair, _: pair.answer.strip() == pair.query.strip(),
    _MISSING: lambda pair, _: any(
        image.bytes is None and not Path(image.path).is_file() for image in _images(*pair.contexts)
    ),
    "empty image": lambda pair, _: any(image.bytes == b"" for image in _images(*pair.contexts)),
    "empty context": lambda pair, _: any(map(_is_empty, pair.contexts)),
    "identical contexts": lambda pair, _: len(set(map(context_digest, pair.contexts))) < len(pair.contexts),
    "contexts with different numbers of images": lambda pair, _: len({len(_images(c)) for c in pair.contexts}) > 1,
    "length ratio of the contexts": _uneven,
    "an added line of the patch shows in the supporting context": lambda pair, _: _shows_patch(pair, [pair.supporting]),
    "an added line of the patch shows in a confounder": lambda pair, _: _shows_patch(pair, pair.confounders),
}


class Facts(NamedTuple):
    """What is remembered of a pair while the file is gone through: the ``reason`` why a rule drops it, if one does.

    The rest are digests; of ``couple``, equal for the directions of one couple, and ``claim``, question and answer.
    """

    pair_id: str
    reason: str | None
    couple: str
    contexts: frozenset[str] = frozenset()
    supporting: str = ""
    claim: str = ""


def facts_of(pair: ContrastivePair, settings: RuleSettings) -> Facts:
    """Digests of a pair and the verdict of the rules that look at one pair."""
    reason = next((reason for reason, holds in PAIR_RULES.items() if holds(pair, settings)), None)
    if reason == _MISSING:
        return Facts(pair.pair_id, reason, f"unreadable {pair.pair_id}")
    digests = [context_digest(context) for context in pair.contexts]
    claim = _digest(" ".join(pair.query.split()), " ".join(pair.answer.split()))
    return Facts(pair.pair_id, reason, _digest(*sorted(digests)), frozenset(digests), digests[0], claim)


def dropped_by_rules(facts: Iterable[Facts]) -> dict[str, str]:
    """A reason for every pair that the rules drop, by pair id: its own fault, or what only shows between pairs: a
    duplicate, an answer claimed for several contexts, a couple whose contexts do not each support one of its answers.
    """
    reasons: dict[str, str] = {}
    couples: dict[str, dict[tuple[str, str], Facts]] = defaultdict(dict)
    for fact in facts:
        if couples[fact.couple].setdefault((fact.supporting, fact.claim), fact) is not fact:
            reasons[fact.pair_id] = fact.reason or DUPLICATE
    for members in couples.values():
        supported = {supporting for supporting, _ in members}
        claims = Counter(claim for _, claim in members)
        for (_, claim), fact in members.items():
            if fact.reason:
                reasons[fact.pair_id] = fact.reason
            elif claims[claim] > 1:
                reasons[fact.pair_id] = "the same answer is claimed for several contexts"
            elif fact.contexts != supported:
                reasons[fact.pair_id] = "a direction is missing"
    return reasons
