"""Couples found in a source: one question, two pictures that look alike, two different answers.

Couples are never enumerated beyond pictures asked the same question, and of these only the ones that the search finds;
what falls away before is counted by arithmetic.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import comb
from typing import Any

import numpy as np

from data_prep.common.funnel import Funnel, Stage
from data_prep.common.seeded import draw
from data_prep.images.choose import Candidate, choose
from data_prep.images.embed.likeness import hash_distance, look_distance
from data_prep.images.embed.vectors import Embeddings
from data_prep.images.errors import ImagePairError
from data_prep.images.item import ImageCouple, VqaItem
from data_prep.images.search import Engine, PairBlock, pairs_above
from data_prep.images.wording import AnswerKey, Template, answer_key, question_key

# Couples gone through for a sample of what was counted by arithmetic.
_LOOKED_AT = 1_000


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
    engine: Engine = "numpy"
    seed: int = 1

    def __post_init__(self) -> None:
        least = {"same_hash": 0, "same_look": 0, "per_image": 1, "pool": 1}
        least |= {} if self.limit is None else {"limit": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ImagePairError(f"{name} is {getattr(self, name)}. Fix: give at least {value}.")
        if self.high is not None and not self.low <= self.high:
            raise ImagePairError(f"The band of cosines is {self.low} to {self.high}. Fix: give the lower bound first.")
        if self.template not in ("exact", "normalised"):
            raise ImagePairError(f"template is {self.template!r}. Fix: 'exact' or 'normalised'.")


@dataclass
class _Group:
    """A question and the pictures that it is asked of: ``items[k]`` is about row ``rows[k]``; rows ascend."""

    name: str
    items: list[VqaItem]
    answers: list[AnswerKey]
    rows: np.ndarray


def find_image_couples(
    items: Iterable[VqaItem], embeddings: Embeddings, settings: RetrieveSettings, funnel: Funnel
) -> list[ImageCouple]:
    """Couples that meet every condition, in the order of choice; counts and samples go to ``funnel``.

    Args:
        items: of any number of sources.
        embeddings: of their pictures; an item whose picture has none is dropped and counted.

    Raises:
        ImagePairError: a band that makes no sense, or the search engine is not installed.
    """
    groups = _groups(items, embeddings, settings, funnel.stage("question", "questions"))
    inside = _same_question(groups, funnel.stage("same question", "couples"))
    stages = _Stages(
        funnel.stage("look alike", "couples"),
        funnel.stage("different answers", "couples"),
        funnel.stage("another picture", "couples"),
        funnel.stage("drawn", "couples"),
    )
    ranks = np.array([_number(settings.seed, "picture", name) for name in embeddings.images], np.uint64)
    pools = [_Pool() for _ in groups]
    alike = 0
    for block in pairs_above(
        embeddings.vectors, settings.low, groups=(group.rows for group in groups), engine=settings.engine
    ):
        group = groups[block.group]
        alike += len(block)
        block = _below(block, group, settings, stages.alike)
        block = _kept(block, _differ(block, group), group, stages.differ, "same answer")
        hashes = hash_distance(embeddings.hashes[block.i], embeddings.hashes[block.j])
        looks = look_distance(embeddings.looks[block.i], embeddings.looks[block.j])
        another = (hashes > settings.same_hash) | (looks > settings.same_look)
        block = _kept(block, another, group, stages.another, "same picture")
        rank = _mixed(ranks[block.i], ranks[block.j], _number(settings.seed, "question", group.name))
        pools[block.group].add(block, rank, settings.pool)
    if inside > alike:
        sample = _unlike(groups, embeddings.vectors, settings.low)
        stages.alike.drop(f"cosine below {settings.low:g}", sample, count=inside - alike)
    return _chosen(groups, pools, embeddings, settings, stages.drawn, funnel.stage("chosen", "couples"))


@dataclass(frozen=True)
class _Stages:
    alike: Stage
    differ: Stage
    another: Stage
    drawn: Stage


def _groups(items: Iterable[VqaItem], embeddings: Embeddings, settings: RetrieveSettings, stage: Stage) -> list[_Group]:
    """Questions asked of two pictures or more, in the order of their draws."""
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
        kept = []
        for name in sorted(by_image, key=rows.__getitem__):
            item = _one_answer(by_image[name], stage)
            if item is not None:
                kept.append(item)
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


def _couple_shown(group: _Group, one: int, other: int, **more: Any) -> dict[str, Any]:
    pair = [group.items[one], group.items[other]]
    answers, images = [item.answer for item in pair], [item.image for item in pair]
    return {"images": images, "question": pair[0].question, "answers": answers, **more}


def _same_question(groups: Sequence[_Group], stage: Stage) -> int:
    total = sum(len(group.items) for group in groups)
    inside = sum(comb(len(group.items), 2) for group in groups)
    stage.keep(inside)
    if comb(total, 2) > inside:
        first, second = (group.items[0] for group in islice((group for group in groups if group.items), 2))
        sample = {"images": [first.image, second.image], "questions": [first.question, second.question]}
        stage.drop("another question", sample, count=comb(total, 2) - inside)
    return inside


def _unlike(groups: Sequence[_Group], vectors: np.ndarray, low: float) -> dict[str, Any] | None:
    """A couple to read for a stage that counts by arithmetic."""
    looked_at = 0
    for group in groups:
        for other in range(1, len(group.rows)):
            cosine = float(vectors[group.rows[0]] @ vectors[group.rows[other]])
            if cosine < low:
                return _couple_shown(group, 0, other, cosine=round(cosine, 4))
            looked_at += 1
            if looked_at > _LOOKED_AT:
                return None
    return None


def _at(group: _Group, rows: np.ndarray) -> np.ndarray:
    return np.searchsorted(group.rows, rows)


def _kept(block: PairBlock, kept: np.ndarray, group: _Group, stage: Stage, reason: str) -> PairBlock:
    stage.keep(int(kept.sum()))
    gone = np.flatnonzero(~kept)
    if len(gone):
        first = gone[0]
        one, other = _at(group, block.i[first : first + 1])[0], _at(group, block.j[first : first + 1])[0]
        sample = _couple_shown(group, one, other, cosine=round(float(block.cosine[first]), 4))
        stage.drop(reason, sample, count=len(gone))
    return PairBlock(block.i[kept], block.j[kept], block.cosine[kept], block.group)


def _below(block: PairBlock, group: _Group, settings: RetrieveSettings, stage: Stage) -> PairBlock:
    if settings.high is None:
        stage.keep(len(block))
        return block
    return _kept(block, block.cosine <= settings.high, group, stage, f"cosine above {settings.high:g}")


def _differ(block: PairBlock, group: _Group) -> np.ndarray:
    kinds: dict[AnswerKey, int] = {}
    kind = np.array([kinds.setdefault(key, len(kinds)) for key in group.answers], np.int64)
    one, other = kind[_at(group, block.i)], kind[_at(group, block.j)]
    # Few couples of answers among many couples of pictures.
    couples, back = np.unique(one * len(kinds) + other, return_inverse=True)
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


class _Pool:
    """The couples of a question with the lowest ranks, however many go by."""

    def __init__(self) -> None:
        self.seen = 0
        self.i = self.j = np.zeros(0, np.int64)
        self.cosine, self.rank = np.zeros(0), np.zeros(0, np.uint64)

    def add(self, block: PairBlock, rank: np.ndarray, size: int) -> None:
        self.seen += len(block)
        i, j = np.concatenate([self.i, block.i]), np.concatenate([self.j, block.j])
        cosine, rank = np.concatenate([self.cosine, block.cosine]), np.concatenate([self.rank, rank])
        kept = np.lexsort((j, i, rank))[:size]
        self.i, self.j, self.cosine, self.rank = i[kept], j[kept], cosine[kept], rank[kept]


def _chosen(
    groups: Sequence[_Group], pools: Sequence[_Pool], embeddings: Embeddings, settings: RetrieveSettings,
    drawn: Stage, stage: Stage,
) -> list[ImageCouple]:  # fmt: skip
    questions = []
    for group, pool in zip(groups, pools, strict=True):
        drawn.keep(len(pool.i))
        if pool.seen > len(pool.i):
            drawn.drop(f"beyond {settings.pool} drawn of its question", None, count=pool.seen - len(pool.i))
        one, other = _at(group, pool.i).tolist(), _at(group, pool.j).tolist()
        questions.append(
            [
                Candidate(
                    (group.items[a].image, group.items[b].image), (group.answers[a].words, group.answers[b].words), rank
                )
                for a, b, rank in zip(one, other, pool.rank.tolist(), strict=True)
            ]
        )
    picked = choose(questions, per_image=settings.per_image, limit=settings.limit, stage=stage)
    return [_couple(groups[number], pools[number], at, embeddings, settings) for number, at in picked]


def _couple(group: _Group, pool: _Pool, at: int, embeddings: Embeddings, settings: RetrieveSettings) -> ImageCouple:
    rows = [int(pool.i[at]), int(pool.j[at])]
    names = [embeddings.images[row] for row in rows]
    # Which picture comes first must not follow from what it shows.
    if draw(settings.seed, "order", group.name, *names)[0] % 2:
        rows.reverse()
    one, other = (group.items[int(place)] for place in _at(group, np.array(rows)))
    first, second = (np.array([row]) for row in rows)
    return ImageCouple(
        question=one.question,
        images=(one.image, other.image),
        answers=(one.answer, other.answer),
        method="retrieve",
        domain=one.domain,
        provenance=tuple({"item": item.item_id, "source": item.source, **item.provenance} for item in (one, other)),
        facts={
            "cosine": round(float(pool.cosine[at]), 4),
            "hash_distance": int(hash_distance(embeddings.hashes[first], embeddings.hashes[second])[0]),
            "look_distance": int(look_distance(embeddings.looks[first], embeddings.looks[second])[0]),
            "embedder": embeddings.embedder,
        },
    )
