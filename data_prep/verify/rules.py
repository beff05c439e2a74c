"""Verification that needs no judge: each rule gives a reason to drop a pair, or None."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from contextrl_verl.pairs import Context, ContrastivePair

_MASK = re.compile(r"<[A-Z]+(?:_[A-Z]+)*_MASKED>")
_LEFT_OUT = re.compile(r"\[\.\.\. .{0,60}?left out.{0,20}?\.\.\.\]")
_HUNK = re.compile(r"^@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@", re.M)


@dataclass(frozen=True)
class RuleSettings:
    """Bounds of the rules.

    Attributes:
        length_ratio: longest over shortest context, in characters, at most.
        patch_line: an added line of a patch counts as distinctive from so many characters on, blanks at its ends apart.
        whole_answer: also drop pairs whose answer stands word for word in a context. Off by default: where the
            evidence is a stated fact, the answer has to be there.
        both_directions: a couple whose contexts do not each support one of its answers is dropped.
    """

    length_ratio: float = 2.0
    patch_line: int = 16
    whole_answer: bool = False
    both_directions: bool = True

    def __post_init__(self) -> None:
        if self.length_ratio < 1 or self.patch_line < 1:
            raise ValueError(f"{self}: length_ratio must be at least 1 and patch_line at least 1")


def text_of(context: Context) -> str:
    """All text of a context; empty for images."""
    if context.kind == "messages":
        return "\n".join(f"[{message.role}]\n{message.content}" for message in context.messages)
    return context.text or ""


def context_digest(context: Context) -> str:
    """Equal for contexts with equal text, blanks apart, or equal encoded images."""
    state = hashlib.blake2b(digest_size=12)
    state.update(context.kind.encode())
    for image in context.images or ():
        data = image.bytes if image.bytes is not None else Path(image.path).read_bytes()
        state.update(hashlib.blake2b(data).digest())
    state.update(" ".join(text_of(context).split()).encode("utf-8", "surrogatepass"))
    return state.hexdigest()


def content_of(pair: ContrastivePair) -> str:
    """A digest of what a judge or person sees of a pair."""
    state = hashlib.blake2b(digest_size=12)
    for part in (pair.query, pair.answer, *map(context_digest, pair.contexts)):
        state.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return state.hexdigest()


def couple_of(pair: ContrastivePair) -> str:
    """The same for all directions of a couple: a digest of its contexts in any order."""
    digests = sorted(context_digest(context) for context in pair.contexts)
    return hashlib.blake2b("".join(digests).encode(), digest_size=12).hexdigest()


def empty_context(pair: ContrastivePair, settings: RuleSettings) -> str | None:
    """A context with nothing to read besides marks of what was hidden."""
    for context in pair.contexts:
        if context.kind == "images":
            if any(image.bytes is not None and not image.bytes for image in context.images):
                return "empty image"
            continue
        contents = [message.content for message in context.messages or ()] or [context.text]
        if not _LEFT_OUT.sub("", _MASK.sub("", "".join(contents))).strip():
            return "empty context"
    return None


def missing_image(pair: ContrastivePair, settings: RuleSettings) -> str | None:
    """An image by path that is not there."""
    for context in pair.contexts:
        if any(image.bytes is None and not Path(image.path).is_file() for image in context.images or ()):
            return "image file missing"
    return None


def identical_contexts(pair: ContrastivePair, settings: RuleSettings) -> str | None:
    """Two contexts that differ in blanks only, or not at all."""
    digests = [context_digest(context) for context in pair.contexts]
    return "identical contexts" if len(set(digests)) < len(digests) else None


def length_ratio(pair: ContrastivePair, settings: RuleSettings) -> str | None:
    """One context much longer than another, or with more images."""
    if pair.supporting.kind == "images":
        counts = {len(context.images) for context in pair.contexts}
        return "contexts with different numbers of images" if len(counts) > 1 else None
    lengths = [len(text_of(context)) for context in pair.contexts]
    return "length ratio of the contexts" if max(lengths) > settings.length_ratio * max(min(lengths), 1) else None


def distinctive_lines(patch: str, least: int) -> set[str]:
    """Added lines of a unified diff that nothing else in it shows: not removed, not unchanged, not mere punctuation."""
    added, other = set(), set()
    for line in patch.splitlines():
        if line.startswith(("+++", "---", "diff ", "index ", "@@")):
            continue
        (added if line.startswith("+") else other).add(line[1:].strip())
    return {line for line in added - other if len(line) >= least and sum(map(str.isalnum, line)) >= least // 2}


def answer_in_context(pair: ContrastivePair, settings: RuleSettings) -> str | None:
    """The answer, or for a patch a distinctive added line of it, stands in a context."""
    if pair.supporting.kind == "images":
        return None
    if _HUNK.search(pair.answer):
        wanted = distinctive_lines(pair.answer, settings.patch_line)
        what = "an added line of the patch"
    elif settings.whole_answer:
        wanted, what = {" ".join(pair.answer.split())}, "the answer"
    else:
        return None
    for place, context in enumerate(pair.contexts):
        text = text_of(context)
        flat = text if what.startswith("an added") else " ".join(text.split())
        if any(line in flat for line in wanted):
            return f"{what} shows in " + ("a confounder" if place else "the supporting context")
    return None


def label_sanity(pair: ContrastivePair, settings: RuleSettings) -> str | None:
    """An answer or question that cannot be meant."""
    if not pair.answer.strip() or not pair.query.strip():
        return "blank question or answer"
    if _MASK.search(pair.answer):
        return "the answer holds a mask"
    if pair.answer.strip() == pair.query.strip():
        return "the answer is the question"
    return None


Rule = Callable[[ContrastivePair, RuleSettings], "str | None"]
# In this order; the first reason counts. Images must be there before they are read.
PAIR_RULES: tuple[Rule, ...] = (
    label_sanity,
    missing_image,
    empty_context,
    identical_contexts,
    length_ratio,
    answer_in_context,
)


def broken_rule(pair: ContrastivePair, settings: RuleSettings) -> str | None:
    """The first reason to drop the pair by itself, or None."""
    return next((reason for rule in PAIR_RULES if (reason := rule(pair, settings))), None)


@dataclass(frozen=True)
class Facts:
    """What is remembered of a pair while the file is gone through.

    Attributes:
        couple: equal for the directions of one couple.
        contexts, supporting: digests.
        answer: digest of query and answer.
        reason: why a rule drops it; None if none does.
    """

    pair_id: str
    couple: str
    contexts: frozenset[str]
    supporting: str
    query: str
    answer: str
    reason: str | None


def facts_of(pair: ContrastivePair, settings: RuleSettings) -> Facts:
    """Digests of a pair and the verdict of the rules that look at one pair."""
    reason = broken_rule(pair, settings)
    if reason == "image file missing":
        return Facts(pair.pair_id, f"unreadable {pair.pair_id}", frozenset(), "", "", "", reason)
    digests = [context_digest(context) for context in pair.contexts]

    def short(text: str) -> str:
        return hashlib.blake2b(" ".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()

    return Facts(
        pair.pair_id, couple_of(pair), frozenset(digests), digests[0], short(pair.query), short(pair.answer), reason
    )


def rules_over_all(facts: Iterable[Facts], settings: RuleSettings) -> dict[str, str]:
    """Reasons by pair id for what only shows between pairs: duplicates, clashing labels, a direction that lacks."""
    reasons: dict[str, str] = {}
    couples: dict[str, list[Facts]] = defaultdict(list)
    seen: set[tuple[str, str, str, str]] = set()
    for fact in facts:
        identity = (fact.couple, fact.supporting, fact.query, fact.answer)
        if fact.reason is None and identity in seen:
            reasons[fact.pair_id] = "duplicate"
            continue
        seen.add(identity)
        couples[fact.couple].append(fact)
    for members in couples.values():
        supports: dict[tuple[str, str], set[str]] = defaultdict(set)
        for fact in members:
            supports[fact.query, fact.answer].add(fact.supporting)
        clashing = {key for key, found in supports.items() if len(found) > 1}
        covered = {fact.supporting for fact in members}
        for fact in members:
            if (fact.query, fact.answer) in clashing:
                reasons[fact.pair_id] = "the same answer is claimed for several contexts"
            elif settings.both_directions and fact.contexts != covered:
                reasons[fact.pair_id] = "a direction is missing"
    return reasons
