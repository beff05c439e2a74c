"""``contextrl show``: a page about any file of pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def show(
    pairs: Annotated[Path, typer.Argument(help="File of pairs (.parquet, .jsonl).")],
    out: Annotated[Path, typer.Option(help="Folder for index.html and summary.json.")] = Path("outputs/report"),
    examples: Annotated[int, typer.Option("--examples", "-n", min=0, help="Pairs to show, drawn at random.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 1,
) -> None:
    """Write a static page about a file of pairs: counts, lengths, and examples side by side."""
    from contextrl_verl.pairs import PairFormatError
    from data_prep.report.show import show_pairs

    try:
        page = show_pairs(pairs, out, examples=examples, seed=seed)
    except PairFormatError as error:
        typer.echo(f"contextrl show: {error}", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        typer.echo(
            f"contextrl show: {out} cannot be written ({error.strerror}). Fix: give another folder with --out.",
            err=True,
        )
        raise typer.Exit(1) from None
    typer.echo(f"report written to {page}")
