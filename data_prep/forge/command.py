"""``contextrl forge``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer


def forge(
    out: Annotated[Path, typer.Option(help="File of the runs: .jsonl, .jsonl.gz, .jsonl.xz or .jsonl.zst.")],
    library: Annotated[str, typer.Option(help="An installed distribution of plain Python files.")] = "rich",
    runs: Annotated[int, typer.Option(min=1, help="How many runs to write.")] = 200,
    attempts: Annotated[int, typer.Option(min=1, help="Runs of each issue; the later ones often fail.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of bugs, wording and the agents' ways.")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 takes every core.")] = 0,
) -> None:
    """Make real runs of a scripted agent on small bugs put into an installed library; needs no download."""
    from data_prep.forge.forge import forge as make
    from data_prep.report.text import print_stages

    started = time.monotonic()
    made = make(library, runs, out, seed, workers or None, attempts=attempts)
    print_stages(f"{made.runs} runs", [stage.summary() for stage in made.funnel])
    seconds = time.monotonic() - started
    typer.echo(f"{out}: {made.runs} runs on {made.commits} commits, {made.resolved} resolved, {seconds:.0f} s")
