"""One cell: an arm with a seed, through verl's own trainer, evaluated at the end. Its result is one file."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from bench.replication.material import DATA_SOURCE, EVALUATION, TASKS, items
from bench.replication.plan import Cell, Data, Plan
from contextrl_verl.arms import arm_keys
from contextrl_verl.demo.evidence_pairs import evidence_pairs
from contextrl_verl.demo.job import PAIRS, small_job
from contextrl_verl.demo.picture import HELD_OUT, History, series
from contextrl_verl.demo.tiny_model import TEMPLATE
from contextrl_verl.launch import TRAINER, OnMetrics, command_of, run_trainer, watch
from contextrl_verl.pairs.prompting import PromptConfig
from contextrl_verl.pairs.whole_file import write_whole
from contextrl_verl.sft.run import CPU, GPU, run_selection_sft
from data_prep.probe.local_backend import TransformersBackend
from data_prep.probe.questions import Questions
from data_prep.probe.run import probe
from reward_fns import compute_score

RESULT = "cell.json"
# Name of a curve in the result -> metric in verl's log.
CURVES = {"held_out_selection": HELD_OUT, "held_out_main_task": f"val-core/{DATA_SOURCE}/acc/mean@1"}
_PROMPT_TOKENS, _REPLY_TOKENS, _TEST_EVERY = 160, 4, 4


def read_json(path: Path) -> dict[str, Any]:
    """A file's content, and nothing where there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a file whole."""
    write_whole(path, json.dumps(value, indent=1) + "\n")


def finished(out: Path, plan: Plan, cell: Cell) -> dict[str, Any] | None:
    """The result of a cell if it is there and was made with this plan; else None."""
    result = read_json(out / cell.folder / RESULT)
    return result if result.get("fingerprint") == plan.fingerprint(cell) else None


def run_cell(
    out: Path, plan: Plan, cell: Cell, *, base: Path | str, data: Path, on_step: OnMetrics | None = None
) -> dict[str, Any]:
    """Train and evaluate a cell, from a seed's ``base`` model and files; write and return its result.

    Raises:
        JobError: the trainer stopped.
    """
    folder, started = out / cell.folder, time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if cell.arm == "da_sft":
        config = GPU if plan.gpu else CPU
        base = run_selection_sft(sft_keys(plan, cell, base, data), folder / "sft", config_name=config)
    keys = job_keys(plan, cell, folder, base, data)
    if plan.gpu:
        command, forever = command_of(TRAINER, "contextrl_trainer", keys), float("inf")
        logged = watch(command, folder, os.environ, cwd=folder, on_metrics=on_step, timeout=forever)
    else:
        logged = run_trainer(keys, folder, on_metrics=on_step)
    curves, cost = curves_and_cost(logged)
    model = folder / "checkpoints" / f"global_step_{plan.training.steps}" / "actor" / "huggingface"
    result = {
        "arm": cell.arm,
        "seed": cell.seed,
        "fingerprint": plan.fingerprint(cell),
        "curves": curves,
        "evaluation": evaluate(model, plan.data, cell.seed),
        "cost": cost | {"cell_seconds": time.monotonic() - started},
    }
    model.rename(folder / "model")
    for left in ("checkpoints", "sft/checkpoints"):
        shutil.rmtree(folder / left, ignore_errors=True)
    write_json(folder / RESULT, result)
    return result


def job_keys(plan: Plan, cell: Cell, folder: Path, model: Path | str, data: Path) -> dict[str, Any]:
    """Hydra overrides of a cell's GRPO job; arms differ in what contextrl_verl.arms.arm_keys says and nothing else."""
    step, training = plan.step, plan.training
    of_arm = arm_keys(cell.arm, step)
    # The largest micro-batch that divides a mini-batch, as verl asks; it has no influence on the weights.
    rows = of_arm["actor_rollout_ref.actor.ppo_mini_batch_size"] * step.rollouts
    micro = max(size for size in range(1, 65) if rows % size == 0)
    sizes = {"steps": training.steps, "rate": training.learning_rate, "micro_batch": micro}
    return small_job(data, folder, model, cell.seed, tokens=[_PROMPT_TOKENS, _REPLY_TOKENS], **sizes) | {
        **of_arm,
        "contextrl.prompt.question_template": str(Path(__file__).with_name("question.jinja")),
        "contextrl.loss.coef": training.coef,
        "actor_rollout_ref.actor.checkpoint.save_contents": ["model", "hf_model"],
        "trainer.test_freq": _TEST_EVERY,
        "trainer.save_freq": training.steps,
        **({"trainer.n_gpus_per_node": 1, "trainer.logger": ["console", "file"]} if plan.gpu else {}),
    }


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


def curves_and_cost(logged: History) -> tuple[dict[str, list[tuple[int, float]]], dict[str, float]]:
    """(step, value) of metrics; and what training steps cost: seconds (without validation), and tokens by verl."""
    curves = {name: list(zip(*series(logged, key), strict=True)) for name, key in CURVES.items()}
    seconds, tokens = (series(logged, key)[1] for key in ("timing_s/step", "perf/total_num_tokens"))
    return curves, {"steps": len(seconds), "step_seconds": sum(seconds), "tokens": sum(tokens)}


def evaluate(model: Path | str, sizes: Data, seed: int) -> dict[str, Any]:
    """What a checkpoint can do: greedy answers to held-out items of every task, and its choice on held-out pairs.

    Returns:
        ``tasks``: 0 or 1 for every item of every task, in the same order for all arms of a seed; ``selection``: 0 or 1
        by pair and order; ``option_mass``, ``position_bias``: as the probe reports them.
    """
    backend, later = TransformersBackend(str(model), PromptConfig(template=TEMPLATE)), seed + EVALUATION
    backend.load()
    scores = {}
    for task in TASKS:
        prompts, answers = zip(*(turns[0] for turns in items(task, sizes.asked_items, later, "heldout")), strict=True)
        replies = greedy(backend.model, backend.tokenizer, list(prompts))
        scored = (compute_score(DATA_SOURCE, *pair)["score"] for pair in zip(replies, answers, strict=True))
        scores[task] = list(map(int, scored))
    found = probe(evidence_pairs(sizes.asked_pairs, later, "heldout"), backend, Questions(backend.prompt, seed))
    return {
        "tasks": scores,
        "selection": found.questions["credit"].astype(int).tolist(),
        "option_mass": found.overall["option_mass"],
        "position_bias": found.overall["position_bias"],
    }


def greedy(model: Any, tokenizer: Any, prompts: list[str]) -> list[str]:
    """The likeliest reply to each user message, a few tokens, in the order of the prompts."""
    from transformers import pipeline

    tokenizer.padding_side = "left"
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    how = {"batch_size": 64, "max_new_tokens": _REPLY_TOKENS, "do_sample": False, "return_full_text": False}
    replies = pipeline("text-generation", model=model, tokenizer=tokenizer)(chats, **how)
    return [reply["generated_text"] for (reply,) in replies]
