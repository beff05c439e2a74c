"""One cell: an arm with a seed, through verl's own trainer, evaluated at the end. Its result is one file."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.replication.base_model import TEMPLATE
from bench.replication.evaluate import evaluate
from bench.replication.material import HELD_OUT_PAIRS, HELD_OUT_ROWS, PAIRS, ROWS
from contextrl_verl.arms import arm_keys
from contextrl_verl.errors import ConfigError
from contextrl_verl.launch import TRAINER, overrides_of, run_trainer, watch
from contextrl_verl.pairs.whole_file import write_whole

if TYPE_CHECKING:
    from bench.replication.plan import Cell, Plan

RESULT = "cell.json"
SELECTION = "val-core/contextrl/selection/acc/mean@1"
# Metric in verl's log -> name of the curve in the result.
CURVES = {
    SELECTION: "held_out_selection",
    "val-core/contextrl/exact_match/replication/acc/mean@1": "held_out_main_task",
    "critic/score/mean": "reward",
    "actor/contextrl/loss": "loss",
    "actor/contextrl/option_mass": "option_mass",
}
_PROMPT_TOKENS, _REPLY_TOKENS = 160, 4

Watch = Callable[[int, dict[str, Any]], None]
Logged = list[tuple[int, dict[str, Any]]]


def finished(out: Path, plan: Plan, cell: Cell) -> dict[str, Any] | None:
    """The result of a cell if it is there and was made with this plan; else None."""
    path = out / cell.folder / RESULT
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON ({error}). Fix: remove it; the cell is then run again.") from None
    return result if result.get("fingerprint") == plan.fingerprint(cell) else None


def run_cell(
    out: Path, plan: Plan, cell: Cell, *, base: Path | str, data: Path, on_step: Watch | None = None
) -> dict[str, Any]:
    """Train and evaluate a cell, unless it is finished; write and return its result.

    Args:
        base: folder (or name) of the seed's base model.
        data: folder of the seed's files.
        on_step: called with (step, metrics) as the trainer logs them.

    Raises:
        JobError: the trainer stopped.
    """
    if (done := finished(out, plan, cell)) is not None:
        return done
    folder = out / cell.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    seconds, since = {"sft_seconds": 0.0}, time.monotonic()

    def took(name: str) -> None:
        nonlocal since
        seconds[name], since = time.monotonic() - since, time.monotonic()

    if cell.arm == "da_sft":
        from contextrl_verl.sft.run import CPU, GPU, run_selection_sft

        keys = sft_keys(plan, cell, base, data)
        base = run_selection_sft(keys, folder / "sft", config_name=GPU if plan.gpu else CPU)
        took("sft_seconds")
    logged = _train(job_keys(plan, cell, folder, base, data), folder, plan, on_step)
    took("trainer_seconds")
    model = folder / "checkpoints" / f"global_step_{plan.training.steps}" / "actor" / "huggingface"
    evaluation = evaluate(model, plan.evaluation, cell.seed)
    took("evaluation_seconds")
    result = {
        "arm": cell.arm,
        "seed": cell.seed,
        "fingerprint": plan.fingerprint(cell),
        "curves": curves_of(logged),
        "evaluation": evaluation,
        "cost": cost_of(logged) | seconds,
    }
    model.rename(folder / "model")
    for left in ("checkpoints", "sft/checkpoints"):
        shutil.rmtree(folder / left, ignore_errors=True)
    write_whole(folder / RESULT, json.dumps(result, indent=1) + "\n")
    return result


def _train(keys: dict[str, Any], folder: Path, plan: Plan, on_step: Watch | None) -> Logged:
    if not plan.gpu:
        return run_trainer(keys, folder, on_metrics=on_step)
    configured = ["--config-path=pkg://contextrl_verl.config", "--config-name=contextrl_trainer"]
    command = [sys.executable, "-m", TRAINER, *configured, *overrides_of(keys)]
    return watch(command, folder, os.environ, cwd=folder, on_metrics=on_step, timeout=float("inf"))


def job_keys(plan: Plan, cell: Cell, folder: Path, model: Path | str, data: Path) -> dict[str, Any]:
    """Hydra overrides of a cell's GRPO job; arms differ in what contextrl_verl.arms.arm_keys says and nothing else."""
    step, training = plan.step, plan.training
    of_arm = arm_keys(cell.arm, step.size)
    micro = micro_batch(of_arm["actor_rollout_ref.actor.ppo_mini_batch_size"] * step.rollouts)
    on_gpu = {"trainer.n_gpus_per_node": 1, "trainer.logger": ["console", "file"]} if plan.gpu else {}
    return {
        **of_arm,
        "data.train_files": [str(data / ROWS)],
        "data.val_files": [str(data / HELD_OUT_ROWS)],
        "data.max_prompt_length": _PROMPT_TOKENS,
        "data.max_response_length": _REPLY_TOKENS,
        "contextrl.pairs.train_files": [str(data / PAIRS)],
        "contextrl.pairs.val_files": [str(data / HELD_OUT_PAIRS)],
        "contextrl.prompt.template": TEMPLATE,
        "contextrl.prompt.question_template": str(Path(__file__).with_name("question.jinja")),
        "contextrl.loss.coef": training.coef,
        "contextrl.seed": cell.seed,
        "actor_rollout_ref.model.path": str(model),
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": micro,
        "actor_rollout_ref.actor.optim.lr": training.learning_rate,
        "actor_rollout_ref.actor.checkpoint.save_contents": ["model", "hf_model"],
        "actor_rollout_ref.rollout.max_model_len": _PROMPT_TOKENS + 2 * _REPLY_TOKENS,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": micro,
        "actor_rollout_ref.rollout.seed": cell.seed,
        "trainer.total_training_steps": training.steps,
        "trainer.test_freq": training.test_every,
        "trainer.val_before_train": True,
        "trainer.save_freq": training.steps,
        "trainer.resume_mode": "disable",
        "trainer.default_local_dir": str(folder / "checkpoints"),
        "trainer.project_name": "replication",
        "trainer.experiment_name": cell.folder,
        **on_gpu,
    }


