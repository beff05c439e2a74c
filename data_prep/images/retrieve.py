"""Couples found in a source: one question, two pictures that look alike, two different answers.

Couples are never enumerated beyond pictures asked the same question, and of these only the ones that the search finds;
what falls away before is counted by arithmetic.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from math import comb, inf
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import Funnel, Stage
from data_prep.common.splits import draw
from data_prep.images.embed.parts import Embeddings
from data_prep.images.item import AnswerKey, ImageCouple, Template, VqaItem, answer_key, in_turns, question_key

# faiss is exact; the other two are quicker among hundreds of thousands of rows and may miss some pairs.
Engine = Literal["faiss", "faiss-hnsw", "faiss-ivf"]
_BLOCK = 2048
# Scores of a block at most, 12 bytes each.
_SCORES = 1 << 24
# Inverted lists: about so many rows in each, and one in so many of them is looked into.
_ROWS_PER_LIST, _SHARE_OF_LISTS = 200, 8
# Pictures whose perceptual hashes differ in no more bits, and whose small copies in no cell by more (of 255), are the
# same picture, encoded again.
SAME_HASH, SAME_LOOK = 10, 32
# Couples found: places in their question's items, and the stable pseudo-random number that draws them.
_COUPLE = np.dtype([("one", np.int64), ("other", np.int64), ("cosine", np.float64), ("rank", np.uint64)])


@dataclass(frozen=True)
class RetrieveSettings:
    """Conditions of a couple.

    Attributes:
        low, high: band of the cosine.
        template: questions are the same if ``exact`` letter by letter, or ``normalised`` (case, blanks, punctuation).
        per_image: couples that a picture may be in.
        limit: couples at most; None takes all that ``per_image`` allows.
        pool: couples of a question that the choice is made from; beyond it they are drawn from ``seed``.
    """

    low: float = 0.85
    high: float | None = None
    template: Template = "normalised"
    per_image: Annotated[int, Field(ge=1)] = 4
    limit: Annotated[int, Field(ge=1)] | None = None
    pool: Annotated[int, Field(ge=1)] = 20_000
    engine: Engine = "faiss"
    seed: int = 1

    def __post_init__(self) -> None:
        if self.high is not None and not self.low <= self.high:
            raise ConfigError(f"The band of cosines is {self.low} to {self.high}. Fix: give the lower bound first.")


@dataclass
class _Group:
    """A question and its items, one of each picture that it is asked of: (N,) rows of the pictures in the embeddings,
    which ascend, and (N,) places of the items' answers in ``answers``, which are distinct."""

    name: str
    items: list[VqaItem]
    rows: np.ndarray
    kinds: np.ndarray
    answers: list[AnswerKey]

    def shown(self, one: int, other: int, cosine: float) -> dict[str, Any]:
        """A couple as a sample for the report."""
        pair = [self.items[one], self.items[other]]
        answers, images = [item.answer for item in pair], [item.image for item in pair]
        return {"images": images, "question": pair[0].question, "answers": answers, "cosine": round(float(cosine), 4)}


