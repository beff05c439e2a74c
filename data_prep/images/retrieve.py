"""Couples found in a source: one question, two pictures that look alike, two different answers.

Couples are never enumerated beyond pictures asked the same question, and of these only the ones that the search finds;
what falls away before is counted by arithmetic.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import comb, inf
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import Funnel, Stage
from data_prep.common.seeded import draw
from data_prep.images.embed.parts import Embeddings
from data_prep.images.item import ImageCouple, VqaItem
from data_prep.images.search import Engine, pairs_above
from data_prep.images.wording import AnswerKey, Template, answer_key, question_key

# Couples found: places in their question's items, and the stable pseudo-random number that draws them.
_COUPLE = np.dtype([("one", np.int64), ("other", np.int64), ("cosine", np.float64), ("rank", np.uint64)])


@dataclass(frozen=True)
class RetrieveSettings:
    """Conditions of a couple.

    Attributes:
        low, high: band of the cosine; no ``high`` sets no bound above.
        template: questions are the same if ``exact`` letter by letter, or ``normalised`` (case, blanks, punctuation).
        same_hash, same_look: pictures whose perceptual hashes differ in no more bits, and whose small copies in no cell
            by more (of 255), are the same picture, encoded again.
        per_image: couples that a picture may be in.
        limit: couples at most; None takes all that ``per_image`` allows.
        pool: couples of a question that the choice is made from; beyond it they are drawn from ``seed``.
        engine: of the search.
        seed: of all draws.
    """

    low: float = 0.85
    high: float | None = None
    template: Template = "normalised"
    same_hash: Annotated[int, Field(ge=0)] = 10
    same_look: Annotated[int, Field(ge=0)] = 32
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
    """A question and the pictures that it is asked of.

    Attributes:
        items: one of each picture.
        rows: (N,) of the pictures in the embeddings; they ascend.
        kinds: (N,) place of the item's answer in ``answers``, which are distinct.
    """

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


def find_image_couples(
    items: Iterable[VqaItem], embeddings: Embeddings, settings: RetrieveSettings, funnel: Funnel
) -> list[ImageCouple]:
    """Couples that meet every condition, in the order of choice; counts and samples go to ``funnel``.

    Args:
        items: of any number of sources.
        embeddings: of their pictures; an item whose picture has none is dropped and counted.
    """
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
    return kept((bits > settings.same_hash) | (levels > settings.same_look), stages[2], "same picture")


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
    turns = [(number, _turns(*question, uses, settings.per_image)) for number, question in enumerate(at)]
    picked: list[tuple[int, int]] = []
    while turns and len(picked) != settings.limit:
        still = []
        for number, turn in turns:
            if len(picked) != settings.limit and (place := next(turn, None)) is not None:
                picked.append((number, place))
                still.append((number, turn))
        turns = still
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