def micro_batch(rows: int, most: int = 64) -> int:
    """The largest micro-batch that divides a mini-batch, as verl asks; it has no influence on the weights."""
    return max(size for size in range(1, most + 1) if rows % size == 0)


def sft_keys(plan: Plan, cell: Cell, model: Path | str, data: Path) -> dict[str, Any]:
    """Hydra overrides of da_sft's first part: as many pairs a step, and steps, as the arm contextrl has."""
    return {
        "model.path": str(model),
        "contextrl.pairs.train_files": [str(data / PAIRS)],
        "contextrl.prompt.template": TEMPLATE,
        "contextrl.seed": cell.seed,
        "contextrl.epochs": -(-plan.training.steps * plan.step.pairs // plan.data.pairs),
        "data.train_batch_size": plan.step.pairs,
        "data.max_prompt_length": _PROMPT_TOKENS,
        "optim.lr": plan.training.learning_rate,
        "trainer.total_training_steps": plan.training.steps,
        "trainer.n_gpus_per_node": 1,
        "trainer.nnodes": 1,
    }


def curves_of(logged: Logged) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every metric that is kept."""
    return {
        name: [(step, float(metrics[key])) for step, metrics in logged if key in metrics]
        for key, name in CURVES.items()
    }


def cost_of(logged: Logged) -> dict[str, float]:
    """What training steps cost: seconds (verl leaves validation out of them), and tokens that verl counts."""
    steps = [metrics for _, metrics in logged if "timing_s/step" in metrics]
    return {
        "steps": len(steps),
        "step_seconds": sum(metrics["timing_s/step"] for metrics in steps),
        "tokens": sum(metrics.get("perf/total_num_tokens", 0.0) for metrics in steps),
    }
