"""From a stream of pairs to arrays of features, in bounded memory.

Of each pair only its numbers are kept. When there are more pairs than ``most``, whole couples are drawn by a hash of
their name, so that the sample depends on the seed and the data, not on how far the stream has been read.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import ContrastivePair
from data_prep.audit.baselines import BASELINES, Frequencies, Terms, overlap_scores, terms_of
from data_prep.audit.links import Link, link
from data_prep.audit.models import Features, Layout
from data_prep.audit.registry import FeatureGroup
from data_prep.audit.view import PairView, Views
from data_prep.common.seeded import draw

# Of one pair and group: numbers of the contexts, numbers of the contexts to be crossed, and of the pair.
_Block = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass
class Row:
    """What is kept of a pair; ``overlap`` and ``terms`` are for the baselines."""

    index: int
    pair_id: str
    domain: str
    contexts: int
    link: Link
    blocks: list[_Block]
    overlap: np.ndarray | None
    terms: Terms | None


@dataclass
class Table:
    """Rows of the audited pairs.

    Attributes:
        rows: in the file's order.
        read: how many pairs the stream held.
        frequencies: of words over all contexts read.
    """

    groups: Sequence[FeatureGroup]
    rows: list[Row]
    read: int
    frequencies: Frequencies

    def of_domain(self, domain: str) -> Table:
        """The rows of one domain."""
        return replace(self, rows=[row for row in self.rows if row.domain == domain])

    def layout(self) -> Layout:
        """Which contexts belong to which row."""
        return Layout(np.asarray([row.contexts for row in self.rows]))

    def features(self, group: int) -> Features:
        """The numbers of a group for all rows."""
        columns, crossed, of_pair = zip(*(row.blocks[group] for row in self.rows), strict=True)
        contexts = (np.concatenate(columns), np.concatenate(crossed))
        return Features(*contexts, np.stack(of_pair), self.groups[group].wide)

    def baselines(self) -> dict[str, np.ndarray]:
        """[contexts] scores of every baseline; none if they were not asked for."""
        if self.rows[0].overlap is None:
            return {}
        jaccard, lines, fuzzy = np.concatenate([row.overlap for row in self.rows]).T
        tf_idf = np.concatenate([self.frequencies.score(row.terms) for row in self.rows])
        return dict(zip(BASELINES, (jaccard, tf_idf, lines, fuzzy), strict=True))


def read_table(
    pairs: Iterable[ContrastivePair], groups: Sequence[FeatureGroup], *, seed: int, most: int, evidence: bool
) -> Table:
    """Compute every group's numbers of every pair.

    Args:
        most: how many pairs to keep, to the nearest couple.
        evidence: whether to compute the overlap baselines too.

    Raises:
        ConfigError: a group's numbers are not finite or of another shape than before, or an image is broken.
    """
    views, frequencies = Views(seed), Frequencies()
    # Couples by a drawn number; those of the largest are left out when there are too many.
    kept: dict[int, list[Row]] = {}
    largest: list[int] = []
    limit = 1 << 64
    total = read = 0
    shapes: dict[str, tuple] = {}
    for read, pair in enumerate(pairs, 1):
        view = views.of(pair, read - 1)
        one = link(view)
        for context in view.contexts if evidence else ():
            frequencies.add(context)
        drawn = int.from_bytes(draw(seed, one.couple))
        if drawn >= limit:
            continue
        if drawn not in kept:
            kept[drawn] = []
            heapq.heappush(largest, -drawn)
        blocks = [_block(view, group, shapes) for group in groups]
        baselines = (overlap_scores(view), terms_of(view)) if evidence else (None, None)
        kept[drawn].append(Row(view.index, pair.pair_id, pair.domain, len(view.contexts), one, blocks, *baselines))
        total += 1
        while total > most and len(kept) > 1:
            limit = -heapq.heappop(largest)
            total -= len(kept.pop(limit))
    return Table(groups, sorted(chain.from_iterable(kept.values()), key=lambda row: row.index), read, frequencies)


def _block(view: PairView, group: FeatureGroup, shapes: dict[str, tuple]) -> _Block:
    where = f"row {view.index}, pair {view.pair.pair_id!r}: feature group {group.name!r}"
    count = len(view.contexts)
    columns = np.zeros((count, 0)) if group.columns is None else group.columns(view)
    crossed = (np.zeros((count, 0)), []) if group.crossed is None else (function(view) for function in group.crossed)
    block = tuple(np.asarray(numbers) for numbers in (columns, *crossed))
    for array in block[:2]:
        if array.ndim != 2 or len(array) != count:
            raise ConfigError(
                f"{where} has shape {array.shape} for {count} contexts. "
                "Fix: return one row of numbers for each context."
            )
    if not all(np.isfinite(array).all() for array in block):
        raise ConfigError(f"{where} has numbers that are not finite. Fix: guard its divisions and logarithms.")
    shape = tuple(array.shape[-1] for array in block)
    if shapes.setdefault(group.name, shape) != shape:
        raise ConfigError(
            f"{where} has {shape} columns, and {shapes[group.name]} before. Fix: give every pair the same columns."
        )
    return block
