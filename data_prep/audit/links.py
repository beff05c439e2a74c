"""What belongs together: couples, shared runs and images; and folds that learn nothing of a run from itself.

Pairs that share a run, an image or a context hang together in components. Small components go into one fold whole. A
component larger than a fold's share is cut into neighbouring couples, and training then leaves out every pair that
shares something with the fold's test pairs. So whatever the shape of the data, no key of a test pair is trained on.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel
from scipy.sparse import block_array
from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import MultiLabelBinarizer

from data_prep.audit.view import PairView

# Parts of a provenance key that say its values name a run, an instance or an image.
_NAMING = {
    *("run", "runs", "instance", "instances", "trajectory", "trajectories", "couple"),
    *("image", "images", "original", "edited"),
}
_KEY_PARTS = re.compile(r"[a-z]+")
# A name in more than this share of the pairs names no run; it is the data set, or the model that ran.
_COMMON = 0.25


@dataclass(frozen=True)
class Link:
    """How one pair hangs together with others.

    ``couple`` is equal for all its directions. ``keys`` must not be on both sides of a fold: the couple, digests of
    contexts, names of runs and images. ``names`` and ``digests`` are of each context, the supporting one first.
    """

    couple: str
    keys: frozenset[str]
    names: tuple[str, ...]
    digests: tuple[str, ...]


def _scalars(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
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
    names = [*_named(view.pair.provenance, "support"), *_named(view.pair.provenance, "confound")]
    if len(names) == len(view.contexts) == len(set(names)):
        return tuple(names)
    return tuple(context.digest for context in view.contexts)


def link(view: PairView) -> Link:
    """The links of one pair, from its provenance and its contexts' content."""
    digests, names = tuple(context.digest for context in view.contexts), context_names(view)
    keys, text = {*digests, *names}, "\0".join(sorted(names))
    for key, value in view.pair.provenance.items():
        parts = set(_KEY_PARTS.findall(key.lower()))
        if parts & _NAMING:
            keys.update(_scalars(value))
        if "couple" in parts:
            text = "\0".join(_scalars(value)) or text
    couple = hashlib.blake2b(f"{view.pair.domain}\0{text}".encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    return Link(couple, frozenset(keys | {couple}), names, digests)


class Directions(BaseModel):
    """Whether every context of a couple is as often right as wrong.

    Attributes:
        both, balanced: share of couples in which every context supports at least once, and equally often.
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
    members: dict[str, list[tuple[Link, str]]] = defaultdict(list)
    for one, pair_id in zip(links, ids, strict=True):
        members[one.couple].append((one, pair_id))
    found, one_sided = [], []
    for rows in members.values():
        right = Counter(one.names[0] for one, _ in rows)
        texts = {text for one, _ in rows for text in zip(one.names, one.digests, strict=True)}
        shown = len({name for name, _ in texts})
        found.append((len(right) == shown, len(right) == shown and len(set(right.values())) == 1, len(texts) == shown))
        if not found[-1][1]:
            one_sided.append(rows[0][1])
    both, balanced, same = np.mean(found, 0)
    return Directions(couples=len(found), both=both, balanced=balanced, same_contexts=same, one_sided=one_sided[:5])


class Grouping:
    """[pairs] number of each pair's ``couple``, and of its ``component`` of pairs that share keys; folds of both."""

    def __init__(self, links: Sequence[Link]) -> None:
        self.couple = pd.factorize(pd.Series([link.couple for link in links]))[0]
        counts = Counter(key for link in links for key in link.keys)
        limit = max(2.0, _COMMON * len(links))
        keys = [{k for k in link.keys if counts[k] <= limit or k in link.digests or k == link.couple} for link in links]
        self._holds = MultiLabelBinarizer(sparse_output=True).fit_transform(keys)  # [pairs, keys]
        graph = block_array([[None, self._holds], [self._holds.T, None]], format="csr")
        self.component = connected_components(graph, directed=False)[1][: len(links)]
        # Neighbours stand near each other.
        walk = reverse_cuthill_mckee(graph, symmetric_mode=True)
        self._walk = walk[walk < len(links)]

    def blocks(self, folds: int) -> np.ndarray:
        """[pairs] number of the block of each: a component, or neighbouring couples of one too large for a fold."""
        walked = pd.DataFrame({"couple": self.couple, "component": self.component}).iloc[self._walk]
        couples = walked.groupby("couple", sort=False).agg(component=("component", "first"), size=("component", "size"))
        before = couples.groupby("component")["size"].cumsum() - couples["size"]
        share = max(1, len(self.couple) // (2 * folds))
        small = couples.groupby("component")["size"].transform("sum") <= share
        couples["part"] = np.where(small, 0, before // share)
        return couples.groupby(["component", "part"]).ngroup().loc[self.couple].to_numpy()

    def splits(
        self, folds: int, rng: np.random.Generator, couples_only: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(training, test) masks of pairs, one of each fold: no key, or with ``couples_only`` no couple, is in both."""
        blocks = self.couple if couples_only else self.blocks(folds)
        count = blocks.max() + 1
        if count == 1:
            yield np.zeros(len(blocks), bool), np.ones(len(blocks), bool)
            return
        # Blocks of one size are dealt out in the order of their numbers, so other numbers make other folds.
        for _, chosen in GroupKFold(min(folds, count)).split(blocks, groups=rng.permutation(count)[blocks]):
            test = np.isin(np.arange(len(blocks)), chosen)
            held = self._holds[test].sum(0) > 0
            yield (~test if couples_only else self._holds @ np.ravel(held) == 0), test
