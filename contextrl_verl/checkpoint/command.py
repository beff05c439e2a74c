"""``contextrl export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from contextrl_verl.checkpoint.folders import Checkpoints
    from contextrl_verl.checkpoint.metrics import History


def export(
    checkpoint: Annotated[Path, typer.Argument(help="trainer.default_local_dir, or one global_step_N in it.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the model; without it, only a list.")] = None,
    best: Annotated[str, typer.Option(metavar="METRIC", help="Take the checkpoint with the best value of it.")] = "",
    mode: Annotated[str, typer.Option(help="max or min: which value of --best is the best.")] = "max",
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
    from contextrl_verl.checkpoint.folders import find_checkpoints
    from contextrl_verl.checkpoint.merge import check_target
    from contextrl_verl.checkpoint.metrics import best_step, find_logs, read_metrics, values_at
    from contextrl_verl.errors import ConfigError

    try:
        if mode not in ("max", "min"):
            raise ConfigError(f"--mode is {mode!r}. Fix: max or min.")
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
        step = found.latest if found.named is None else found.named
        if best:
            step = best_step(history, found.steps, best, mode)
        if out is not None:
            check_target(out, found.root, force)
        settings = _config(config, found.root)
        _list(found, step, best, values)
        if out is not None:
            reason = (
                f"{best} = {values[step]:.4g}, the {mode} of {len(values)} checkpoint(s) with a value" if best else ""
            )
            _export(found.steps[step], out, step, settings, history, arm, base_model, licence, reason)
            typer.echo(f"step {step} exported to {out}")
        if prune is not None:
            _prune(found, prune, values, mode, step if out is not None else None, yes)
    except ConfigError as error:
        typer.echo(f"contextrl export: {error}", err=True)
        raise typer.Exit(1) from None


def _config(path: Path | None, root: Path) -> Any | None:
    from contextrl_verl.checkpoint.run_config import read_config

    for candidate in [path] if path else [root.parent / "config.yaml", root / "config.yaml"]:
        if path or candidate.is_file():
            return read_config(candidate)
    typer.echo(
        f"no config.yaml next to {root}: the card will not tell base model, arm and data. Fix: --config FILE.", err=True
    )
    return None


def _list(found: Checkpoints, chosen: int, metric: str, values: dict[int, float]) -> None:
    from contextrl_verl.checkpoint.folders import size

    typer.echo(f"{len(found.steps)} checkpoint(s) in {found.root}" + (f", {metric}:" if metric else ":"))
    for step, folder in sorted(found.steps.items()):
        value = f"  {values[step]:.4g}" if step in values else ("  no value" if metric else "")
        mark = "  <- this one" if step == chosen else ""
        typer.echo(f"  {folder.name:20s} {size(folder) / 1e6:10.1f} MB{value}{mark}")


def _export(
    folder: Path,
    out: Path,
    step: int,
    config: Any | None,
    history: History,
    arm: str,
    base_model: str,
    licence: str,
    reason: str,
) -> None:
    import json

    from contextrl_verl.checkpoint.card import card_facts, render_card
    from contextrl_verl.checkpoint.folders import actor
    from contextrl_verl.checkpoint.merge import MANIFEST, merge, model_type

    shards = actor(folder)
    assert shards is not None
    facts = card_facts(
        step=step,
        config=config,
        metrics=history.get(step, {}),
        model_type=model_type(shards),
        arm=arm,
        base_model=base_model,
        licence=licence,
        best=reason,
    )

    def finish(target: Path) -> None:
        (target / "README.md").write_text(render_card(facts, target))
        (target / MANIFEST).write_text(json.dumps(facts, indent=2, default=str) + "\n")

    merge(shards, out, finish)


def _prune(found: Checkpoints, keep: int, values: dict[int, float], mode: str, exported: int | None, yes: bool) -> None:
    from contextrl_verl.checkpoint.folders import size
    from contextrl_verl.checkpoint.prune import delete, rank, to_delete

    steps = to_delete(found, keep, rank(found, values, mode), exported)
    if not steps:
        typer.echo("nothing to prune")
        return
    typer.echo("to delete:")
    for step in steps:
        typer.echo(f"  {found.steps[step]}  {size(found.steps[step]) / 1e6:.1f} MB")
    typer.echo(f"  ({', '.join(f'step {s}' for s in sorted(set(found.steps) - set(steps)))} stay)")
    if not yes and not typer.confirm(f"Delete these {len(steps)} checkpoint(s)?", default=False):
        typer.echo("nothing deleted")
        return
    delete(found, steps)
    typer.echo(f"{len(steps)} checkpoint(s) deleted")
