"""From a stream of pairs to arrays of features, in bounded memory.

Of each pair only its numbers are kept. When there are more pairs than ``most``, whole couples are drawn by a hash of
their name, so that the sample depends on the seed and the data, not on how far the stream has been read.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from contextrl_verl.pairs import ContrastivePair
from data_prep.audit.baselines import Frequencies, Terms, overlap_scores, terms_of
from data_prep.audit.links import Link, link
from data_prep.audit.models import Features, Layout
from data_prep.audit.registry import FeatureGroup
from data_prep.audit.view import AuditError, PairView, Views

_Block = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]


@dataclass
class Row:
    """What is kept of a pair."""

    index: int
    pair_id: str
    domain: str
    contexts: int
    link: Link
    blocks: list[_Block]
    overlap: np.ndarray | None
    terms: Terms | None


class Table:
    """Rows of the audited pairs.

    Attributes:
        rows: in the file's order.
        read: how many pairs the stream held.
        frequencies: of words over all contexts read.
    """

    def __init__(self, groups: Sequence[FeatureGroup], rows: list[Row], read: int, frequencies: Frequencies) -> None:
        self.groups = list(groups)
        self.rows = rows
        self.read = read
        self.frequencies = frequencies

    def of_domain(self, domain: str) -> Table:
        """The rows of one domain."""
        return Table(self.groups, [row for row in self.rows if row.domain == domain], self.read, self.frequencies)

    def layout(self) -> Layout:
        """Which contexts belong to which row."""
        return Layout(np.asarray([row.contexts for row in self.rows]))

    def features(self, group: int, layout: Layout) -> Features:
        """The numbers of a group for all rows."""
        columns, crossed, of_pair = zip(*(row.blocks[group] for row in self.rows), strict=True)
        return Features(
            layout.owner,
            None if columns[0] is None else np.concatenate(columns),
            None if crossed[0] is None else np.concatenate(crossed),
            None if of_pair[0] is None else np.stack(of_pair),
            self.groups[group].wide,
        )

    def overlap(self, column: int) -> np.ndarray:
        """[contexts] scores of a baseline."""
        return np.concatenate([row.overlap[:, column] for row in self.rows])

    def tf_idf(self) -> np.ndarray:
        """[contexts] scores of tf-idf, with frequencies of the whole stream."""
        return np.concatenate([self.frequencies.score(row.terms) for row in self.rows])


def read_table(
    pairs: Iterable[ContrastivePair], groups: Sequence[FeatureGroup], *, seed: int, most: int, evidence: bool
) -> Table:
    """Compute every group's numbers of every pair.

    Args:
        most: how many pairs to keep, to the nearest couple.
        evidence: whether to compute the overlap baselines too.

    Raises:
        AuditError: a group's numbers are not finite or of another shape than before, or an image is broken.
    """
    views = Views(seed)
    frequencies = Frequencies()
    kept: dict[str, list[Row]] = {}
    # Couples by hash, largest first: the ones to leave out when there are too many.
    heap: list[tuple[int, str]] = []
    total = read = 0
    limit: int | None = None
    shapes: dict[int, tuple] = {}
    for index, pair in enumerate(pairs):
        read += 1
        view = views.of(pair, index)
        one = link(view)
        if evidence:
            for context in view.contexts:
                frequencies.add(context)
        place = _place(one.couple, seed)
        if limit is not None and place >= limit:
            continue
        if one.couple not in kept:
            kept[one.couple] = []
            heapq.heappush(heap, (-place, one.couple))
        kept[one.couple].append(_row(view, one, groups, evidence, shapes))
        total += 1
        while total > most and len(heap) > 1:
            negative, couple = heapq.heappop(heap)
            limit = -negative
            total -= len(kept.pop(couple))
    rows = sorted((row for rows in kept.values() for row in rows), key=lambda row: row.index)
    return Table(groups, rows, read, frequencies)


def _place(couple: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{couple}".encode(), digest_size=8).digest(), "big")


def _row(view: PairView, one: Link, groups: Sequence[FeatureGroup], evidence: bool, shapes: dict[int, tuple]) -> Row:
    blocks: list[_Block] = []
    for number, group in enumerate(groups):
        columns = None if group.columns is None else np.asarray(group.columns(view))
        crossed = of_pair = None
        if group.crossed is not None:
            crossed, of_pair = (np.asarray(function(view)) for function in group.crossed)
        _check(view, group, (columns, crossed, of_pair), shapes, number)
        blocks.append((columns, crossed, of_pair))
    return Row(
        view.index,
        view.pair.pair_id,
        view.pair.domain,
        len(view.contexts),
        one,
        blocks,
        overlap_scores(view) if evidence else None,
        terms_of(view) if evidence else None,
    )


def _check(view: PairView, group: FeatureGroup, block: _Block, shapes: dict[int, tuple], number: int) -> None:
    where = f"row {view.index}, pair {view.pair.pair_id!r}: feature group {group.name!r}"
    columns, crossed, of_pair = block
    for array in (columns, crossed):
        if array is not None and (array.ndim != 2 or len(array) != len(view.contexts)):
            raise AuditError(
                f"{where} has shape {array.shape} for {len(view.contexts)} contexts. "
                "Fix: return one row of numbers for each context."
            )
    if any(array is not None and not np.isfinite(array).all() for array in block):
        raise AuditError(f"{where} has numbers that are not finite. Fix: guard its divisions and logarithms.")
    shape = tuple(None if array is None else array.shape[-1:] for array in (columns, crossed, of_pair))
    if shapes.setdefault(number, shape) != shape:
        raise AuditError(
            f"{where} has {shape} columns, and {shapes[number]} before. Fix: give every pair the same columns."
        )
