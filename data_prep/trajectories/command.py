"""``contextrl pairs trajectories``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def trajectories(
    input: Annotated[Path, typer.Option(help="File or folder of agent runs; formats are told by their fields.")],
    out: Annotated[Path, typer.Option(help="File of pairs to write (.parquet or .jsonl).")],
    report: Annotated[Path | None, typer.Option(help="Folder for index.html and summary.json.")] = None,
    format: Annotated[str, typer.Option(help="Format of the runs; auto asks every record.")] = "auto",
    tasks: Annotated[Path | None, typer.Option(help="SWE-smith table with patches, for runs without one.")] = None,
    replay: Annotated[bool, typer.Option(help="Recover missing patches from the run's own edits.")] = False,
    outcome: Annotated[str, typer.Option(help="any, resolved or unresolved: which runs count.")] = "any",
    commit: Annotated[
        str, typer.Option(help="same: one base commit; near: close numbers of one repository; any.")
    ] = "same",
    near: Annotated[int, typer.Option(min=0, help="Largest distance of instance numbers for --commit near.")] = 500,
    level: Annotated[str, typer.Option(help="What both edit: file; class: a function or class; function.")] = "class",
    related: Annotated[tuple[float, float], typer.Option(help="Band of the issues' similarity.")] = (0.02, 0.8),
    alike: Annotated[float, typer.Option(help="Share of added lines from which two patches are the same.")] = 0.5,
    patch_ratio: Annotated[float, typer.Option(min=1, help="Longer over shorter patch, in lines, at most.")] = 2.0,
    options: Annotated[int, typer.Option(min=2, help="Contexts of a pair: one supports, the others confound.")] = 2,
    per_run: Annotated[int, typer.Option(min=1, help="Groups that one run may be in.")] = 4,
    per_file: Annotated[int, typer.Option(min=1, help="Groups around one file.")] = 200,
    limit: Annotated[int, typer.Option(min=0, help="Groups in all; 0 for no limit.")] = 2500,
    budget: Annotated[int, typer.Option(min=256, help="Tokens of a context at most.")] = 12_000,
    tokenizer: Annotated[str, typer.Option(help="Hugging Face tokenizer that counts them; empty: approximate.")] = "",
    length_ratio: Annotated[float, typer.Option(min=1, help="Longest over shortest context at most.")] = 2.0,
    splits: Annotated[str, typer.Option(help="Shares of the splits.")] = "train=0.8,validation=0.1,probe=0.1",
    split_by: Annotated[str, typer.Option(help="instance or repository: what is never in two splits.")] = "instance",
    seed: Annotated[int, typer.Option(help="Of caps, splits and order.")] = 1,
    engine: Annotated[
        str, typer.Option(help="local processes, or ray for a cluster with a shared file system.")
    ] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default all cores.")] = None,
    keep_work: Annotated[bool, typer.Option("--keep-work", help="Keep the folder with finished parts.")] = False,
) -> None:
    """Turn agent runs into contrastive pairs: same place, different issue, edits hidden, every loss counted."""
    from rich.console import Console
    from rich.table import Table

    from data_prep.pipeline import PipelineError
    from data_prep.trajectories.candidates import CascadeSettings
    from data_prep.trajectories.groups import GroupSettings
    from data_prep.trajectories.prepare import PrepareSettings, prepare
    from data_prep.trajectories.run import TrajectoryError

    try:
        choices = {
            "--commit": (commit, ("same", "near", "any")),
            "--level": (level, ("file", "class", "function")),
            "--outcome": (outcome, ("any", "resolved", "unresolved")),
            "--split-by": (split_by, ("instance", "repository")),
            "--engine": (engine, ("local", "ray")),
        }
        for name, (value, allowed) in choices.items():
            if value not in allowed:
                raise TrajectoryError(f"{name} is {value!r}. Fix: one of {', '.join(allowed)}.")
        if out.suffix not in (".parquet", ".jsonl"):
            raise TrajectoryError(f"--out is {out}. Fix: a name that ends in .parquet or .jsonl.")
        settings = PrepareSettings(
            format=format,
            tasks=str(tasks) if tasks else None,
            replay=replay,
            outcome=outcome,
            cascade=CascadeSettings(
                commit=commit, near=near, level=level, related=related, alike=alike, patch_ratio=patch_ratio, seed=seed
            ),
            groups=GroupSettings(options=options, per_run=per_run, per_file=per_file, limit=limit or None, seed=seed),
            budget=budget,
            tokenizer=tokenizer,
            length_ratio=length_ratio,
            shares=_shares(splits),
            split_by=split_by,
            seed=seed,
        )
        summary = prepare(input, out, settings, report=report, engine=engine, workers=workers, keep_work=keep_work)
    except (TrajectoryError, PipelineError) as error:
        typer.echo(f"contextrl pairs trajectories: {error}", err=True)
        raise typer.Exit(1) from None
    table = Table(title=f"{summary['pairs']} pairs from {summary['runs_read']} runs")
    for column in ("stage", "unit", "in", "out", "dropped"):
        table.add_column(column, justify="right" if column in ("in", "out") else "left")
    for stage in summary["stages"]:
        dropped = ", ".join(f"{reason} {count:,}" for reason, count in stage["dropped"].items())
        table.add_row(stage["name"], stage["unit"], f"{stage['in']:,}", f"{stage['out']:,}", dropped)
    Console().print(table)
    typer.echo(f"{out}: {summary['pairs']} pairs, {summary['leaked_lines_masked']} leaked lines masked, "
               f"{summary['seconds']:.0f} s" + (f"; report: {report / 'index.html'}" if report else ""))  # fmt: skip


def _shares(text: str) -> dict[str, float]:
    from data_prep.trajectories.run import TrajectoryError

    try:
        shares = {name.strip(): float(value) for name, value in (part.split("=") for part in text.split(","))}
        if (
            set(shares) <= {"train", "validation", "probe"}
            and abs(sum(shares.values()) - 1) < 1e-6
            and min(shares.values()) >= 0
        ):
            return shares
    except ValueError:
        pass
    raise TrajectoryError(
        f"--splits is {text!r}. Fix: shares of train, validation and probe that sum to 1, e.g. "
        "train=0.9,validation=0.1."
    )
