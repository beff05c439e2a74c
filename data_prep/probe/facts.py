"""What is known of the pairs without a model: what belongs together, lengths, likeness, and how far words alone get."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from contextrl_verl.pairs import ContrastivePair
from data_prep.audit.baselines import Frequencies, overlap_scores, terms_of
from data_prep.audit.links import Grouping, Link, link
from data_prep.audit.view import ContextView, PairView, Views
from data_prep.probe.statistics import choice_credit

BASELINES = ("overlap: jaccard", "overlap: tf-idf", "overlap: lines", "overlap: fuzzy")


@dataclass
class PairFacts:
    """Of one pair.

    Attributes:
        couple: number of its couple; ``component`` of the pairs that share runs, images or contexts with it.
        characters: of its contexts' text together.
        similarity: shared words over all words (Jaccard) of the supporting context and the confounder most like it;
            None for images.
        baselines: [4] credit of each of :data:`BASELINES`; None for images.
    """

    pair_id: str
    domain: str
    split: str
    options: int
    couple: int
    component: int
    characters: int
    similarity: float | None
    baselines: np.ndarray | None


def facts_of(pairs: Iterable[ContrastivePair], seed: int = 1) -> list[PairFacts]:
    """Facts of every pair, in order; takes one pair at a time."""
    views, frequencies = Views(seed), Frequencies()
    links: list[Link] = []
    facts: list[PairFacts] = []
    waiting = []
    for row, pair in enumerate(pairs):
        view = views.of(pair, row)
        links.append(link(view))
        one = PairFacts(
            pair_id=pair.pair_id,
            domain=pair.domain,
            split=pair.split,
            options=len(view.contexts),
            couple=-1,
            component=-1,
            characters=sum(len(context.text) for context in view.contexts),
            similarity=None,
            baselines=None,
        )
        facts.append(one)
        if view.contexts[0].kind != "images":
            one.similarity = max(_jaccard(view.contexts[0], other) for other in view.contexts[1:])
            one.baselines = _overlap(view)
            for context in view.contexts:
                frequencies.add(context)
            waiting.append((one, terms_of(view)))
    grouping = Grouping(links) if links else None
    for number, one in enumerate(facts):
        one.couple, one.component = int(grouping.couple[number]), int(grouping.component[number])
    # How rare a word is shows only once all pairs are read.
    for one, terms in waiting:
        one.baselines[1] = choice_credit(frequencies.score(terms))
    return facts


def _overlap(view: PairView) -> np.ndarray:
    jaccard, lines, fuzzy = (choice_credit(column) for column in overlap_scores(view).T)
    return np.asarray([jaccard, 0.0, lines, fuzzy])


def _jaccard(one: ContextView, other: ContextView) -> float:
    shared = len(np.intersect1d(one.words.indices, other.words.indices, assume_unique=True))
    union = one.words.nnz + other.words.nnz - shared
    return shared / union if union else 1.0
