"""The demonstration in two acts, both through verl's own trainer and vLLM on this machine's CPU."""

from __future__ import annotations

import importlib.metadata
import json
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from contextrl_verl import __version__
from contextrl_verl.demo.act_two import real_pairs
from contextrl_verl.demo.evidence_pairs import evidence_pairs, rl_rows
from contextrl_verl.demo.picture import HELD_OUT, History, draw, series
from contextrl_verl.demo.progress import StageProgress
from contextrl_verl.errors import UserError
from contextrl_verl.launch import TRAINER, run_trainer
from contextrl_verl.pairs import Context, ContrastivePair
from contextrl_verl.pairs.files import write_pairs
from contextrl_verl.pairs.prompting import PromptConfig, PromptRenderer

TEMPLATE = "short"
PAIRS_PER_BATCH, RL_PER_BATCH, ROLLOUTS = 128, 8, 4
LEARNING_RATE, COEF = 1e-3, 1.0
REAL_STEPS, REAL_PAIRS_PER_BATCH = 12, 32


def run_demo(
    out: Path,
    trajectories: Path | None,
    *,
    steps: int,
    seed: int,
    margin: str,
    mass_coef: float,
) -> dict[str, Any]:
    """Run both acts and write ``summary.json``, ``demo.png`` and the trainer's logs under ``out``.

    Args:
        out: made if missing; files of an earlier run are replaced.
        trajectories: runs of coding agents for act 2; without them the forge makes some.
        steps: training steps of act 1.
        seed: of data, weights and orders.
        margin, mass_coef: ``contextrl.loss.margin`` and ``contextrl.loss.mass_coef`` of both acts.

    Raises:
        UserError: the trajectory file is missing or gives too few pairs, or the trainer stopped.
    """
    started = time.monotonic()
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    if trajectories is not None and not trajectories.exists():
        raise UserError(
            f"--trajectories names {trajectories}, and there is no such file or folder. Correct the path or leave it "
            "out."
        )
    with StageProgress(console) as progress:
        model = _make_model(out, seed, progress)
        loss = {"contextrl.loss.margin": margin, "contextrl.loss.mass_coef": mass_coef}
        learned = _act_one(out, model, steps, seed, loss, progress)
        real, count, origin = _act_two(out, model, trajectories, seed, loss, progress)
    summary = _summary(learned, real, count, origin, time.monotonic() - started, seed) | loss
    picture = out / "demo.png"
    draw(
        picture,
        learned,
        real,
        f"contextrl-verl {__version__}: GRPO + context awareness through {TRAINER} (seed {seed})",
        RL_PER_BATCH * ROLLOUTS / (RL_PER_BATCH * ROLLOUTS + PAIRS_PER_BATCH),
    )
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    _show(console, summary, picture)
    return summary


def _make_model(out: Path, seed: int, progress: StageProgress) -> Path:
    import torch

    from contextrl_verl.demo import tiny_model

    task = progress.add_task("a tiny Qwen2, made here and taught to read", total=None, note="")
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # for so small a model a second thread waits more than it works
    tokenizer = tiny_model.make_tokenizer()
    model = tiny_model.make_model(None, tokenizer, seed=seed)
    tiny_model.warm_up(
        model, tokenizer, render=render_short, seed=seed, log=lambda line: progress.update(task, note=line)
    )
    tiny_model.save(model, tokenizer, out / "model")
    progress.update(task, total=1, completed=1, note="")
    return out / "model"


@lru_cache(maxsize=1)
def _short() -> PromptRenderer:
    return PromptRenderer(PromptConfig(template=TEMPLATE))


def render_short(query: str, answer: str, a: str, b: str) -> str:
    """The demonstration's prompt for two texts, through the same template the trainer will use."""
    contexts = [Context.model_construct(kind="text", text=text, messages=None, images=None) for text in (a, b)]
    pair = ContrastivePair.model_construct(
        pair_id="x", domain="demo", query=query, answer=answer, supporting=contexts[0], confounders=contexts[1:]
    )
    return _short().messages(pair, [0, 1])[0]["content"]


