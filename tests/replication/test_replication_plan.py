"""Plans of the shipped file, what a fingerprint holds, and which cells are run again."""

import json

import pytest

from bench.replication import cell as cell_module
from bench.replication.__main__ import main
from bench.replication.cell import RESULT, SELECTION, cost_of, curves_of, finished, job_keys, run_cell
from bench.replication.plan import PLAN_FILE, Cell, read_plan, with_first_habit, with_paper_ratio
from contextrl_verl.arms import ARMS
from contextrl_verl.errors import ConfigError


@pytest.mark.parametrize("name", ["quick", "overnight", "gpu"])
def test_shipped_plans_have_every_arm_with_every_seed(name):
    plan = read_plan(name)
    assert {(cell.arm, cell.seed) for cell in plan.cells()} == {(arm, seed) for arm in ARMS for seed in plan.seeds}
    assert plan.gpu is (name == "gpu")


def test_the_papers_ratio():
    plan = with_paper_ratio(read_plan("quick"))
    assert abs(plan.step.pairs - 0.15 * plan.step.items) <= 0.5  # the nearest whole number


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"arms": ("grpo", "dapo")}, "'dapo'.*Fix: one of"),
        ({"seeds": (1, 1)}, r"\[1, 1\].*Fix: name each seed once"),
        ({"step": {"items": 8, "pairs": 8, "rollouts": 2}}, "8 of 8 items are pairs.*Fix"),
        ({"training": {"steps": 0, "test_every": 1, "learning_rate": 1, "coef": 1}}, "quick.training.steps is 0.*Fix"),
    ],
)
def test_wrong_values_are_named(change, says):
    with pytest.raises(ConfigError, match=says):
        read_plan("quick", **change)


def test_the_habit_is_part_of_the_cells_and_checked(capsys):
    plan, cell = read_plan("quick"), Cell("grpo", 1)
    assert plan.base.first_habit is None
    assert with_first_habit(plan, 0.5).fingerprint(cell) != plan.fingerprint(cell)
    assert main(["--quick", "--dry-run", "--first-habit", "2"]) == 2
    assert "--first-habit is 2.0. Fix" in capsys.readouterr().err


def test_a_plan_file_without_the_plan(tmp_path):
    (tmp_path / "mine.yaml").write_text("small: {}\n")
    with pytest.raises(ConfigError, match=r"mine.yaml has no plan 'quick'; it has small. Fix"):
        read_plan("quick", tmp_path / "mine.yaml")


def test_the_fingerprint_holds_what_a_result_depends_on_and_nothing_else():
    plan, cell = read_plan("quick"), Cell("grpo", 1)
    same = [read_plan("quick", seeds=(1, 5)), read_plan("quick", arms=("grpo",)), read_plan("quick", gemma_pairs=50)]
    assert {other.fingerprint(cell) for other in same} == {plan.fingerprint(cell)}
    longer = plan.training.model_copy(update={"steps": plan.training.steps + 1})
    others = [plan.model_copy(update={"training": longer}).fingerprint(cell), plan.fingerprint(Cell("grpo", 2))]
    assert plan.fingerprint(cell) not in [*others, plan.fingerprint(Cell("da_rl", 1))]


def test_a_finished_cell_is_kept_and_one_of_another_plan_is_not(tmp_path, monkeypatch):
    plan, cell = read_plan("quick"), Cell("grpo", 1)
    path = tmp_path / cell.folder / RESULT
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"fingerprint": plan.fingerprint(cell), "kept": True}))

    class Started(Exception):
        pass

    def trainer(*_, **__):
        raise Started

    monkeypatch.setattr(cell_module, "run_trainer", trainer)
    assert run_cell(tmp_path, plan, cell, base=tmp_path, data=tmp_path)["kept"]
    longer = plan.model_copy(update={"training": plan.training.model_copy(update={"steps": 7})})
    assert finished(tmp_path, longer, cell) is None
    with pytest.raises(Started):
        run_cell(tmp_path, longer, cell, base=tmp_path, data=tmp_path)


def test_arms_differ_in_the_arms_keys_only(tmp_path):
    plan = read_plan("quick")
    keys = {arm: job_keys(plan, Cell(arm, 1), tmp_path, tmp_path / "model", tmp_path) for arm in ARMS}
    allowed = {
        "contextrl.objective", "contextrl.pairs.per_batch", "actor_rollout_ref.actor.ppo_mini_batch_size",
        "trainer.experiment_name", "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu",
    }  # fmt: skip
    for arm, of_arm in keys.items():
        rows = of_arm["actor_rollout_ref.actor.ppo_mini_batch_size"] * plan.step.rollouts
        assert rows % of_arm["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"] == 0
        assert {key for key in of_arm if of_arm[key] != keys["grpo"][key]} <= allowed, arm


def test_the_dry_run_lists_cells_and_starts_nothing(tmp_path, capsys):
    assert main(["--quick", "--dry-run", "--seeds", "7", "--arms", "da_rl,grpo", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "grpo" in shown
    assert "da_rl" in shown
    assert "contextrl" not in shown
    assert not list(tmp_path.iterdir())


def test_the_command_names_what_is_wrong(capsys):
    assert main(["--quick", "--dry-run", "--seeds", "one"]) == 2
    assert "--seeds is 'one'. Fix" in capsys.readouterr().err
    assert PLAN_FILE.is_file()


def test_curves_and_cost_are_those_of_verls_log():
    logged = [
        (0, {SELECTION: 0.5}),
        (1, {"timing_s/step": 3.0, "perf/total_num_tokens": 10.0}),
        (2, {"timing_s/step": 4.0, "timing_s/testing": 2.0, "perf/total_num_tokens": 20.0, SELECTION: 0.75}),
    ]
    assert curves_of(logged)["held_out_selection"] == [(0, 0.5), (2, 0.75)]
    assert cost_of(logged) == {"steps": 2, "step_seconds": 7.0, "tokens": 30.0}
