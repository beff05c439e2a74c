"""The demonstration in two acts, both through verl's own trainer and vLLM on this machine's CPU."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from contextrl_verl import __version__
from contextrl_verl.demo.evidence_pairs import evidence_pairs, rl_rows, text_pair
from contextrl_verl.demo.job import small_job, write_data
from contextrl_verl.demo.picture import HELD_OUT, History, draw, series
from contextrl_verl.demo.progress import StageProgress
from contextrl_verl.errors import UserError
from contextrl_verl.launch import TRAINER, run_trainer
from contextrl_verl.pairs import Context, ContrastivePair
from contextrl_verl.pairs.files import PairFile

PAIRS_PER_BATCH, RL_PER_BATCH, ROLLOUTS = 128, 8, 4
REAL_STEPS, REAL_PAIRS_PER_BATCH = 12, 32
# What so small a model sees of each context and of the patch; whole runs are for models that can read.
CONTEXT_CHARS, ANSWER_CHARS = 400, 200
FORGED_RUNS = 80
Pairs = Sequence[ContrastivePair]


def run_demo(
    out: Path, trajectories: Path | None, *, steps: int, seed: int, margin: str, mass_coef: float
) -> dict[str, Any]:
    """Run both acts and write ``summary.json``, ``demo.png`` and the trainer's logs under ``out``.

    Args:
        trajectories: runs of coding agents for act 2; without them the forge makes some.
        steps: training steps of act 1.
        seed: of data, weights and orders.
        margin, mass_coef: ``contextrl.loss.margin`` and ``contextrl.loss.mass_coef`` of both acts.

    Raises:
        UserError: the trajectory file is missing or gives too few pairs, or the trainer stopped.
    """
    started, out, console = time.monotonic(), out.resolve(), Console()
    out.mkdir(parents=True, exist_ok=True)
    if trajectories is not None and not trajectories.exists():
        raise UserError(f"--trajectories names {trajectories}, and there is no such file or folder. Fix: correct it.")
    loss = {"contextrl.loss.margin": margin, "contextrl.loss.mass_coef": mass_coef}
    (out / "act2").mkdir(exist_ok=True)
    with StageProgress(console) as progress:
        _make_model(out / "model", seed, progress)
        data, tests = (evidence_pairs(4000, seed), evidence_pairs(128, seed + 1, "heldout")), max(1, steps // 3)
        keys = _keys(out, "act1", seed, loss, data, PAIRS_PER_BATCH, steps=steps, rate=1e-3, tokens=[128, 4])
        # Two micro-batches a step: prompts are short, and each forward costs more in calls than in sums.
        half = keys["actor_rollout_ref.actor.ppo_mini_batch_size"] * ROLLOUTS // 2
        keys["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"] = half
        keys["actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu"] = half
        learned = _watched(keys | {"trainer.test_freq": tests}, out / "act1", "act 1: it learns", progress)
        pairs, origin = _real_pairs(out / "act2", trajectories, seed, progress)
        if len(pairs) < REAL_PAIRS_PER_BATCH:
            raise UserError(
                f"{origin} gives {len(pairs)} pairs, and a batch needs {REAL_PAIRS_PER_BATCH}. "
                f"Fix: more runs; {out / 'act2' / 'report' / 'index.html'} shows where the others were lost."
            )
        sizes = {"steps": REAL_STEPS, "rate": 5e-4, "tokens": [2048, 4]}
        keys = _keys(out, "act2", seed, loss, (pairs, []), REAL_PAIRS_PER_BATCH, **sizes)
        keys |= {"contextrl.pairs.val_files": [], "trainer.test_freq": -1, "trainer.val_before_train": False}
        real = _watched(keys, out / "act2", "act 2: real agent runs", progress)
    share = RL_PER_BATCH * ROLLOUTS / (RL_PER_BATCH * ROLLOUTS + PAIRS_PER_BATCH)
    title = f"contextrl-verl {__version__}: GRPO + context awareness through {TRAINER} (seed {seed})"
    draw(out / "demo.png", learned, real, title, share)
    figures = {
        "held-out selection accuracy, both orders": series(learned, HELD_OUT)[1],
        "context-awareness loss": series(learned, "actor/contextrl/loss")[1],
        "probability on the labels": series(learned, "actor/contextrl/option_mass")[1],
        f"loss on {len(pairs)} pairs of real agent runs": series(real, "actor/contextrl/loss")[1],
    }
    summary = {
        "versions": {"contextrl-verl": __version__, "verl": importlib.metadata.version("verl")},
        "trainer": TRAINER,
        "steps": [steps, REAL_STEPS],
        "seconds": round(time.monotonic() - started, 1),
        "seed": seed,
        "real_runs": origin,
        "figures": {name: {"before": values[0], "after": values[-1]} for name, values in figures.items()},
        **loss,
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    table = Table("", "before", "after", title="contextrl demo")
    for name, values in figures.items():
        table.add_row(name, f"{values[0]:.3f}", f"{values[-1]:.3f}")
    console.print(table)
    console.print(f"{summary['seconds']:.0f} s. Picture: {out / 'demo.png'}; figures: {out / 'summary.json'}")
    return summary


def _make_model(folder: Path, seed: int, progress: StageProgress) -> None:
    import torch

    from contextrl_verl.demo import tiny_model

    task = progress.add_task("a tiny Qwen2, made here and taught to read", total=None)
    torch.set_num_threads(1)  # for so small a model a second thread waits more than it works
    tokenizer, model = tiny_model.warmed_up(seed, lambda line: progress.update(task, note=line))
    tiny_model.save(model, tokenizer, folder)
    progress.update(task, total=1, completed=1, note="")


def _keys(
    out: Path, act: str, seed: int, loss: dict[str, Any], pairs: tuple[Pairs, Pairs], prompts: int, **sizes: Any
) -> dict[str, Any]:
    """Write an act's data; its Hydra overrides.

    Args:
        pairs: to train on, and held out.
        prompts: of pairs in a batch, whether a row holds one order of a pair or both.
    """
    train, held_out = pairs
    write_data(out / act, rl_rows(512, seed), train, rl_rows(32, seed + 1, "heldout"), held_out)
    per_batch = prompts // 2 if loss["contextrl.loss.margin"] == "averaged" else prompts
    return small_job(out / act, out / act, out / "model", seed, micro_batch=16, **sizes) | {
        "data.train_batch_size": per_batch + RL_PER_BATCH,
        "contextrl.pairs.per_batch": per_batch,
        "contextrl.pairs.orders": "both",
        "actor_rollout_ref.actor.ppo_mini_batch_size": (per_batch + RL_PER_BATCH * ROLLOUTS) // ROLLOUTS,
        "actor_rollout_ref.rollout.n": ROLLOUTS,
        **loss,
    }


def _watched(keys: dict[str, Any], folder: Path, title: str, progress: StageProgress) -> History:
    steps = keys["trainer.total_training_steps"]
    task = progress.add_task(title, total=steps, note="starting Ray, FSDP and vLLM (about two minutes)")

    def on_metrics(step: int, metrics: dict[str, Any]) -> None:
        told = (("loss", "actor/contextrl/loss", ".3f"), ("held-out", HELD_OUT, ".2f"))
        note = " ".join(f"{name} {metrics[key]:{form}}" for name, key, form in told if key in metrics)
        progress.update(task, completed=step, note=note)

    return run_trainer(keys, folder, on_metrics=on_metrics)


def _real_pairs(folder: Path, trajectories: Path | None, seed: int, progress: StageProgress) -> tuple[Pairs, str]:
    """Pairs from the given runs, or from runs that the forge makes, and where they come from.

    Calls the commands as a user would; pairs, report and forged runs lie under ``folder``.
    """
    task = progress.add_task("act 2: pairs from real agent runs", total=None)
    source, origin, commit = trajectories, trajectories.name if trajectories else "", "any"
    if source is None:
        progress.update(task, note=f"the forge makes {FORGED_RUNS} runs (about a minute)")
        source, origin, commit = folder / "forged.jsonl", f"{FORGED_RUNS} runs of the forge", "same"
        contextrl("forge", "--out", source, "--runs", FORGED_RUNS, "--seed", seed)
    progress.update(task, note="from runs to pairs")
    prepared = folder / "prepared.parquet"
    into = ("--input", source, "--out", prepared, "--report", folder / "report")
    # Few runs, of which beginnings are shown: all pairs that have the question below, with their issues.
    kind = ("--issue", "related", "--show-issue", "--overlap-cap", 1)
    contextrl("pairs", "trajectories", *into, *kind, "--seed", seed, "--set", f"cascade.commit={commit}")
    whole = PairFile(prepared)
    begun = [(pair, _begin(pair.supporting), _begin(pair.confounders[0])) for pair in whole]
    # Two runs may begin alike; such a pair cannot be shown by its beginnings.
    pairs = [
        text_pair(pair.pair_id, "which led to the patch?", pair.answer[:ANSWER_CHARS], right, wrong, domain=pair.domain)
        for pair, right, wrong in begun
        if right != wrong
    ]
    alike = f", {len(whole) - len(pairs)} that begin alike left out" if len(pairs) < len(whole) else ""
    progress.update(task, total=1, completed=1, note=f"{len(pairs)} pairs{alike}")
    return pairs, origin


def contextrl(*arguments: Any) -> None:
    """Call the command as a user would; raises UserError with what it says when it fails."""
    command = [sys.executable, "-m", "contextrl_verl.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise UserError((done.stderr.strip() or done.stdout.strip())[-2000:])


def _begin(context: Context) -> str:
    """Little of a run: its issue, and how the agent's work begins."""
    issue, *work = [turn.content for turn in context.messages or () if turn.role != "system"]
    title = issue.replace("<pr_description>", "").strip()[: CONTEXT_CHARS // 2]
    return (title + "\n" + "\n".join(work))[:CONTEXT_CHARS]
