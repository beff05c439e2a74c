"""The conditions of a retrieved couple, one by one; counts add up; the choice is diverse, fair and stable."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import Funnel
from data_prep.common.settings_file import load_settings
from data_prep.images.embed.parts import Embeddings
from data_prep.images.item import ImageCouple, VqaItem, read_items, write_records
from data_prep.images.retrieve import RetrieveSettings, find_image_couples

# All couples of an angle of at most 30 degrees are alike.
SETTINGS = RetrieveSettings(low=0.85)


def pictures(*degrees: float, **names) -> Embeddings:
    """Pictures p0, p1, ... whose vectors are directions in a plane; hashes and looks are far apart unless given."""
    turned = np.radians(np.array(degrees, dtype=np.float64))
    count = len(degrees)
    vectors = np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)
    draw = np.random.default_rng(count)
    hashes = draw.integers(0, 2**64, count, dtype=np.uint64)
    looks = draw.integers(0, 256, (count, 768)).astype(np.uint8)
    return replace(Embeddings("e", [f"p{n}" for n in range(count)], vectors, hashes, looks), **names)


def item(number: int, picture: int, answer: str, question="what is it?", domain="d") -> VqaItem:
    return VqaItem(f"i{number}", f"p{picture}", question, answer, domain, "s", {"row": number})


def find(items, embeddings, settings=SETTINGS):
    funnel = Funnel()
    couples = find_image_couples(items, embeddings, settings, funnel)
    funnel.check()
    # What leaves a stage of couples enters the next.
    stages = [stage for stage in funnel if stage.unit == "couples"]
    for one, other in pairwise(stages):
        assert one.left == other.entered, (one.name, other.name)
    assert stages[-1].left == len(couples)
    for stage in funnel:
        for reason, samples in stage.samples.items():
            assert all(sample.get("images") or sample["image"] for sample in samples), reason
    return couples, {stage.name: dict(stage.dropped) for stage in funnel if stage.dropped}, funnel


def test_a_couple_is_one_question_two_alike_pictures_two_answers():
    (couple,), dropped, _ = find([item(0, 0, "Red"), item(1, 1, "blue.")], pictures(0, 20))
    assert dropped == {}
    assert (couple.question, couple.method, couple.domain) == ("what is it?", "retrieve", "d")
    sides = {
        name: (answer, where)
        for name, answer, where in zip(couple.images, couple.answers, couple.provenance, strict=True)
    }
    assert sides["p0"] == ("Red", {"item": "i0", "source": "s", "row": 0})
    assert sides["p1"] == ("blue.", {"item": "i1", "source": "s", "row": 1})
    assert couple.facts["cosine"] == pytest.approx(np.cos(np.radians(20)), abs=1e-4)
    assert couple.facts["embedder"] == "e"


TWO = [item(0, 0, "red"), item(1, 1, "blue")]
NEAR = pictures(0, 20)
TWIN = pictures(0, 5, hashes=np.array([7, 6], np.uint64), looks=np.zeros((2, 768), np.uint8))


def second(answer="blue", picture=1, **where) -> list[VqaItem]:
    return [TWO[0], item(1, picture, answer, **where)]


# Items, pictures, settings; then the stage and the reason of what is dropped.
CONDITIONS = {
    "question": (second(question="where is it?"), NEAR, {}, "same question", "another question"),
    "domain": (second(domain="x"), NEAR, {}, "same question", "another question"),
    "spelling": (second(question="What is it"), NEAR, {"template": "exact"}, "same question", "another question"),
    "not alike": (TWO, pictures(0, 40), {}, "look alike", "cosine below 0.85"),
    "too alike": (TWO, pictures(0, 5), {"high": 0.99}, "look alike", "cosine above 0.99"),
    "same answer": (second("a Red."), NEAR, {}, "different answers", "same answer"),
    "same number": ([item(0, 0, "1.0"), item(1, 1, "one")], NEAR, {}, "different answers", "same answer"),
    "same picture": (TWO, TWIN, {}, "another picture", "same picture"),
    "no vector": (second(picture=9), NEAR, {}, "question", "no vector of the picture"),
    "no words": (second("?"), NEAR, {}, "question", "an answer of no words"),
    "ambiguous": ([*TWO, item(2, 1, "green")], NEAR, {}, "question", "answered in two ways"),
}


BY_ARITHMETIC = {"another question", "cosine below 0.85"}


@pytest.mark.parametrize("case", CONDITIONS)
def test_each_condition_drops_what_fails_it_and_says_so(case):
    items, embeddings, options, stage, reason = CONDITIONS[case]
    couples, dropped, funnel = find(items, embeddings, replace(SETTINGS, **options))
    assert couples == []
    assert set(dropped) == {stage}
    assert set(dropped[stage]) == {reason}
    samples = funnel.stage(stage).samples[reason]
    # What is counted by arithmetic has none.
    assert [sample["question"] for sample in samples[:1]] == ["what is it?"] * (reason not in BY_ARITHMETIC)


def test_what_just_meets_a_condition_passes():
    far = pictures(0, 20, hashes=np.array([2**11 - 1, 0], np.uint64), looks=np.zeros((2, 768), np.uint8))
    assert find(TWO, far)[0]
    looks = np.zeros((2, 768), np.uint8)
    looks[0, 300] = 33
    assert find(TWO, pictures(0, 20, hashes=np.zeros(2, np.uint64), looks=looks))[0]
    cosine = float(pictures(0, 20).vectors[0].astype(float) @ pictures(0, 20).vectors[1].astype(float))
    assert find(TWO, pictures(0, 20), replace(SETTINGS, low=cosine - 1e-6, high=cosine + 1e-6))[0]


def test_spellings_of_a_question_are_one_and_the_first_picture_s_is_asked():
    (couple,), _, _ = find([TWO[0], item(1, 1, "blue", "What  is it")], pictures(0, 20))
    assert couple.question == {"p0": "what is it?", "p1": "What  is it"}[couple.images[0]]


def test_a_question_asked_twice_with_one_answer_counts_once():
    couples, dropped, _ = find([*TWO, item(2, 1, "Blue"), item(3, 1, "a blue")], pictures(0, 20))
    assert len(couples) == 1
    assert dropped == {"question": {"asked twice of the picture": 2}}


def test_an_ambiguous_picture_is_dropped_with_all_its_answers_and_still_serves_other_questions():
    items = [*TWO, item(2, 1, "green"), item(3, 0, "yes", "is it?"), item(4, 1, "no", "is it?")]
    (couple,), dropped, _ = find(items, pictures(0, 20))
    assert couple.question == "is it?"
    assert dropped["question"] == {"answered in two ways": 2}


def many(seed: int, count: int = 60, answers: int = 4):
    draw = np.random.default_rng(seed)
    items = [
        item(
            number, int(draw.integers(count)), f"a{min(draw.geometric(0.5), answers)}", f"question {draw.integers(5)}?"
        )
        for number in range(6 * count)
    ]
    return items, pictures(*draw.uniform(0, 120, count))


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 4), st.none() | st.integers(1, 30), st.sampled_from([5, 20_000]))
def test_every_couple_meets_every_condition_and_counts_add_up(seed, per_image, limit, pool):
    items, embeddings = many(seed)
    settings = replace(SETTINGS, per_image=per_image, limit=limit, pool=pool, high=0.999)
    couples, _, funnel = find(items, embeddings, settings)
    by_id = {one.item_id: one for one in items}
    rows = {name: row for row, name in enumerate(embeddings.images)}
    used, seen = Counter(), set()
    for couple in couples:
        one, other = (by_id[where["item"]] for where in couple.provenance)
        assert (one.image, other.image) == couple.images
        assert (one.answer, other.answer) == couple.answers
        assert one.question == other.question == couple.question
        assert one.answer != other.answer
        cosine = embeddings.vectors[rows[one.image]].astype(float) @ embeddings.vectors[rows[other.image]].astype(float)
        assert 0.85 <= cosine <= 0.999
        for side in (one, other):
            assert {i.answer for i in items if (i.image, i.question) == (side.image, side.question)} == {side.answer}
        used.update(couple.images)
        key = (couple.question, frozenset(couple.images))
        assert key not in seen
        seen.add(key)
    assert max(used.values(), default=0) <= per_image
    assert limit is None or len(couples) <= limit
    first = funnel.stages[0]
    assert first.entered == len(items)
    assert funnel.stages[1].entered == comb(first.left, 2)


def test_the_result_depends_on_the_seed_and_not_on_the_order_of_the_items():
    items, embeddings = many(1)
    settings = replace(SETTINGS, limit=20)
    couples = find(items, embeddings, settings)[0]
    assert find(items[::-1], embeddings, settings)[0] == couples
    assert find(items, embeddings, replace(settings, seed=2))[0] != couples
    assert find(items, embeddings, settings)[2] == find(items, embeddings, settings)[2]


def test_a_smaller_limit_takes_the_first_of_the_larger_one():
    items, embeddings = many(2)
    large = find(items, embeddings, replace(SETTINGS, limit=25))[0]
    small, dropped, _ = find(items, embeddings, replace(SETTINGS, limit=10))
    assert small == large[:10]
    assert dropped["chosen"]["over the limit"] > 0


def test_a_pool_is_drawn_and_counted():
    items, embeddings = many(3)
    couples, dropped, _ = find(items, embeddings, replace(SETTINGS, pool=2))
    assert len(couples) <= 10
    assert dropped["drawn"]["beyond 2 drawn of its question"] > 0


def test_turns_go_round_the_questions_and_which_picture_is_first_is_a_toss():
    items, embeddings = many(4, count=120)
    couples = find(items, embeddings, replace(SETTINGS, limit=100))[0]
    per_question = Counter(couple.question for couple in couples)
    assert max(per_question.values()) - min(per_question.values()) <= 1
    ascending = sum(couple.images[0] < couple.images[1] for couple in couples)
    assert 30 <= ascending <= 70
    lower = sum(couple.answers[0] < couple.answers[1] for couple in couples)
    assert 30 <= lower <= 70


def test_couples_are_written_and_read_as_they_are(tmp_path):
    couples = find(*many(5))[0]
    write_records(couples, tmp_path / "c.parquet")
    assert list(read_items([tmp_path / "c.parquet"], ImageCouple)) == couples


def test_nothing_to_find_is_an_empty_list():
    assert find([], pictures(0, 20))[0] == []
    assert find([TWO[0]], pictures(0))[0] == []
    empty = Embeddings("", [], np.zeros((0, 1), np.float32), np.zeros(0, np.uint64), np.zeros((0, 768), np.uint8))
    assert find([TWO[0]], empty)[1] == {"question": {"no vector of the picture": 1}}


@pytest.mark.parametrize(
    "setting",
    ["per_image=0", "limit=0", "pool=0", "template=x", "engine=numpy", "high=0.5"],
)
def test_settings_that_make_no_sense_are_named(setting):
    with pytest.raises(ConfigError, match="Fix:"):
        load_settings(RetrieveSettings, None, [setting])


def in_a_plane(answers: list[tuple[str, str]], images: list[tuple[int, int]]):
    """Items and pictures of couples: couple k is two pictures that are alike, and unlike those of other couples."""
    count = 1 + max(max(pair) for pair in images)
    vectors = np.zeros((count, len(images)), np.float32)
    for k, pair in enumerate(images):
        vectors[list(pair), k] = 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    said = {
        picture: answer
        for pair, both in zip(images, answers, strict=True)
        for picture, answer in zip(pair, both, strict=True)
    }
    looks = np.random.default_rng(1).integers(0, 256, (count, 768)).astype(np.uint8)
    embeddings = Embeddings("e", [f"p{n:04}" for n in range(count)], vectors, np.arange(count, dtype=np.uint64), looks)
    items = [replace(item(n, n, answer), image=f"p{n:04}") for n, answer in said.items()]
    return items, embeddings


def test_the_choice_spreads_over_answers_however_rare_some_are():
    answers = [("a", "b")] * 500 + [("c", "b")] * 40 + [("a", "c")] * 40 + [("d", "a")] * 30
    items, embeddings = in_a_plane(answers, [(2 * k, 2 * k + 1) for k in range(len(answers))])
    couples, dropped, _ = find(items, embeddings, replace(SETTINGS, limit=60))
    counts = Counter(answer for couple in couples for answer in couple.answers)
    assert len(counts) == 4
    assert max(counts.values()) - min(counts.values()) <= 3
    assert dropped["chosen"] == {"over the limit": 550}


def test_the_choice_prefers_pictures_not_yet_used():
    # A hub that is alike to ten pictures, which are not alike to each other; and ten couples apart.
    count = 31
    vectors = np.eye(count, dtype=np.float32)
    vectors[1:11, 0] = 1.8
    vectors[11::2] = vectors[12::2]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    looks = np.random.default_rng(1).integers(0, 256, (count, 768)).astype(np.uint8)
    embeddings = Embeddings("e", [f"p{n}" for n in range(count)], vectors, np.arange(count, dtype=np.uint64), looks)
    items = [item(n, n, "a" if n == 0 or (n > 10 and n % 2) else "b") for n in range(count)]
    couples, dropped, _ = find(items, embeddings, replace(SETTINGS, per_image=5, limit=11))
    assert sum("p0" in couple.images for couple in couples) == 1
    couples, dropped, _ = find(items, embeddings, replace(SETTINGS, per_image=5))
    assert (len(couples), dropped["chosen"]) == (15, {"a picture in 5 couples already": 5})
