"""Couples found in a source: one question, two pictures that look alike, two different answers.

Couples are never enumerated beyond pictures asked the same question, and of these only the ones that the search finds;
what falls away before is counted by arithmetic.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import comb, inf
from typing import Any, get_args

import numpy as np

from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import Funnel, Stage
from data_prep.common.seeded import draw
from data_prep.images.choose import Candidate, choose
from data_prep.images.embed.vectors import Embeddings, hash_distance, look_distance
from data_prep.images.item import ImageCouple, VqaItem
from data_prep.images.search import Engine, pairs_above
from data_prep.images.wording import AnswerKey, Template, answer_key, question_key

# Couples of a question gone through for a sample of what was counted by arithmetic.
_LOOKED_AT = 1_000
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
    same_hash: int = 10
    same_look: int = 32
    per_image: int = 4
    limit: int | None = None
    pool: int = 20_000
    engine: Engine = "faiss"
    seed: int = 1

    def __post_init__(self) -> None:
        least = {"same_hash": 0, "same_look": 0, "per_image": 1, "pool": 1}
        least |= {} if self.limit is None else {"limit": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ConfigError(f"{name} is {getattr(self, name)}. Fix: give at least {value}.")
        if self.high is not None and not self.low <= self.high:
            raise ConfigError(f"The band of cosines is {self.low} to {self.high}. Fix: give the lower bound first.")
        for name, kind in (("template", Template), ("engine", Engine)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"{name} is {getattr(self, name)!r}. Fix: one of {', '.join(get_args(kind))}.")


@dataclass
class _Group:
    """A question and the pictures that it is asked of: ``items[k]`` is about row ``rows[k]``; rows ascend."""

    name: str
    items: list[VqaItem]
    answers: list[AnswerKey]
    rows: np.ndarray

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
    inside = _same_question(groups, funnel.stage("same question", "couples"))
    names = ("look alike", "different answers", "another picture", "drawn")
    alike, _, _, drawn = stages = [funnel.stage(name, "couples") for name in names]
    ranks = np.array([_number(settings.seed, "picture", name) for name in embeddings.images], np.uint64)
    pools = []
    for group in groups:
        pool, seen = np.zeros(0, _COUPLE), 0
        for one, other, cosine in pairs_above(embeddings.vectors[group.rows], settings.low, engine=settings.engine):
            block = np.zeros(len(one), _COUPLE)
            block["one"], block["other"], block["cosine"] = one, other, cosine
            block = _good(block, group, embeddings, settings, stages)
            left, right = (ranks[group.rows[block[side]]] for side in ("one", "other"))
            block["rank"] = _mixed(left, right, _number(settings.seed, "question", group.name))
            seen += len(block)
            pool = np.concatenate([pool, block])
            pool = pool[np.argsort(pool["rank"], kind="stable")[: settings.pool]]
        drawn.keep(len(pool))
        if seen > len(pool):
            drawn.drop(f"beyond {settings.pool} drawn of its question", None, count=seen - len(pool))
        pools.append(pool)
    if inside > alike.entered:
        alike.drop(f"cosine below {settings.low:g}", _unlike(groups, embeddings, settings), inside - alike.entered)
    return _chosen(groups, pools, embeddings, settings, funnel.stage("chosen", "couples"))


def _groups(items: Iterable[VqaItem], embeddings: Embeddings, settings: RetrieveSettings, stage: Stage) -> list[_Group]:
    """Questions, in the order of their draws."""
    rows = embeddings.rows()
    asked: dict[tuple[str, str], dict[str, list[VqaItem]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        if item.image not in rows:
            stage.drop("no vector of the picture", _shown(item))
        elif not answer_key(item.answer).words:
            stage.drop("an answer of no words", _shown(item))
        else:
            asked[item.domain, question_key(item.question, settings.template)][item.image].append(item)
    groups = []
    for (domain, question), by_image in asked.items():
        kept = [_one_answer(by_image[name], stage) for name in sorted(by_image, key=rows.__getitem__)]
        kept = [item for item in kept if item is not None]
        answers = [answer_key(item.answer) for item in kept]
        places = np.array([rows[item.image] for item in kept], np.int64)
        groups.append(_Group(f"{domain}\0{question}", kept, answers, places))
    return sorted(groups, key=lambda group: (draw(settings.seed, "turn", group.name), group.name))


def _one_answer(items: list[VqaItem], stage: Stage) -> VqaItem | None:
    """The item that stands for all that ask the same of a picture; None if their answers differ."""
    items = sorted(items, key=lambda item: item.item_id)
    keys = [answer_key(item.answer) for item in items]
    if any(keys[0].differs(key) for key in keys):
        sample = {"images": [items[0].image], "question": items[0].question, "answers": [item.answer for item in items]}
        stage.drop("answered in two ways", sample, count=len(items))
        return None
    for item in items[1:]:
        stage.drop("asked twice of the picture", _shown(item))
    stage.keep()
    return items[0]


def _shown(item: VqaItem) -> dict[str, Any]:
    return {"images": [item.image], "question": item.question, "answers": [item.answer], "item": item.item_id}


def _same_question(groups: Sequence[_Group], stage: Stage) -> int:
    total = sum(len(group.items) for group in groups)
    inside = sum(comb(len(group.items), 2) for group in groups)
    stage.keep(inside)
    if comb(total, 2) > inside:
        first, second = (group.items[0] for group in islice((group for group in groups if group.items), 2))
        sample = {"images": [first.image, second.image], "questions": [first.question, second.question]}
        stage.drop("another question", sample, count=comb(total, 2) - inside)
    return inside


def _unlike(groups: Sequence[_Group], embeddings: Embeddings, settings: RetrieveSettings) -> dict[str, Any] | None:
    """A couple to read for a stage that counts by arithmetic."""
    for group in groups[:_LOOKED_AT]:
        if len(group.rows) > 1:
            cosine = embeddings.vectors[group.rows[1:_LOOKED_AT]] @ embeddings.vectors[group.rows[0]]
            if cosine.min() < settings.low:
                return group.shown(0, int(cosine.argmin()) + 1, cosine.min())
    return None


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
    block = kept(_differ(block, group), stages[1], "same answer")
    one, other = group.rows[block["one"]], group.rows[block["other"]]
    another = hash_distance(embeddings.hashes[one], embeddings.hashes[other]) > settings.same_hash
    another |= look_distance(embeddings.looks[one], embeddings.looks[other]) > settings.same_look
    return kept(another, stages[2], "same picture")


def _differ(block: np.ndarray, group: _Group) -> np.ndarray:
    kinds: dict[AnswerKey, int] = {}
    kind = np.array([kinds.setdefault(key, len(kinds)) for key in group.answers], np.int64)
    # Few couples of answers among many couples of pictures.
    couples, back = np.unique(kind[block["one"]] * len(kinds) + kind[block["other"]], return_inverse=True)
    keys = list(kinds)
    differ = [keys[couple // len(kinds)].differs(keys[couple % len(kinds)]) for couple in couples.tolist()]
    return np.array(differ, dtype=bool)[back.reshape(-1)]


def _number(seed: int, *names: str) -> int:
    return int.from_bytes(draw(seed, *names), "big")


def _mixed(one: np.ndarray, other: np.ndarray, salt: int) -> np.ndarray:
    """(M,) uint64 stable pseudo-random ranks of couples (the finish of splitmix64)."""
    with np.errstate(over="ignore"):
        value = (one + other) ^ np.uint64(salt)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            value = (value ^ (value >> np.uint64(shift))) * np.uint64(factor)
        return value ^ (value >> np.uint64(31))


def _chosen(
    groups: Sequence[_Group], pools: Sequence[np.ndarray], embeddings: Embeddings, settings: RetrieveSettings,
    stage: Stage,
) -> list[ImageCouple]:  # fmt: skip
    questions = [
        [
            Candidate(
                (group.items[one].image, group.items[other].image),
                (group.answers[one].words, group.answers[other].words),
                rank,
            )
            for one, other, _, rank in pool.tolist()
        ]
        for group, pool in zip(groups, pools, strict=True)
    ]
    picked = choose(questions, per_image=settings.per_image, limit=settings.limit, stage=stage)
    return [_couple(groups[number], pools[number][at], embeddings, settings.seed) for number, at in picked]


def _couple(group: _Group, found: np.void, embeddings: Embeddings, seed: int) -> ImageCouple:
    places = [int(found["one"]), int(found["other"])]
    # Which picture comes first must not follow from what it shows.
    if draw(seed, "order", group.name, *(group.items[place].image for place in places))[0] % 2:
        places.reverse()
    one, other = (group.items[place] for place in places)
    first, second = group.rows[places[:1]], group.rows[places[1:]]
    return ImageCouple(
        question=one.question,
        images=(one.image, other.image),
        answers=(one.answer, other.answer),
        method="retrieve",
        domain=one.domain,
        provenance=tuple({"item": item.item_id, "source": item.source, **item.provenance} for item in (one, other)),
        facts={
            "cosine": round(float(found["cosine"]), 4),
            "hash_distance": int(hash_distance(embeddings.hashes[first], embeddings.hashes[second])[0]),
            "look_distance": int(look_distance(embeddings.looks[first], embeddings.looks[second])[0]),
            "embedder": embeddings.embedder,
        },
    )
