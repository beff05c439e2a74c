"""``contextrl export``: verl's own model merger, unchanged, with a card; the best checkpoint; pruning of the others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from contextrl_verl.checkpoint.card import card_facts, read_config, render_card
from contextrl_verl.checkpoint.run import (
    Checkpoints,
    find_checkpoints,
    find_logs,
    megabytes,
    rank,
    read_metrics,
    values_at,
)
from contextrl_verl.errors import ConfigError

# Its presence says that a folder was made here and may be replaced.
_MANIFEST = "contextrl_export.json"


def export(
    checkpoint: Annotated[Path, typer.Argument(help="trainer.default_local_dir, or one global_step_N in it.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the model; without it, only a list.")] = None,
    best: Annotated[str, typer.Option(metavar="METRIC", help="Take the checkpoint with the best value of it.")] = "",
    mode: Annotated[Literal["max", "min"], typer.Option(help="Which value of --best is the best.")] = "max",
    metrics: Annotated[
        list[Path] | None, typer.Option(help="verl's file log (repeat, oldest first) [metrics*.jsonl next to the run].")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The job's resolved yaml [config.yaml next to the run's checkpoints].")
    ] = None,
    arm: Annotated[
        str, typer.Option(help="Arm for the card, where the configuration does not tell (da_sft, ...).")
    ] = "",
    base_model: Annotated[str, typer.Option(help="Base model for the card, e.g. Qwen/Qwen3-8B.")] = "",
    licence: Annotated[str, typer.Option(help="Licence id for the card, e.g. apache-2.0.")] = "",
    prune: Annotated[
        int | None, typer.Option(min=1, metavar="KEEP", help="Then delete all but the KEEP best (or last) checkpoints.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before --prune deletes what it lists.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in --out.")] = False,
) -> None:
    """Merge a checkpoint to Hugging Face format with a model card; choose the best; prune the others.

    Checkpoints are PyTorch files that verl's merger unpickles: export only those of people you trust.
    """
    found = find_checkpoints(checkpoint)
    if found.named is not None and (best or prune is not None):
        raise ConfigError(
            f"{checkpoint} is one checkpoint, and --best and --prune need all of a run. Fix: name {found.root}."
        )
    history = read_metrics(metrics or find_logs(found.root))
    if best and not history:
        raise ConfigError(
            f"--best {best}: there is no log metrics*.jsonl next to {found.root}. Fix: --metrics FILE (verl's file "
            "logger: trainer.logger=[console,file], VERL_FILE_LOGGER_PATH)."
        )
    values = values_at(history, found.steps, best) if best else {}
    ranked = rank(values, mode) if best else sorted(found.steps, reverse=True)
    step = ranked[0] if best else found.latest if found.named is None else found.named
    if out is not None:
        _check_target(out, found.root, force)
    settings = _config(config, found.root)
    _list(found, step, best, values)
    if out is not None:
        shards = found.steps[step] / "actor"
        facts = card_facts(
            step=step,
            config=settings,
            metrics=history.get(step, {}),
            model_type=json.loads((shards / "huggingface" / "config.json").read_text()).get("model_type", "unknown"),
            arm=arm,
            base_model=base_model,
            licence=licence,
            best=f"{best} = {values[step]:.4g}, the {mode} of {len(values)} checkpoint(s) with a value" if best else "",
        )

        def finish(target: Path) -> None:
            (target / "README.md").write_text(render_card(facts, target))
            (target / _MANIFEST).write_text(json.dumps(facts, indent=2, default=str) + "\n")

        _merge(shards, out, finish)
        typer.echo(f"step {step} exported to {out}")
    if prune is not None:
        # What verl resumes from stays, and what was exported; a step without a value is not among the best.
        _prune(found, {*ranked[:prune], found.latest, *([step] if out is not None else [])}, yes)


def _config(path: Path | None, root: Path) -> Any | None:
    for candidate in [path] if path else [root.parent / "config.yaml", root / "config.yaml"]:
        if path or candidate.is_file():
            return read_config(candidate)
    typer.echo(
        f"no config.yaml next to {root}: the card will not tell base model, arm and data. Fix: --config FILE.", err=True
    )
    return None


def _list(found: Checkpoints, chosen: int, metric: str, values: dict[int, float]) -> None:
    typer.echo(f"{len(found.steps)} checkpoint(s) in {found.root}" + (f", {metric}:" if metric else ":"))
    for step, folder in sorted(found.steps.items()):
        value = f"  {values[step]:.4g}" if step in values else ("  no value" if metric else "")
        mark = "  <- this one" if step == chosen else ""
        typer.echo(f"  {folder.name:20s} {megabytes(folder):10.1f} MB{value}{mark}")


def _check_target(out: Path, root: Path, force: bool) -> None:
    """Refuse targets that would cost somebody's files.

    Raises:
        ConfigError: ``out`` has files and ``force`` is off or they are not an export's, or it lies in the checkpoints.
    """
    target, root = out.resolve(), root.resolve()
    if target == root or root in target.parents or target in root.parents:
        raise ConfigError(f"--out {out} and the checkpoints in {root} lie in each other. Fix: a folder of its own.")
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir() or not (target / _MANIFEST).is_file():
        raise ConfigError(
            f"--out {out} is there and was not made by contextrl export, so it is not replaced, --force or not. "
            "Fix: name another folder."
        )
    if not force:
        raise ConfigError(f"--out {out} holds an export already. Fix: --force replaces it; or name another folder.")


def _merge(actor: Path, out: Path, finish: Callable[[Path], None]) -> None:
    """Merge the FSDP shards in ``actor`` to Hugging Face format (bfloat16) in ``out``, complete or not at all.

    ``finish`` gets the folder under its temporary name and adds its own files.

    Raises:
        ConfigError: the merger failed; its last lines are in the message.
    """
    scratch = out.with_name(f".{out.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    command += ["--local_dir", str(actor), "--target_dir", str(scratch)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        if done.returncode != 0:
            told = "\n".join(done.stdout.splitlines()[-8:])
            raise ConfigError(
                f"verl's model merger stopped with exit status {done.returncode} on {actor}. Its last lines:\n{told}\n"
                "Fix: what they name; a checkpoint that was cut short cannot be merged, an earlier one can."
            )
        finish(scratch)
        if out.exists():
            shutil.rmtree(out)  # _check_target has allowed it
        scratch.replace(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _prune(found: Checkpoints, stay: set[int], yes: bool) -> None:
    """Say which ``global_step_N`` folders go, ask, delete them and nothing else."""
    steps = [step for step in sorted(found.steps) if step not in stay]
    if not steps:
        typer.echo("nothing to prune")
        return
    typer.echo("to delete:")
    for step in steps:
        typer.echo(f"  {found.steps[step]}  {megabytes(found.steps[step]):.1f} MB")
    typer.echo(f"  ({', '.join(f'step {s}' for s in sorted(set(found.steps) - set(steps)))} stay)")
    if not yes and not typer.confirm(f"Delete these {len(steps)} checkpoint(s)?", default=False):
        typer.echo("nothing deleted")
        return
    for step in steps:
        shutil.rmtree(found.steps[step])  # refuses links
    typer.echo(f"{len(steps)} checkpoint(s) deleted")
