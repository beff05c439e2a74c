"""From a stream of pairs to arrays of features, in bounded memory.

Of each pair only its numbers are kept. When there are more pairs than ``most``, whole couples are drawn by a hash of
their name, so that the sample depends on the seed and the data, not on how far the stream has been read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import ContrastivePair
from data_prep.audit.baselines import BASELINES, Frequencies, Terms, overlap_scores, terms_of
from data_prep.audit.features import FeatureGroup
from data_prep.audit.links import Link, link
from data_prep.audit.models import Features
from data_prep.audit.view import PairView, Views
from data_prep.common.seeded import draw

# Of one pair and group: numbers of the contexts, numbers of the contexts to be crossed, and of the pair.
_Block = tuple[np.ndarray, np.ndarray, np.ndarray]


class Row(NamedTuple):
    """What is kept of a pair; ``overlap`` and ``terms`` are for the baselines."""

    index: int
    pair_id: str
    domain: str
    link: Link
    blocks: list[_Block]
    overlap: np.ndarray | None
    terms: Terms | None


class Table(NamedTuple):
    """Rows of the audited pairs in the file's order, how many were read, and words over all contexts read."""

    rows: list[Row]
    read: int
    frequencies: Frequencies


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
    kept: dict[bytes, list[Row]] = {}
    limit, total, read = b"\xff" * 9, 0, 0
    shapes: dict[str, tuple] = {}
    for read, pair in enumerate(pairs, 1):
        view = views.of(pair, read - 1)
        one = link(view)
        for context in view.contexts if evidence else ():
            frequencies.add(context)
        drawn = draw(seed, one.couple)
        if drawn >= limit:
            continue
        blocks = [_block(view, group, shapes) for group in groups]
        baselines = (overlap_scores(view), terms_of(view)) if evidence else (None, None)
        kept.setdefault(drawn, []).append(Row(read - 1, pair.pair_id, pair.domain, one, blocks, *baselines))
        total += 1
        while total > most and len(kept) > 1:
            limit = max(kept)
            total -= len(kept.pop(limit))
    return Table(sorted(chain.from_iterable(kept.values()), key=lambda row: row.index), read, frequencies)


def features_of(rows: Sequence[Row], group: int, wide: bool) -> Features:
    """The numbers of one of the groups for all rows."""
    columns, crossed, of_pair = zip(*(row.blocks[group] for row in rows), strict=True)
    return Features(np.concatenate(columns), np.concatenate(crossed), np.stack(of_pair), wide)


def baseline_scores(rows: Sequence[Row], frequencies: Frequencies) -> dict[str, np.ndarray]:
    """[contexts] scores of every baseline; none if they were not asked for."""
    if rows[0].overlap is None:
        return {}
    jaccard, lines, fuzzy = np.concatenate([row.overlap for row in rows]).T
    tf_idf = np.concatenate([frequencies.score(row.terms) for row in rows])
    return dict(zip(BASELINES, (jaccard, tf_idf, lines, fuzzy), strict=True))


def _block(view: PairView, group: FeatureGroup, shapes: dict[str, tuple]) -> _Block:
    count = len(view.contexts)
    crossed = [function(view) for function in group.crossed] if group.crossed else [np.zeros((count, 0)), []]
    columns = group.columns(view) if group.columns else np.zeros((count, 0))
    block = tuple(map(np.asarray, (columns, *crossed)))
    widths = tuple(array.shape[-1] for array in block)
    if odd := [array.shape for array in block[:2] if array.ndim != 2 or len(array) != count]:
        problem = f"has shape {odd[0]} for {count} contexts. Fix: return one row of numbers for each context."
    elif not all(np.isfinite(array).all() for array in block):
        problem = "has numbers that are not finite. Fix: guard its divisions and logarithms."
    elif (before := shapes.setdefault(group.name, widths)) != widths:
        problem = f"has {widths} columns, and {before} before. Fix: give every pair the same columns."
    else:
        return block
    raise ConfigError(f"row {view.index}, pair {view.pair.pair_id!r}: feature group {group.name!r} {problem}")
