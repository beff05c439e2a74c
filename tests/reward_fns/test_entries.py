"""Registry entries: where a scorer may come from, what is refused, and a job's sources looked up before it runs."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reward_fns import RewardConfigError, check_sources, compute_score
from reward_fns.registry import Registry, describe

FILE = """
import pathlib
with pathlib.Path(__file__).with_suffix(".runs").open("a") as file:
    file.write("x")

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float(solution_str == ground_truth), "pred": solution_str}

class Judge:
    @staticmethod
    def half(data_source, solution_str, ground_truth, extra_info=None):
        return 0.5
"""


def plain(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> float:
    return 1.0


async def waits(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> float:
    return 1.0


async def waits_often(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> Any:
    yield 1.0


def gives_often(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> Any:
    yield 1.0


def takes_two(solution_str: str, ground_truth: str) -> float:
    return 1.0


class Waits:
    async def __call__(self, data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> float:
        return 1.0


class Plain:
    __hash__ = None

    def __call__(self, data_source: str, solution_str: str, ground_truth: str, extra_info: Any, bonus: float) -> float:
        return bonus


object_that_waits, plain_object = Waits(), Plain()
partial_that_waits = functools.partial(waits, extra_info=None)
partial_of_object = functools.partial(functools.partial(Waits()), extra_info=None)
partial_plain = functools.partial(plain, extra_info=None)
number = 3
REFUSED = ["waits", "waits_often", "gives_often", "takes_two", "Waits", "object_that_waits", "partial_that_waits"]
REFUSED += ["partial_of_object", "number"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_reward.py"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize("form", ["{0}:compute_score", "file://{0}:compute_score", "my_reward.py:compute_score"])
def test_a_file_of_the_users_own(fresh: Registry, file: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.chdir(file.parent)
    table = {"*": form.format(file)}
    found = [compute_score("any/thing", response, "A", registry=table) for response in "AB"]
    assert [result["score"] for result in found] == [1.0, 0.0]
    assert (found[0]["parsed"], found[0]["reward_fn"], found[0]["reward_error"]) == ("A", "*", "")


def test_a_file_is_run_once(fresh: Registry, file: Path) -> None:
    table = {"a": f"{file}:compute_score", "b": f"{file}:Judge.half"}
    assert check_sources({"a": 1, "b": 1}, table) == []
    assert [compute_score(source, "A", "A", registry=table)["score"] for source in "ab"] == [1.0, 0.5]
    assert file.with_suffix(".runs").read_text() == "x"
    fresh.register("c", f"{file}:compute_score")
    assert fresh.resolve("c") is not None
    fresh.register("c", f"{file}:compute_score")


@pytest.mark.parametrize("form", ["{0}.{1}:plain", "pkg://{0}.{1}:plain", "pkg://{0}/{1}:plain"])
def test_a_module(fresh: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    (tmp_path / "rewards_package").mkdir()
    (tmp_path / "rewards_package" / "inner.py").write_text("def plain(*_, **__): return 0.25")
    monkeypatch.syspath_prepend(tmp_path)
    table = {"d": form.format("rewards_package", "inner")}
    assert compute_score("d", "A", "A", registry=table)["score"] == 0.25


def test_objects_and_partials(fresh: Registry) -> None:
    table = {"object": f"{__name__}:plain_object", "partial": f"{__name__}:partial_plain", "itself": plain}
    found = [compute_score(source, "A", "A", registry=table, bonus=0.75) for source in table]
    assert [(result["score"], result["reward_error"]) for result in found] == [(0.75, ""), (1.0, ""), (1.0, "")]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_function_is_refused(fresh: Registry, name: str) -> None:
    told = "cannot be called by keyword" if name == "takes_two" else "which is not a plain function"
    with pytest.raises(RewardConfigError, match=f"'x'.*{told}.* Fix: "):
        fresh.register("x", globals()[name])
    [problem] = check_sources({}, {"x": f"{__name__}:{name}"})
    assert told in problem
    assert describe(globals()[name]) in problem
    with pytest.raises(RewardConfigError, match=told):
        compute_score("x", "A", "A", registry={"x": f"{__name__}:{name}"})


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("my_reward", "not of the form"),
        ("my_reward:", "not of the form"),
        ("/path/my_reward.py", "not of the form"),
        ("pkg://my_rewards.text", "not of the form"),
        ("no.such.module:fn", "ModuleNotFoundError: No module named 'no'"),
        ("json:no_such_function", "must define 'no_such_function'"),
        ("/no/such/file.py:fn", "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file.py'"),
        ("/:fn", "/ is not a Python file"),
        ("{folder}/raises.py:fn", "NameError: name 'undefined' is not defined"),
        ("{folder}/exits.py:fn", "SystemExit: 2"),
        ("{folder}/broken.py:fn", "SyntaxError"),
        (3, "not a plain function"),
        (None, "not a plain function"),
    ],
)
def test_wrong_entries_are_told(fresh: Registry, tmp_path: Path, entry: Any, told: str) -> None:
    (tmp_path / "raises.py").write_text("undefined")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(2)")
    (tmp_path / "broken.py").write_text("def (")
    entry = entry.format(folder=tmp_path) if isinstance(entry, str) else entry
    # The data source that it serves is not told a second time.
    [problem] = check_sources({"my/data": 3}, {"my/*": entry})
    assert told in problem
    assert "'my/*'" in problem
    assert str(entry) in problem
    assert " Fix: " in problem
    assert "\n" not in problem
    with pytest.raises(RewardConfigError):
        compute_score("my/data", "A", "A", registry={"my/*": entry})


def test_sources_are_looked_up(fresh: Registry) -> None:
    fresh.register("late*", "no.such.module:fn")
    sources = {"my/a": 1, "nobody/knows": 12, "openai/gsm8k": 5, "aime_2025": 1, "searchR1_nq": 1, "late/a": 1}
    problems = check_sources(sources, {"my/": f"{__name__}:plain"})
    assert len(problems) == 2
    assert all(
        part in problems[0] for part in ("'nobody/knows' (rows: 12)", "late*, my/", "Fix: ", "reward_kwargs.registry")
    )
    assert "'late*' to 'no.such.module:fn'" in problems[1]
    [problem] = check_sources({np.str_("nobody/knows"): 1})
    assert "np.str_" not in problem
    assert "data source None (rows: 2)" in check_sources({None: 2})[0]
    assert check_sources({"a/b": 1, "c": 1}, {"*": f"{__name__}:plain"}) == []


def test_every_wrong_entry_is_told(fresh: Registry) -> None:
    good = f"{__name__}:plain"
    entries = {"a": "no_colon", "b": good, "c": "no.such:fn", "": good, "d/": good, "d/*": "json:dumps"}
    problems = check_sources({"b": 1}, entries)
    assert [problem for problem in problems if "'b'" in problem] == []
    assert len(problems) == 4
    assert "not a mapping. Fix: " in check_sources({}, ["a"])[0]


def test_a_scorer_of_verls_that_lacks_a_package_is_told(fresh: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mathruler", None)
    monkeypatch.delitem(__import__("sys").modules, "verl.utils.reward_score.geo3k", raising=False)
    [problem] = check_sources({"hiyouga/geometry3k": 7})
    assert all(part in problem for part in ("'hiyouga/geometry3k' (rows: 7)", "mathruler", "Fix: install"))
