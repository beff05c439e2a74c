"""``contextrl tasks``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

tasks = typer.Typer(help="Make rows for the main task from agent runs.", no_args_is_help=True)


@tasks.callback()
def _tasks() -> None:
    """Keeps subcommands even while there is one."""


@tasks.command(name="trace-qa")
def trace_qa(
    input: Annotated[Path, typer.Option(help="File or folder of runs, in any format that the readers know.")],
    out: Annotated[Path, typer.Option(help="Parquet file of the rows; a .summary.json is written beside it.")],
    max_tokens: Annotated[int, typer.Option(min=200, help="Longest prompt.")] = 8000,
    tokenizer: Annotated[str, typer.Option(help="Counts tokens; a model's name or folder. Empty: an estimate.")] = "",
    per_run: Annotated[int, typer.Option(min=1, help="Most questions over one run.")] = 4,
    validation: Annotated[float, typer.Option(min=0, max=1, help="Share of instances for validation.")] = 0.1,
    split_by: Annotated[str, typer.Option(help="instance or repository: what splits never share.")] = "instance",
    seed: Annotated[int, typer.Option(help="Seed of every choice.")] = 1,
) -> None:
    """Questions about what happened in a run, with exact answers."""
    from data_prep.tasks.trace_qa import Options, estimated_tokens
    from data_prep.tasks.trace_qa import trace_qa as make
    from data_prep.trajectories.run import TrajectoryError

    try:
        if split_by not in ("instance", "repository"):
            raise TrajectoryError(f"--split-by {split_by}: write instance or repository")
        options = Options(max_tokens, per_run, validation, split_by, seed)  # type: ignore[arg-type]
        summary = make(input, out, options, _counter(tokenizer) if tokenizer else estimated_tokens)
    except TrajectoryError as error:
        typer.echo(f"contextrl tasks trace-qa: {error}", err=True)
        raise typer.Exit(1) from None
    for stage in summary["stages"]:
        typer.echo(f"{stage['name']}: {stage['in']} in, {stage['out']} out")
        for reason, count in stage["dropped"].items():
            typer.echo(f"  {count:6d}  {reason}")
    shares = ", ".join(f"{count} {split}" for split, count in summary["splits"].items())
    typer.echo(f"{out}: {summary['rows']} rows ({shares})")


def _counter(name: str):
    from transformers import AutoTokenizer

    from data_prep.trajectories.run import TrajectoryError

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise TrajectoryError(
            f"--tokenizer {name}: cannot be loaded ({str(error).splitlines()[0]}); "
            "name a model or a folder that holds one"
        ) from error
    return lambda text: len(tokenizer(text, add_special_tokens=False).input_ids)
