"""The cascade against brute force over all couples, its counts, groups and splits."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.common.funnel import Funnel
from data_prep.trajectories.candidates import (
    CascadeSettings,
    find_couples,
    patch_overlap,
    shared_place,
    shared_words,
)
from data_prep.trajectories.groups import GroupSettings, assign_splits, choose_groups
from data_prep.trajectories.passes import Light, issue_words

WORDS = "queryset form field admin cache lookup model widget url template session token migrate index filter".split()


def light(number: int, **changes) -> Light:
    values = {
        "run_id": f"r{number}",
        "instance_id": f"o__p-{number}",
        "repository": "o/p",
        "commit": "c1",
        "stored": ("", number),
        "places": (("a.py", "A.f", "function"),),
        "words": issue_words(f"the lookup of field {number} fails in the form"),
        "added": frozenset({number}),
    }
    return Light(**{**values, **changes})


def random_lights(seed: int, count: int = 30) -> list[Light]:
    draw = random.Random(seed)
    made = []
    for number in range(count):
        places = {
            (f"{draw.choice('ab')}.py", draw.choice(["A.f", "A.g", "B.f", "f", "h"]), "function")
            for _ in range(draw.randint(0, 2))
        }
        made.append(
            light(
                number,
                instance_id=f"o__p-{draw.randint(1, 20)}",
                repository=draw.choice(["o/p", "o/q"]),
                commit=draw.choice(["", "c1", "c2"]),
                places=tuple(sorted(places)),
                words=issue_words(" ".join(draw.choices(WORDS, k=8))),
                added=frozenset(draw.choices(range(60), k=draw.randint(0, 12))),
            )
        )
    return made


def commits_fit(a: Light, b: Light, rules: CascadeSettings) -> bool:
    near = abs(a.number - b.number) <= rules.near
    return {"any": True, "same": a.commit == b.commit != "", "near": near}[rules.commit]


def brute_force(lights, rules: CascadeSettings) -> list[tuple[int, int]]:
    """Every stage as a predicate on every couple; similarity is left open."""
    kept = []
    for one, other in combinations(range(len(lights)), 2):
        a, b = lights[one], lights[other]
        files = {place[0] for place in a.places} & {place[0] for place in b.places}
        if a.repository != b.repository or not commits_fit(a, b, rules) or not files or a.instance_id == b.instance_id:
            continue
        if rules.level != "file" and not shared_place(a, b, rules.level):
            continue
        sizes = sorted(max(1, len(run.added)) for run in (a, b))
        if patch_overlap(a, b) < rules.alike and sizes[1] <= rules.patch_ratio * sizes[0]:
            kept.append((one, other))
    return kept


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from(["same", "near", "any"]), st.sampled_from(["file", "class", "function"]))
def test_the_cascade_equals_brute_force_and_its_counts_add_up(seed, commit, level):
    lights = random_lights(seed)
    rules = CascadeSettings(commit=commit, near=3, level=level, related=(0.0, 1.0))
    funnel = Funnel()
    found = find_couples(lights, rules, funnel)
    assert list(found) == brute_force(lights, rules)
    assert set(found.values()) <= {"related"}
    funnel.check()
    stages = [stage.summary() for stage in funnel]
    assert stages[0]["in"] == 30 * 29 // 2
    for before, after in pairwise(stages):
        assert after["in"] == before["out"]
    fitting = (a.repository == b.repository and commits_fit(a, b, rules) for a, b in combinations(lights, 2))
    assert funnel.stage("commit").left == sum(fitting)


@pytest.mark.parametrize(
    ("one", "other", "level", "shared"),
    [
        (("a.py", "A.f", "function"), ("a.py", "A.f", "function"), "function", "A.f"),
        (("a.py", "A.f", "function"), ("a.py", "f", "function"), "function", "A.f"),
        (("a.py", "A.f", "function"), ("a.py", "B.f", "function"), "function", None),
        (("a.py", "A.f", "function"), ("a.py", "A.g", "function"), "function", None),
        (("a.py", "A.f", "function"), ("a.py", "A.g", "function"), "class", "A"),
        (("a.py", "A.f", "function"), ("a.py", "f", "function"), "class", "A.f"),
        (("a.py", "A.f", "function"), ("a.py", "A", "class"), "class", "A"),
        (("a.py", "A", "class"), ("a.py", "A", "class"), "function", "A"),
        (("a.py", "A.f", "function"), ("b.py", "A.f", "function"), "function", None),
        (("a.py", "", "module"), ("a.py", "", "module"), "function", None),
        (("a.py", "xf", "function"), ("a.py", "f", "function"), "function", None),
        (("a.py", "A.B.f", "function"), ("a.py", "A.B.g", "function"), "class", "A.B"),
    ],
)
def test_what_counts_as_the_same_place(one, other, level, shared):
    a, b = light(1, places=(one,)), light(2, places=(other,))
    assert shared_place(a, b, level) == shared_place(b, a, level) == (shared and ("a.py", shared))


def test_the_same_function_is_named_rather_than_what_is_around_others():
    one, other = (("a.py", "A.f", "function"), ("a.py", "A.h", "function")), (("a.py", "A.h", "function"),)
    assert shared_place(light(1, places=one), light(2, places=other), "class") == ("a.py", "A.h")


def test_a_bucket_over_its_cap_is_drawn_from_the_seed_and_named():
    lights = [light(number) for number in range(50)]
    funnel = Funnel()
    rules = CascadeSettings(bucket=10, related=(0.0, 1.0))
    couples = find_couples(lights, rules, funnel)
    assert len(couples) == 45
    (reason,) = funnel.stage("same file").dropped
    assert "over 10 runs" in reason
    assert couples == find_couples(lights, rules, Funnel())
    assert couples != find_couples(lights, rules, Funnel(), seed=2)


def test_issues_are_compared_by_rare_words():
    texts = ["the cache key of a session", "the session cache key", "the widget renders a form", "the url resolver"]
    lights = [light(number, words=issue_words(text)) for number, text in enumerate([*texts, ""])]
    similarity = shared_words(lights)
    assert similarity(lights[0], lights[0]) == pytest.approx(1.0)
    assert similarity(lights[0], lights[1]) > 0.6
    assert 0 < similarity(lights[0], lights[2]) < 0.3
    assert similarity(lights[0], lights[4]) == 0


def test_kinds_of_other_issues_share_their_stages_and_are_told_apart():
    lights = random_lights(5)
    rules = CascadeSettings(commit="any", related=(0.2, 0.6))
    related, every = (find_couples(lights, rules, Funnel(), kinds) for kinds in (("related",), ("any", "related")))
    assert 0 < len(related) < len(every)
    assert {couple for couple, kind in every.items() if kind == "related"} == set(related)
    assert set(find_couples(lights, rules, Funnel(), ["any"])) == set(every)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_runs_of_one_issue_make_couples_when_their_patches_differ(seed):
    lights = random_lights(seed)
    funnel, rules = Funnel(), CascadeSettings()
    found = find_couples(lights, rules, funnel, ["same"])
    funnel.check()
    assert [stage.name for stage in funnel] == ["same instance", "same instance, different patch"]
    assert funnel.stage("same instance").entered == 30 * 29 // 2
    for one, other in combinations(range(30), 2):
        a, b = lights[one], lights[other]
        sizes = sorted(max(1, len(run.added)) for run in (a, b))
        differ = a.added != b.added and patch_overlap(a, b) < rules.alike and sizes[1] <= rules.patch_ratio * sizes[0]
        assert ((one, other) in found) == (a.instance_id == b.instance_id and differ)
    both = find_couples(lights, rules, Funnel(), ["related", "same"])
    assert both == find_couples(lights, rules, Funnel()) | found
    assert set(found.values()) <= {"same"}


def test_an_instance_of_too_many_runs_is_drawn_from():
    lights = [light(number, instance_id="o__p-1") for number in range(50)]
    funnel = Funnel()
    assert len(find_couples(lights, CascadeSettings(bucket=10), funnel, ["same"])) == 45
    (reason,) = funnel.stage("same instance").dropped
    assert "10 runs drawn" in reason
    assert find_couples(lights, CascadeSettings(bucket=10), Funnel(), ["same"], seed=2) != find_couples(
        lights, CascadeSettings(bucket=10), Funnel(), ["same"]
    )


def test_couples_with_few_words_in_common_come_first():
    lights = [light(number) for number in range(12)]
    couples = find_couples(lights, CascadeSettings(related=(0.0, 1.0)), Funnel())
    overlap = {(one, other): -(13 * one + other) for one, other in couples}
    chosen = choose_groups(couples, lights, GroupSettings(limit=3), Funnel(), overlap=overlap)
    assert list(chosen) == [(9, 10), (9, 11), (10, 11)]


def test_a_group_is_of_one_kind():
    lights = [light(number) for number in range(3)]
    couples = {(0, 1): "same", (0, 2): "related", (1, 2): "related"}
    assert choose_groups(couples, lights, GroupSettings(options=3), Funnel()) == {}
    kinds = choose_groups(couples, lights, GroupSettings(), Funnel())
    assert kinds == couples


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(1, 3))
def test_groups_are_cliques_within_their_caps(seed, options, per_run):
    lights = random_lights(seed)
    couples = find_couples(lights, CascadeSettings(commit="any", level="file", related=(0.0, 1.0)), Funnel())
    funnel = Funnel()
    rules = GroupSettings(options=options, per_run=per_run, per_file=5, limit=12)
    groups = choose_groups(couples, lights, rules, funnel, seed)
    funnel.check()
    assert funnel.stage("caps").left == len(groups) == len(set(groups)) <= 12
    for group in groups:
        assert len(group) == options
        assert set(combinations(group, 2)) <= set(couples)
    for run in range(len(lights)):
        assert sum(run in group for group in groups) <= per_run
    backwards = dict(reversed(couples.items()))
    assert groups == choose_groups(backwards, lights, rules, Funnel(), seed)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from(["instance", "repository"]))
def test_splits_share_no_instance(seed, by):
    lights = random_lights(seed)
    couples = find_couples(lights, CascadeSettings(commit="any", related=(0.0, 1.0)), Funnel())
    groups = list(choose_groups(couples, lights, GroupSettings(), Funnel()))
    shares = {"train": 0.8, "validation": 0.1, "probe": 0.1}
    splits = assign_splits(groups, lights, shares, by=by, seed=seed)
    seen: dict[str, str] = {}
    for group, split in zip(groups, splits, strict=True):
        for run in group:
            name = lights[run].instance_id if by == "instance" else lights[run].repository
            assert seen.setdefault(name, split) == split


def test_splits_follow_their_shares():
    lights = [light(number) for number in range(400)]
    groups = [(number, number + 1) for number in range(0, 400, 2)]
    splits = assign_splits(groups, lights, {"train": 0.8, "validation": 0.1, "probe": 0.1}, by="instance")
    assert [splits.count(name) for name in ("train", "validation", "probe")] == [160, 20, 20]
