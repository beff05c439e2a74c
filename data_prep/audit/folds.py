"""Folds that learn nothing about a run from itself: couples stay whole, and no run is on both sides.

Pairs that share a run, an image or a context hang together in components. Small components go into one fold whole. A
component larger than a fold's share is cut into neighbouring couples, and training then leaves out every pair that
shares something with the fold's test pairs. So whatever the shape of the data, no key of a test pair is trained on.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence

import numpy as np

from data_prep.audit.links import Link

# A name in more than this share of the pairs names no run; it is the data set, or the model that ran.
_COMMON = 0.25


class Grouping:
    """Couples and their neighbours.

    Args:
        links: of the pairs, in order.

    Attributes:
        couple: [pairs] number of each pair's couple.
        component: [pairs] number of each pair's component of shared keys.
    """

    def __init__(self, links: Sequence[Link]) -> None:
        numbers: dict[str, int] = {}
        self.couple = np.asarray([numbers.setdefault(link.couple, len(numbers)) for link in links], int)
        counts = Counter(key for link in links for key in link.keys)
        limit = max(2.0, _COMMON * len(links))
        self.keys = [
            frozenset(k for k in link.keys if counts[k] <= limit or k in link.digests or k == link.couple)
            for link in links
        ]
        self._holders: dict[str, list[int]] = defaultdict(list)
        for pair, keys in enumerate(self.keys):
            for key in keys:
                self._holders[key].append(pair)
        self._walks = list(self._components())
        self.component = np.zeros(len(links), int)
        for number, walk in enumerate(self._walks):
            self.component[walk] = number

    def _components(self) -> Iterator[list[int]]:
        """Pairs of each component, neighbours near each other (breadth first)."""
        seen = [False] * len(self.keys)
        visited: set[str] = set()
        for first in range(len(self.keys)):
            if seen[first]:
                continue
            seen[first] = True
            walk, queue = [], deque([first])
            while queue:
                pair = queue.popleft()
                walk.append(pair)
                for key in sorted(self.keys[pair] - visited):
                    visited.add(key)
                    for other in self._holders[key]:
                        if not seen[other]:
                            seen[other] = True
                            queue.append(other)
            yield walk

    def assign(self, folds: int, rng: np.random.Generator, couples_only: bool = False) -> np.ndarray:
        """[pairs] the fold of each pair: components whole where they fit, couples always whole."""
        if couples_only:
            order = rng.permutation(self.couple.max() + 1)
            return (order % folds)[self.couple]
        share = max(1, len(self.couple) // (2 * folds))
        blocks: list[list[int]] = []
        for walk in self._walks:
            couples = list(dict.fromkeys(self.couple[walk].tolist()))
            if len(walk) <= share:
                blocks.append(couples)
                continue
            sizes = Counter(self.couple[walk].tolist())
            block: list[int] = []
            for couple in couples:
                block.append(couple)
                if sum(sizes[one] for one in block) >= share:
                    blocks.append(block)
                    block = []
            if block:
                blocks.append(block)
        sizes = np.bincount(self.couple)
        of_couple = np.zeros(len(sizes), int)
        filled = np.zeros(folds)
        shuffled = [blocks[i] for i in rng.permutation(len(blocks))]
        for block in sorted(shuffled, key=lambda couples: -int(sizes[couples].sum())):
            fold = int(np.argmin(filled))
            of_couple[block] = fold
            filled[fold] += sizes[block].sum()
        return of_couple[self.couple]

    def training(self, test: np.ndarray, couples_only: bool = False) -> np.ndarray:
        """[pairs] bool: pairs that share no key with the test pairs (no couple, if ``couples_only``)."""
        if couples_only:
            return ~np.isin(self.couple, self.couple[test])
        held = {key for pair in np.flatnonzero(test) for key in self.keys[pair]}
        return ~test & np.asarray([held.isdisjoint(keys) for keys in self.keys])


def splits(
    grouping: Grouping, folds: int, rng: np.random.Generator, couples_only: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(training, test) masks of pairs, one of each fold that holds any pair."""
    of_pair = grouping.assign(folds, rng, couples_only)
    for fold in range(folds):
        test = of_pair == fold
        if test.any():
            yield grouping.training(test, couples_only), test
