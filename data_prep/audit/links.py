"""What belongs together: the couple of a pair, the runs or images it shows, and whether all directions are there."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from data_prep.audit.view import PairView

# Parts of a provenance key that say its values name a run, an instance or an image.
_NAMING = {
    *("run", "runs", "instance", "instances", "trajectory", "trajectories", "couple"),
    *("image", "images", "original", "edited"),
}
_KEY_PARTS = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Link:
    """How one pair hangs together with others.

    Attributes:
        couple: equal for all directions of one couple.
        keys: what must not be on both sides of a fold: the couple, digests of contexts, names of runs and images.
        names: the name of each context, the supporting one first.
        digests: of each context's content, in that order.
    """

    couple: str
    keys: frozenset[str]
    names: tuple[str, ...]
    digests: tuple[str, ...]


def _scalars(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _scalars(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _scalars(inner)
    elif isinstance(value, str | int) and not isinstance(value, bool) and value != "":
        yield str(value)


def _named(provenance: dict[str, Any], start: str) -> list[str]:
    """Names under keys such as ``supporting_run`` (start: ``support``)."""
    for key, value in sorted(provenance.items()):
        parts = _KEY_PARTS.findall(key.lower())
        if any(part.startswith(start) for part in parts) and (len(parts) == 1 or _NAMING & set(parts)):
            return list(_scalars(value))
    return []


def context_names(view: PairView) -> tuple[str, ...]:
    """A name for every context: what the provenance calls it, or its digest when the provenance does not say."""
    provenance = view.pair.provenance
    names = [*_named(provenance, "support"), *_named(provenance, "confound")]
    if len(names) == len(view.contexts) == len(set(names)):
        return tuple(names)
    return tuple(context.digest for context in view.contexts)


def link(view: PairView) -> Link:
    """The links of one pair, from its provenance and its contexts' content."""
    digests = tuple(context.digest for context in view.contexts)
    names = context_names(view)
    keys = set(digests) | set(names)
    given = None
    for key, value in view.pair.provenance.items():
        parts = set(_KEY_PARTS.findall(key.lower()))
        if parts & _NAMING:
            keys.update(_scalars(value))
        if "couple" in parts:
            given = "\0".join(_scalars(value)) or None
    text = given if given is not None else "\0".join(sorted(names))
    couple = hashlib.blake2b(f"{view.pair.domain}\0{text}".encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    return Link(couple, frozenset(keys | {couple}), names, digests)


class Directions(BaseModel):
    """Whether every context of a couple is as often right as wrong.

    Attributes:
        couples: how many there are.
        both: share of couples in which every context supports at least once.
        balanced: share in which every context supports equally often.
        same_contexts: share in which each context reads the same in all its directions.
        one_sided: ids of a few pairs of couples that are not balanced.
    """

    couples: int
    both: float
    balanced: float
    same_contexts: float
    one_sided: list[str]


def directions(links: Sequence[Link], ids: Sequence[str]) -> Directions:
    """Count directions of couples; ``links`` and ``ids`` are parallel."""
    members: dict[str, list[int]] = defaultdict(list)
    for number, one in enumerate(links):
        members[one.couple].append(number)
    both = balanced = same = 0
    one_sided: list[str] = []
    for rows in members.values():
        right = Counter(links[row].names[0] for row in rows)
        shown = {name for row in rows for name in links[row].names}
        texts = {(n, d) for row in rows for n, d in zip(links[row].names, links[row].digests, strict=True)}
        same += len(texts) == len(shown)
        both += len(right) == len(shown)
        if len(right) == len(shown) and len(set(right.values())) == 1:
            balanced += 1
        elif len(one_sided) < 5:
            one_sided.append(ids[rows[0]])
    count = len(members)
    return Directions(
        couples=count, both=both / count, balanced=balanced / count, same_contexts=same / count, one_sided=one_sided
    )
