"""Plans of the shipped file, what a fingerprint holds, and which cells are run again."""

import json

import pytest

from bench.replication import __main__ as command
from bench.replication import cell as cell_module
from bench.replication.__main__ import main
from bench.replication.cell import RESULT, curves_and_cost, finished, job_keys, run_cell
from bench.replication.plan import Cell, read_plan
from contextrl_verl.arms import ARMS
from contextrl_verl.demo.picture import HELD_OUT
from contextrl_verl.errors import ConfigError


@pytest.mark.parametrize("name", ["quick", "overnight", "gpu"])
def test_shipped_plans_have_every_arm_with_every_seed(name):
    plan = read_plan(name)
    assert {(cell.arm, cell.seed) for cell in plan.cells()} == {(arm, seed) for arm in ARMS for seed in plan.seeds}
    assert plan.gpu is (name == "gpu")
    # The pairs of a split are 13,824 and 3,456.
    assert plan.data.pairs <= 13_824
    assert plan.data.asked_pairs <= 3_456


def test_the_papers_ratio():
    step = read_plan("quick", paper_ratio=True).step
    assert abs(step.pairs - 0.15 * step.items) <= 0.5  # the nearest whole number


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"arms": ("grpo", "dapo")}, "quick.arms.1 is 'dapo'.*'da_sft'.*Fix"),
        ({"seeds": ()}, "quick.seeds is .*Fix"),
        ({"seeds": ("one",)}, "quick.seeds.0 is 'one'.*Fix"),
        ({"step": {"items": 8, "pairs": 8, "rollouts": 2}}, "8 of 8 items are pairs.*Fix"),
        ({"training": {"steps": 0, "learning_rate": 1, "coef": 1}}, "quick.training.steps is 0.*Fix"),
        ({"first_habit": 2.0}, "quick.base.first_habit is 2.0.*Fix"),
        ({"size": 1}, "quick.size is 1.*Fix"),
    ],
)
def test_wrong_values_are_named(change, says):
    with pytest.raises(ConfigError, match=says):
        read_plan("quick", **change)


@pytest.mark.parametrize("text", ["small: {}\n", "", ": ["])
def test_a_plan_file_without_the_plan(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"mine.yaml holds no plan 'quick'.*Fix"):
        read_plan("quick", tmp_path / "mine.yaml")


def test_the_fingerprint_holds_what_a_result_depends_on_and_nothing_else():
    plan, cell = read_plan("quick"), Cell("grpo", 1)
    same = [read_plan("quick", seeds=(1, 5)), read_plan("quick", arms=("grpo",))]
    assert {other.fingerprint(cell) for other in same} == {plan.fingerprint(cell)}
    longer = plan.training.model_copy(update={"steps": plan.training.steps + 1})
    others = [plan.model_copy(update={"training": longer}), read_plan("quick", first_habit=0.5)]
    found = [other.fingerprint(cell) for other in others]
    assert plan.fingerprint(cell) not in [*found, *(plan.fingerprint(Cell(*of)) for of in (("grpo", 2), ("da_rl", 1)))]


def test_a_finished_cell_is_kept_and_one_of_another_plan_is_not(tmp_path, monkeypatch):
    plan, cell = read_plan("quick", seeds=(1,), arms=("grpo",)), Cell("grpo", 1)
    result = {"fingerprint": plan.fingerprint(cell), "kept": True}
    (tmp_path / cell.folder).mkdir(parents=True)
    (tmp_path / cell.folder / RESULT).write_text(json.dumps(result))
    monkeypatch.setattr(command, "_base", lambda *_: {"evaluation": {}})
    monkeypatch.setattr(command, "write_results", lambda plan, out, bases, cells: cells)
    assert command.run_plan(plan, tmp_path) == [result]

    class Started(Exception):
        pass

    def trainer(*_, **__):
        raise Started

    monkeypatch.setattr(cell_module, "run_trainer", trainer)
    longer = plan.model_copy(update={"training": plan.training.model_copy(update={"steps": 7})})
    assert finished(tmp_path, longer, cell) is None
    with pytest.raises(Started):
        run_cell(tmp_path, longer, cell, base=tmp_path, data=tmp_path)
    assert finished(tmp_path, plan, cell) is None


def test_arms_differ_in_the_arms_keys_only(tmp_path):
    plan = read_plan("quick")
    keys = {arm: job_keys(plan, Cell(arm, 1), tmp_path, tmp_path / "model", tmp_path) for arm in ARMS}
    allowed = {
        "contextrl.objective", "contextrl.pairs.per_batch", "actor_rollout_ref.actor.ppo_mini_batch_size",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu",
    }  # fmt: skip
    for arm, of_arm in keys.items():
        rows = of_arm["actor_rollout_ref.actor.ppo_mini_batch_size"] * plan.step.rollouts
        assert rows % of_arm["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"] == 0
        assert {key for key in of_arm if of_arm[key] != keys["grpo"][key]} <= allowed, arm
    assert keys["grpo"]["trainer.save_freq"] == plan.training.steps


def test_the_dry_run_lists_cells_and_starts_nothing(tmp_path, capsys):
    arguments = ["--quick", "--dry-run", "--out", str(tmp_path)]
    assert main([*arguments, "--seeds", "7", "--arms", "da_rl,grpo"]) == 0
    assert capsys.readouterr().out == "seed_7/grpo: to run\nseed_7/da_rl: to run\n"
    assert not list(tmp_path.iterdir())
    assert main([*arguments, "--seeds", "one"]) == 2
    assert "seeds.0 is 'one'" in capsys.readouterr().err


def test_curves_and_cost_are_those_of_verls_log():
    logged = [
        (0, {HELD_OUT: 0.5}),
        (1, {"timing_s/step": 3.0, "perf/total_num_tokens": 10.0}),
        (2, {"timing_s/step": 4.0, "timing_s/testing": 2.0, "perf/total_num_tokens": 20.0, HELD_OUT: 0.75}),
    ]
    curves, cost = curves_and_cost(logged)
    assert curves["held_out_selection"] == [(0, 0.5), (2, 0.75)]
    assert cost == {"steps": 2, "step_seconds": 7.0, "tokens": 30.0}
