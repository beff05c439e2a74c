"""Words in common as a shortcut: how far BM25 gets in telling which of two runs a patch is of.

First of couples, from words that the scan stored with every run, so that those it gets wrong come first and nothing is
masked or built for the others. Then of the pairs that were built, of which the easiest are left out until the share
that BM25 gets right is no more than a cap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contextrl_verl.pairs import ContrastivePair
from data_prep.common.lexical import Frequencies, Terms, Words, summed, terms_of, words_of
from data_prep.trajectories.diffs import patch_lines
from data_prep.trajectories.run import AgentRun
from data_prep.verify.rules import context_digest, couple_of

if TYPE_CHECKING:
    from data_prep.trajectories.candidates import Couple
    from data_prep.trajectories.passes import Light

_PARTS = ("answer", "turns", "issue")
_IDS, _COUNTS = pa.list_(pa.int32()), pa.list_(pa.int16())
FIELDS = {f"{part}_{what}": kind for part in _PARTS for what, kind in (("words", _IDS), ("counts", _COUNTS))}
# An added line with fewer characters may well be old text too.
_LEAST_LINE = 8


def keys(run: AgentRun, answer: str) -> dict[str, Any]:
    """Values of :data:`FIELDS`: words of the answer as it is shown, of the run's turns without the lines that its patch
    adds, and of its issue, which its turns here do not hold."""
    turns = "\n".join(message.content for message in run.messages if message.role != "system")
    # As far as is quick: what is masked in the end depends on the other run, too.
    added = {line.strip() for line in patch_lines(run.patch).added}
    lines = sorted((line for line in added if len(line) >= _LEAST_LINE), key=lambda line: (-len(line), line))
    for text in filter(None, (run.issue, *lines)):
        turns = turns.replace(text, " ")
    row = {}
    for part, text in zip(_PARTS, (answer, turns, run.issue), strict=True):
        words = words_of(text)
        row |= {f"{part}_words": words.ids, f"{part}_counts": np.minimum(words.counts, 2**15 - 1).astype(np.int16)}
    return row


def of_couples(lights: Sequence[Light], couples: Iterable[Couple], issue: bool = True) -> dict[Couple, float]:
    """How well BM25 tells the runs of each couple apart: mean over both patches of the margin, from -1 (wrong) to 1.

    ``issue``: whether contexts show it. How rare a word is is counted among the repository's runs in some couple.
    """
    inside: dict[str, list[Couple]] = defaultdict(list)
    for couple in couples:
        inside[lights[couple[0]].repository].append(couple)
    runs = {name: sorted({run for couple in members for run in couple}) for name, members in inside.items()}
    answers = {run: words for run, (words,) in _stored(lights, chain(*runs.values()), _PARTS[:1])}
    asked = {name: np.unique(np.concatenate([answers[run].ids for run in members])) for name, members in runs.items()}
    contexts: dict[int, Words] = {}
    for run, parts in _stored(lights, answers, _PARTS[1:] if issue else _PARTS[1:2]):
        words = summed(*map(np.concatenate, zip(*(part[:2] for part in parts), strict=True)))
        # Only words that some answer has are kept: a tenth.
        kept = np.isin(words.ids, asked[lights[run].repository])
        contexts[run] = Words(words.ids[kept], words.counts[kept].astype(np.int16), words.total)
    found: dict[Couple, float] = {}
    for name, members in inside.items():
        frequencies = Frequencies()
        for run in runs[name]:
            frequencies.add(contexts[run].ids, contexts[run].total)
        for one, other in members:
            sides = ((one, [contexts[one], contexts[other]]), (other, [contexts[other], contexts[one]]))
            margins = [margin(frequencies.score(terms_of(answers[own], both))) for own, both in sides]
            found[one, other] = sum(margins) / 2
    return found


def _stored(lights: Sequence[Light], wanted: Iterable[int], parts: Sequence[str]) -> Iterator[tuple[int, list[Words]]]:
    """Words of some parts of some runs."""
    files: dict[str, list[int]] = defaultdict(list)
    for run in sorted(wanted):
        files[lights[run].stored[0]].append(run)
    names = [f"{part}_{what}" for part in parts for what in ("words", "counts")]
    for path, runs in files.items():
        table = pq.read_table(path, columns=names).take([lights[run].stored[1] for run in runs])
        columns = [table.column(name).combine_chunks() for name in names]
        for row, run in enumerate(runs):
            values = [column[row].values.to_numpy() for column in columns]
            pairs = zip(values[::2], values[1::2], strict=True)
            yield run, [Words(ids, counts, int(counts.sum())) for ids, counts in pairs]


def margin(scores: np.ndarray) -> float:
    """By how much the first of several scores is above the best of the others, as a share of both: -1 to 1."""
    best = float(scores[1:].max())
    total = abs(float(scores[0])) + abs(best)
    return (float(scores[0]) - best) / total if total else 0.0


class Scored(NamedTuple):
    """A pair as far as BM25 needs it."""

    pair_id: str
    kind: str
    couple: str
    terms: Terms
    contexts: list[Words]


def scored(pairs: Iterable[ContrastivePair]) -> list[Scored]:
    """What is remembered of pairs, which are taken one at a time; pairs of one run share its words."""
    known: dict[str, Words] = {}
    found = []
    for pair in pairs:
        contexts = []
        for context in pair.contexts:
            digest = context_digest(context)
            if digest not in known:
                known[digest] = words_of("\n".join(turn.content for turn in context.messages or ()))
            contexts.append(known[digest])
        kind, terms = str(pair.provenance.get("kind") or "other"), terms_of(words_of(pair.answer), contexts)
        found.append(Scored(pair.pair_id, kind, couple_of(pair), terms, contexts))
    return found


def _margins(pairs: Sequence[Scored]) -> np.ndarray:
    """[pairs] how far the supporting context is ahead; how rare a word is is counted in all the contexts given."""
    frequencies = Frequencies()
    for pair in pairs:
        for words in pair.contexts:
            frequencies.add(words.ids, words.total)
    return np.array([margin(frequencies.score(pair.terms)) for pair in pairs])


def _right(margins: np.ndarray) -> np.ndarray:
    """[pairs] 1 where BM25 is right, 0.5 where it cannot tell."""
    return np.where(np.abs(margins) < 1e-9, 0.5, margins > 0)


def baseline(pairs: Sequence[Scored]) -> dict[str, dict[str, float]]:
    """How many pairs there are, and the share of them that BM25 gets right: by kind, and of ``all``."""
    right = _right(_margins(pairs))
    kinds = {"all": np.ones(len(pairs), bool)}
    kinds |= {kind: np.array([pair.kind == kind for pair in pairs]) for kind in sorted({pair.kind for pair in pairs})}
    return {
        kind: {"pairs": int(of_kind.sum()), "right": round(float(right[of_kind].mean()), 4)}
        for kind, of_kind in kinds.items()
        if of_kind.any()
    }


def over_cap(pairs: Sequence[Scored], cap: float) -> set[str]:
    """Ids of the pairs to leave out, by couple and the clearest first, so that of each kind BM25 gets at most a share
    ``cap`` right."""
    left, gone = list(pairs), set()
    while left:
        margins = _margins(left)
        couples: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
        for pair, right, value in zip(left, _right(margins), margins, strict=True):
            couples[pair.kind][pair.couple].append((right, value))
        # What is rare changes with what is left out, so it is counted again.
        over = {(kind, couple) for kind, members in couples.items() for couple in _clearest(members, cap)}
        if not over:
            break
        gone |= {pair.pair_id for pair in left if (pair.kind, pair.couple) in over}
        left = [pair for pair in left if pair.pair_id not in gone]
    return gone


def _clearest(couples: Mapping[str, list[tuple[float, float]]], cap: float) -> Iterator[str]:
    """Couples to leave out until the share of their pairs that is right is no more than ``cap``."""
    right, count = (sum(sums) for sums in zip(*((sum(r for r, _ in c), len(c)) for c in couples.values()), strict=True))
    for name in sorted(couples, key=lambda name: (np.mean(couples[name], 0).tolist(), name), reverse=True):
        if right <= cap * count + 1e-9:
            return
        right, count = right - sum(one for one, _ in couples[name]), count - len(couples[name])
        yield name