def _act_one(out: Path, model: Path, steps: int, seed: int, loss: dict[str, Any], progress: StageProgress) -> History:
    folder = out / "act1"
    folder.mkdir(exist_ok=True)
    _write_pairs(evidence_pairs(4000, seed, "train"), folder / "pairs.parquet", "train")
    _write_pairs(evidence_pairs(128, seed + 1, "heldout"), folder / "held_out.parquet", "validation")
    pd.DataFrame(rl_rows(512, seed)).to_parquet(folder / "rl.parquet")
    pd.DataFrame(rl_rows(32, seed + 1, "heldout")).to_parquet(folder / "rl_held_out.parquet")
    batch = _batch(PAIRS_PER_BATCH, loss)
    half = (batch["contextrl.pairs.per_batch"] + RL_PER_BATCH * ROLLOUTS) // 2
    keys = job_keys(folder, model, seed) | {
        "contextrl.pairs.orders": "both",
        **loss,
        **batch,
        "trainer.total_training_steps": steps,
        "trainer.test_freq": max(1, steps // 3),
        "trainer.val_before_train": True,
        "contextrl.pairs.val_files": [str(folder / "held_out.parquet")],
        # Two micro-batches a step: prompts are short, and each forward costs more in calls than in sums.
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": half,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": half,
        "data.max_prompt_length": 128,
        "actor_rollout_ref.rollout.max_model_len": 160,
    }
    return _watched(keys, folder, steps, "act 1: it learns", progress)


def _act_two(
    out: Path, model: Path, trajectories: Path | None, seed: int, loss: dict[str, Any], progress: StageProgress
) -> tuple[History, int, str]:
    folder = out / "act2"
    folder.mkdir(exist_ok=True)
    rows, origin = real_pairs(folder, trajectories, seed, progress)
    if len(rows) < REAL_PAIRS_PER_BATCH:
        raise UserError(
            f"{origin} gives {len(rows)} pairs, a batch needs {REAL_PAIRS_PER_BATCH}; "
            f"{folder / 'report' / 'index.html'} shows where the others were lost."
        )
    count = _write_pairs(rows, folder / "pairs.parquet", "train")
    pd.DataFrame(rl_rows(512, seed)).to_parquet(folder / "rl.parquet")
    pd.DataFrame(rl_rows(8, seed + 1, "heldout")).to_parquet(folder / "rl_held_out.parquet")
    keys = job_keys(folder, model, seed) | {
        "trainer.total_training_steps": REAL_STEPS,
        "trainer.test_freq": -1,
        "trainer.val_before_train": False,
        "contextrl.pairs.orders": "both",
        **loss,
        **_batch(REAL_PAIRS_PER_BATCH, loss),
        "data.max_prompt_length": 2048,
        "actor_rollout_ref.rollout.max_model_len": 2112,
        "actor_rollout_ref.actor.optim.lr": 5e-4,
    }
    return _watched(keys, folder, REAL_STEPS, "act 2: real agent runs", progress), count, origin


def job_keys(folder: Path, model: Path, seed: int) -> dict[str, Any]:
    """What both acts share, as Hydra overrides; data files are looked for under ``folder``."""
    return {
        "data.train_files": [str(folder / "rl.parquet")],
        "data.val_files": [str(folder / "rl_held_out.parquet")],
        **_batch(PAIRS_PER_BATCH, {}),
        "data.max_response_length": 4,
        "contextrl.pairs.train_files": [str(folder / "pairs.parquet")],
        "contextrl.prompt.template": TEMPLATE,
        "contextrl.loss.coef": COEF,
        "contextrl.seed": seed,
        "actor_rollout_ref.model.path": str(model),
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 16,
        "actor_rollout_ref.actor.optim.lr": LEARNING_RATE,
        "actor_rollout_ref.rollout.n": ROLLOUTS,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 16,
        "trainer.save_freq": -1,
        "trainer.resume_mode": "disable",
        "trainer.default_local_dir": str(folder / "checkpoints"),
        "trainer.project_name": "contextrl",
        "trainer.experiment_name": folder.name,
    }


def _batch(prompts: int, loss: dict[str, Any]) -> dict[str, Any]:
    """A batch with as many prompts of pairs, whether a row holds one order of a pair or both."""
    pairs = prompts // 2 if loss.get("contextrl.loss.margin") == "averaged" else prompts
    return {
        "contextrl.pairs.per_batch": pairs,
        "data.train_batch_size": pairs + RL_PER_BATCH,
        "actor_rollout_ref.actor.ppo_mini_batch_size": (pairs + RL_PER_BATCH * ROLLOUTS) // ROLLOUTS,
    }


def _write_pairs(rows: Any, path: Path, split: str) -> int:
    return write_pairs((ContrastivePair.model_validate({**row, "split": split}) for row in rows), path)


def _watched(keys: dict[str, Any], folder: Path, steps: int, title: str, progress: StageProgress) -> History:
    task = progress.add_task(title, total=steps, note="starting Ray, FSDP and vLLM (about two minutes)")

    def on_metrics(step: int, metrics: dict[str, Any]) -> None:
        loss, held_out = metrics.get("actor/contextrl/loss"), metrics.get(HELD_OUT)
        note = f"loss {loss:.3f}" if loss is not None else ""
        progress.update(task, completed=step, note=f"{note} held-out {held_out:.2f}" if held_out is not None else note)

    return run_trainer(keys, folder, on_metrics=on_metrics)


def _summary(
    learned: History, real: History, real_pairs: int, origin: str, seconds: float, seed: int
) -> dict[str, Any]:
    _, accuracy = series(learned, HELD_OUT)
    _, losses = series(learned, "actor/contextrl/loss")
    _, masses = series(learned, "actor/contextrl/option_mass")
    _, real_losses = series(real, "actor/contextrl/loss")
    return {
        "contextrl_verl_version": __version__,
        "verl_version": importlib.metadata.version("verl"),
        "trainer": TRAINER,
        "rollout": "vllm",
        "steps": len(losses),
        "seconds": round(seconds, 1),
        "seed": seed,
        "selection_accuracy_before": accuracy[0],
        "selection_accuracy_after": accuracy[-1],
        "option_mass_first": masses[0],
        "option_mass_last": masses[-1],
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "real_pairs": real_pairs,
        "real_runs": origin,
        "real_steps": len(real_losses),
        "real_loss_first": real_losses[0],
        "real_loss_last": real_losses[-1],
    }


def _show(console: Console, summary: dict[str, Any], picture: Path) -> None:
    table = Table(title="contextrl demo")
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    table.add_row(
        "held-out selection accuracy, both orders",
        f"{summary['selection_accuracy_before']:.3f}",
        f"{summary['selection_accuracy_after']:.3f}",
    )
    table.add_row("context-awareness loss", f"{summary['loss_first']:.3f}", f"{summary['loss_last']:.3f}")
    table.add_row(
        "probability on the labels", f"{summary['option_mass_first']:.3f}", f"{summary['option_mass_last']:.3f}"
    )
    first, last = summary["real_loss_first"], summary["real_loss_last"]
    table.add_row(f"loss on {summary['real_pairs']} pairs of real agent runs", f"{first:.3f}", f"{last:.3f}")
    console.print(table)
    console.print(f"{summary['seconds']:.0f} s. Picture: {picture}; figures: {picture.with_name('summary.json')}")
