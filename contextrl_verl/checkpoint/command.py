"""``contextrl export``: verl's own model merger, unchanged, with a card; the best checkpoint; pruning of the others."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from contextrl_verl.checkpoint.card import MANIFEST, read_config, write_card
from contextrl_verl.checkpoint.run import Checkpoints, find_checkpoints, find_logs, megabytes, read_metrics, values_at
from contextrl_verl.errors import ConfigError


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
    # Without a metric the last ones are the best; of equals it is the earlier one.
    sign = 1 if mode == "min" else -1
    ranked = sorted(values, key=lambda step: (sign * values[step], step)) or sorted(found.steps, reverse=True)
    step = ranked[0] if best else found.latest if found.named is None else found.named
    if out is not None:
        _check_target(out, found.root, force)
    near = [path for path in (found.root.parent / "config.yaml", found.root / "config.yaml") if path.is_file()]
    settings = read_config(config or near[0]) if config or near else None
    if settings is None:
        note = f"no config.yaml next to {found.root}: the card will not tell base model, arm and data."
        typer.echo(f"{note} Fix: --config FILE.", err=True)
    typer.echo(f"{len(found.steps)} checkpoint(s) in {found.root}{f', {best}' if best else ''}:")
    for number, folder in sorted(found.steps.items()):
        value = f"  {values[number]:.4g}" if number in values else "  no value" if best else ""
        mark = "  <- this one" if number == step else ""
        typer.echo(f"  {folder.name:20s} {megabytes(folder):10.1f} MB{value}{mark}")
    if out is not None:
        chosen = f"{best} = {values[step]:.4g}, the {mode} of {len(values)} checkpoint(s) with a value" if best else ""
        seen = history.get(step, {})
        with _merged(found.steps[step] / "actor", out) as target:
            write_card(
                target, step=step, config=settings, metrics=seen, arm=arm, base=base_model, licence=licence, best=chosen
            )
        typer.echo(f"step {step} exported to {out}")
    if prune is not None:
        # What verl resumes from stays, and what was exported; a step without a value is not among the best.
        _prune(found, {*ranked[:prune], found.latest, *([step] if out is not None else [])}, yes)


def _check_target(out: Path, root: Path, force: bool) -> None:
    """Refuse a target that lies in the checkpoints, or has files, unless they are an export's and ``force`` is on."""
    target = out.resolve()
    if target.is_relative_to(root) or root.is_relative_to(target):
        raise ConfigError(f"--out {out} and the checkpoints in {root} lie in each other. Fix: a folder of its own.")
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / MANIFEST).is_file():
        raise ConfigError(
            f"--out {out} is there and was not made by contextrl export, so it is not replaced, --force or not. "
            "Fix: name another folder."
        )
    if not force:
        raise ConfigError(f"--out {out} holds an export already. Fix: --force replaces it; or name another folder.")


@contextmanager
def _merged(actor: Path, out: Path) -> Iterator[Path]:
    """Merge the FSDP shards in ``actor`` to Hugging Face format (bfloat16), complete or not at all.

    Yields the folder under its temporary name; it becomes ``out`` when the block ends.
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
        yield scratch
        if out.exists():
            shutil.rmtree(out)  # _check_target has allowed it
        scratch.replace(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _prune(found: Checkpoints, stay: set[int], yes: bool) -> None:
    """Say which ``global_step_N`` folders go, ask, delete them and nothing else."""
    folders = [folder for step, folder in sorted(found.steps.items()) if step not in stay]
    if not folders:
        typer.echo("nothing to prune")
        return
    typer.echo("\n".join(["to delete:", *(f"  {folder}  {megabytes(folder):.1f} MB" for folder in folders)]))
    typer.echo(f"  ({', '.join(f'step {step}' for step in sorted(stay & set(found.steps)))} stay)")
    if not yes and not typer.confirm(f"Delete these {len(folders)} checkpoint(s)?", default=False):
        typer.echo("nothing deleted")
        return
    for folder in folders:
        shutil.rmtree(folder)  # refuses links
    typer.echo(f"{len(folders)} checkpoint(s) deleted")
