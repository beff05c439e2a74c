"""The report of made-up cells: every arm is there, and so is what the figures say."""

import json
import random
from pathlib import Path

import pytest

from bench.common import BEGIN, END
from bench.replication.__main__ import main, write_page, write_results
from bench.replication.material import OTHERS, TASKS
from bench.replication.plan import read_plan
from bench.replication.report import OTHERS_MEAN, markdown, results_of
from contextrl_verl.arms import ARMS

# Accuracy on every task, and step at which held-out selection reaches the mark.
MADE = {"grpo": (0.5, None), "contextrl": (0.8, 8), "da_rl": (0.5, None), "da_qca": (0.5, None), "da_sft": (0.2, 4)}


def _cell(arm: str, seed: int) -> dict:
    accuracy, mark = MADE[arm]
    rng = random.Random(f"{arm}/{seed}")
    items = {task: [int(rng.random() < accuracy) for _ in range(400)] for task in TASKS}
    curve = [(step, 0.95 if mark is not None and step >= mark else 0.5) for step in range(0, 101, 4)]
    return {
        "arm": arm,
        "seed": seed,
        "fingerprint": "",
        "curves": {"held_out_selection": curve, "held_out_main_task": curve},
        "evaluation": {"tasks": items, "selection": [1, 0] * 40, "option_mass": 0.5, "position_bias": 0.1},
        "cost": {"steps": 100, "step_seconds": 200.0, "tokens": 1e5, "cell_seconds": 310.0},
    }


@pytest.fixture
def results(tmp_path):
    plan = read_plan("quick", seeds=(1, 2, 3))
    cells = [_cell(arm, seed) for arm in ARMS for seed in plan.seeds]
    bases = {seed: cells[0]["evaluation"] for seed in plan.seeds}
    return write_results(plan, tmp_path, bases, cells)


def test_every_arm_and_file_is_there(results, tmp_path):
    text = (tmp_path / "results.md").read_text()
    for arm in ARMS:
        assert f"| {arm} |" in text
    for task in (*OTHERS, "five untrained tasks", "held-out selection"):
        assert task in text
    assert f"da_rl never reached it within {results['plan']['training']['steps']} steps" in text
    assert "| contextrl | 8, 8, 8 | 2.00 | 310 | 100,000 |" in text
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert results["missing"] == []


def test_differences_are_to_grpo_and_have_the_sign_of_the_cells(results):
    assert results["arms"]["contextrl"]["to_grpo"][OTHERS_MEAN]["low"] > 0.2
    assert results["arms"]["da_sft"]["to_grpo"][OTHERS_MEAN]["high"] < -0.2
    assert results["arms"]["grpo"]["to_grpo"][OTHERS_MEAN]["mean"] == 0


def test_seeds_without_grpo_are_not_compared_and_gaps_are_told():
    plan = read_plan("quick", seeds=(1, 2))
    cells = [_cell("grpo", 1), _cell("contextrl", 1), _cell("contextrl", 2)]
    found = results_of(plan, {1: cells[0]["evaluation"]}, cells)
    assert list(found["arms"]["contextrl"]["curves"]) == ["1", "2"]
    assert found["arms"]["contextrl"]["to_grpo"][OTHERS_MEAN]["low"] is None
    assert "seed_2/grpo" in found["missing"]
    assert found["claim"].startswith("Not known")
    text = markdown(json.loads(json.dumps(found)), "curves.png")
    assert "Not complete" in text
    assert ": one seed (" in text


def _page(tmp_path, *more):
    page = tmp_path / "docs" / "replication.md"
    page.parent.mkdir()
    page.write_text(f"before\n{BEGIN}\nold\n{END}\n## Run it\n")
    assert write_page([tmp_path / "results.json", *more], page.parent) == page
    return page.read_text()


def test_the_figures_of_a_results_file_go_into_the_page(results, tmp_path):
    page = _page(tmp_path)
    assert "images/replication.png" in page
    assert (tmp_path / "docs" / "images" / "replication.png").is_file()
    assert page.startswith("before\n")
    assert "\nold\n" not in page
    assert page.endswith("## Run it\n")
    shipped = (Path(__file__).parents[2] / "docs" / "replication.md").read_text()
    assert shipped.index(BEGIN) < shipped.index("**Selection.**") < shipped.index(END)


def test_a_run_from_another_start_stands_beside_it(results, tmp_path):
    plan = read_plan("quick", first_habit=0.5, seeds=(5,), arms=("contextrl", "da_rl"))
    cells = [_cell(arm, 5) for arm in plan.arms]
    write_results(plan, tmp_path / "other", {5: cells[0]["evaluation"]}, cells)
    _, _, told = _page(tmp_path, tmp_path / "other" / "results.json").partition("## From another")
    assert "the first one with probability 0.5" in told
    assert "Seeds 5, 32 steps, arms contextrl, da_rl;" in told
    assert "contextrl 8, da_rl never" in told
    assert "| contextrl | 8 |" in told


def test_a_page_of_no_run(tmp_path, capsys):
    assert main(["--page", str(tmp_path / "none.json")]) == 2
    assert "there is no such file. Fix" in capsys.readouterr().err