def pairs_above(
    vectors: np.ndarray, threshold: float, *, engine: Engine = "faiss", block: int = _BLOCK
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of ``vectors``, (N, D) float32 rows of length 1, with ``cosine >= threshold``, in a fixed order.

    Yields:
        Of at most ``block`` rows: (M,) int64 row numbers ``i < j``, and (M,) float64 copies of their cosines.
    """
    import faiss

    count = len(vectors)
    if count < 2:
        return
    vectors = np.ascontiguousarray(vectors, np.float32)
    index = _index(vectors, engine)
    # faiss leaves out what equals the bound.
    bound = float(np.nextafter(np.float32(threshold), np.float32(-2)))
    block = max(1, min(block, _SCORES // count))
    threads = faiss.omp_get_max_threads()
    for start in range(0, count, block):
        rows = vectors[start : start + block]
        # A graph depends on the order in which threads add to it; one thread builds the same one every time.
        faiss.omp_set_num_threads(1 if engine == "faiss-hnsw" else threads)
        # Rows meet only those before them, so each pair is scored once.
        index.add(rows)
        faiss.omp_set_num_threads(threads)
        ends, cosine, i = index.range_search(rows, bound)
        j = np.repeat(np.arange(start, start + len(rows)), np.diff(ends).astype(np.int64))
        before = np.flatnonzero(i < j)
        # In order and once: faiss hands them over as its threads come to them, a graph some of them twice.
        kept = before[np.unique(i[before] * count + j[before], return_index=True)[1]]
        yield i[kept], j[kept], cosine[kept].astype(np.float64)


def _index(vectors: np.ndarray, engine: Engine) -> Any:
    import faiss

    lists = max(1, len(vectors) // _ROWS_PER_LIST)
    form = {"faiss": "Flat", "faiss-hnsw": "HNSW32", "faiss-ivf": f"IVF{lists},Flat"}[engine]
    index = faiss.index_factory(vectors.shape[1], form, faiss.METRIC_INNER_PRODUCT)
    if engine == "faiss-hnsw":
        index.hnsw.efConstruction, index.hnsw.efSearch = 80, 256
    elif engine == "faiss-ivf":
        index.nprobe = max(1, lists // _SHARE_OF_LISTS)
        index.cp.min_points_per_centroid = 1
        index.train(vectors)
    return index


def find_image_couples(
    items: Iterable[VqaItem], embeddings: Embeddings, settings: RetrieveSettings, funnel: Funnel
) -> list[ImageCouple]:
    """Couples that meet every condition, in the order of choice; what is dropped is counted in ``funnel``."""
    groups = _groups(items, embeddings, settings, funnel.stage("question", "questions"))
    asked, inside = funnel.stage("same question", "couples"), sum(comb(len(group.items), 2) for group in groups)
    asked.keep(inside)
    if others := comb(sum(len(group.items) for group in groups), 2) - inside:
        asked.drop("another question", count=others)
    names = ("look alike", "different answers", "another picture", "drawn", "chosen")
    alike, _, _, drawn, chosen = stages = [funnel.stage(name, "couples") for name in names]
    ranks = np.array([_number(settings.seed, "picture", name) for name in embeddings.images], np.uint64)
    pools = []
    for group in groups:
        pool, seen, salt = np.zeros(0, _COUPLE), 0, _number(settings.seed, "question", group.name)
        for one, other, cosine in pairs_above(embeddings.vectors[group.rows], settings.low, engine=settings.engine):
            block = np.zeros(len(one), _COUPLE)
            block["one"], block["other"], block["cosine"] = one, other, cosine
            block = _good(block, group, embeddings, settings, stages)
            block["rank"] = _mixed(ranks[group.rows[block["one"]]], ranks[group.rows[block["other"]]], salt)
            seen += len(block)
            pool = np.concatenate([pool, block])
            pool = pool[np.argsort(pool["rank"], kind="stable")[: settings.pool]]
        drawn.keep(len(pool))
        if seen > len(pool):
            drawn.drop(f"beyond {settings.pool} drawn of its question", None, count=seen - len(pool))
        pools.append(pool)
    if inside > alike.entered:
        alike.drop(f"cosine below {settings.low:g}", count=inside - alike.entered)
    picked = _choose(groups, pools, len(embeddings.images), settings, chosen)
    return [_couple(groups[number], pools[number][at], embeddings, settings.seed) for number, at in picked]


def _groups(items: Iterable[VqaItem], embeddings: Embeddings, settings: RetrieveSettings, stage: Stage) -> list[_Group]:
    """Questions, in the order of their draws."""
    rows = {name: row for row, name in enumerate(embeddings.images)}
    asked: dict[str, dict[str, list[VqaItem]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        if item.image not in rows:
            stage.drop("no vector of the picture", vars(item))
        elif not answer_key(item.answer).words:
            stage.drop("an answer of no words", vars(item))
        else:
            asked[f"{item.domain}\0{question_key(item.question, settings.template)}"][item.image].append(item)
    groups = []
    for name, by_image in asked.items():
        found = (_one_answer(by_image[image], stage) for image in sorted(by_image, key=rows.__getitem__))
        kept = [item for item in found if item is not None]
        # An answer's words say everything about it.
        answers = {key.words: key for key in (answer_key(item.answer) for item in kept)}
        places = {words: place for place, words in enumerate(answers)}
        kinds = [places[answer_key(item.answer).words] for item in kept]
        of_pictures = np.array([rows[item.image] for item in kept], np.int64)
        groups.append(_Group(name, kept, of_pictures, np.array(kinds, np.int64), list(answers.values())))
    return sorted(groups, key=lambda group: (draw(settings.seed, "turn", group.name), group.name))


def _one_answer(items: list[VqaItem], stage: Stage) -> VqaItem | None:
    """The item that stands for all that ask the same of a picture; None if their answers differ."""
    first, *others = sorted(items, key=lambda item: item.item_id)
    if any(answer_key(first.answer).differs(answer_key(item.answer)) for item in others):
        stage.drop("answered in two ways", vars(first) | {"answer": [item.answer for item in items]}, len(items))
        return None
    for item in others:
        stage.drop("asked twice of the picture", vars(item))
    stage.keep()
    return first


def _good(
    block: np.ndarray, group: _Group, embeddings: Embeddings, settings: RetrieveSettings, stages: Sequence[Stage]
) -> np.ndarray:
    """The couples of a block that pass the first three stages."""

    def kept(which: np.ndarray, stage: Stage, reason: str) -> np.ndarray:
        stage.keep(int(which.sum()))
        if gone := int(len(which) - which.sum()):
            first = block[np.argmin(which)]
            stage.drop(reason, group.shown(first["one"], first["other"], first["cosine"]), count=gone)
        return block[which]

    high = inf if settings.high is None else settings.high
    block = kept(block["cosine"] <= high, stages[0], f"cosine above {high:g}")
    # Few couples of answers among many couples of pictures.
    answers = group.answers
    codes, back = np.unique(group.kinds[block["one"]] * len(answers) + group.kinds[block["other"]], return_inverse=True)
    differ = [answers[code // len(answers)].differs(answers[code % len(answers)]) for code in codes.tolist()]
    block = kept(np.array(differ, dtype=bool)[back.reshape(-1)], stages[1], "same answer")
    bits, levels = embeddings.apart(group.rows[block["one"]], group.rows[block["other"]])
    return kept((bits > SAME_HASH) | (levels > SAME_LOOK), stages[2], "same picture")


def _number(seed: int, *names: str) -> int:
    return int.from_bytes(draw(seed, *names), "big")


def _mixed(one: np.ndarray, other: np.ndarray, salt: int) -> np.ndarray:
    """(M,) uint64 stable pseudo-random ranks of couples (the finish of splitmix64)."""
    with np.errstate(over="ignore"):
        value = (one + other) ^ np.uint64(salt)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            value = (value ^ (value >> np.uint64(shift))) * np.uint64(factor)
        return value ^ (value >> np.uint64(31))


def _choose(
    groups: Sequence[_Group], pools: Sequence[np.ndarray], pictures: int, settings: RetrieveSettings, stage: Stage
) -> list[tuple[int, int]]:
    """A diverse choice: (number of the question, place in its pool) of each couple, in the order of choice.

    Each question in turn gives one couple: of the two answers that it has given least so far, and of the pictures used
    least so far. Both directions of a couple become pairs, so each answer of a question is as often right as wrong.
    """
    uses = np.zeros(pictures, np.int64)
    left = [np.ones(len(pool), bool) for pool in pools]
    at = zip(groups, pools, left, strict=True)
    turns = (zip(repeat(number), _turns(*each, uses, settings.per_image)) for number, each in enumerate(at))
    picked = list(islice(in_turns(turns), settings.limit))
    stage.keep(len(picked))
    for group, pool, rest in zip(groups, pools, left, strict=True):
        pool = pool[rest]
        full = np.maximum(*(uses[group.rows[pool[side]]] for side in ("one", "other"))) >= settings.per_image
        for which, reason in ((full, f"a picture in {settings.per_image} couples already"), (~full, "over the limit")):
            if which.any():
                one, other, cosine, _ = pool[which][0]
                stage.drop(reason, group.shown(one, other, cosine), count=int(which.sum()))
    return picked


def _turns(group: _Group, pool: np.ndarray, left: np.ndarray, uses: np.ndarray, per_image: int) -> Iterator[int]:
    """Places in a question's pool, one at each of its turns; takes them from ``left`` and counts them in ``uses``."""
    both = np.stack([pool["one"], pool["other"]])
    images, answers = group.rows[both], np.sort(group.kinds[both], axis=0)
    # The pool is sorted by rank: the first place of a pair of answers, or of pictures, has the least.
    _, best, pairs = np.unique(answers[0] * len(group.answers) + answers[1], return_index=True, return_inverse=True)
    given, chosen = np.zeros(len(group.answers), np.int64), np.zeros(len(best), np.int64)
    costs = (
        lambda at: given[answers[:, at]].sum(axis=0),
        lambda at: chosen[pairs[at]],
        lambda at: best[pairs[at]],
        lambda at: uses[images[:, at]].sum(axis=0),
    )
    while len(places := np.flatnonzero(left & (uses[images].max(axis=0, initial=0) < per_image))):
        for cost in costs:
            found = cost(places)
            places = places[found == found.min()]
        place = int(places[0])
        left[place] = False
        given[answers[:, place]] += 1
        chosen[pairs[place]] += 1
        uses[images[:, place]] += 1
        yield place


def _couple(group: _Group, found: np.void, embeddings: Embeddings, seed: int) -> ImageCouple:
    places = [int(found["one"]), int(found["other"])]
    # Which picture comes first must not follow from what it shows.
    if draw(seed, "order", group.name, *(group.items[place].image for place in places))[0] % 2:
        places.reverse()
    one, other = (group.items[place] for place in places)
    bits, levels = embeddings.apart(group.rows[places[:1]], group.rows[places[1:]])
    return ImageCouple(
        question=one.question,
        images=(one.image, other.image),
        answers=(one.answer, other.answer),
        method="retrieve",
        domain=one.domain,
        provenance=tuple({"item": item.item_id, "source": item.source, **item.provenance} for item in (one, other)),
        facts={
            "cosine": round(float(found["cosine"]), 4),
            "hash_distance": int(bits[0]),
            "look_distance": int(levels[0]),
            "embedder": embeddings.embedder,
        },
    )
