"""``contextrl tasks``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_prep.tasks.public.command import public

tasks = typer.Typer(help="Make rows for the main task from agent runs or pictures.", no_args_is_help=True)
tasks.command(name="public")(public)


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
    from contextrl_verl.errors import ConfigError
    from data_prep.tasks.rows import tell, token_counter
    from data_prep.tasks.trace_qa import Options
    from data_prep.tasks.trace_qa import trace_qa as make

    if split_by not in ("instance", "repository"):
        raise ConfigError(f"--split-by is {split_by!r}. Fix: instance or repository.")
    options = Options(max_tokens, per_run, validation, split_by, seed)  # type: ignore[arg-type]
    tell(make(input, out, options, token_counter(tokenizer)), out)


@tasks.command(name="vqa")
def vqa(
    source: Annotated[str, typer.Option(help="easy_vqa, hf:NAME, or a table, or a folder of pictures with a table.")],
    out: Annotated[Path, typer.Option(help="Parquet file of rows for training; .validation.parquet lies beside it.")],
    column: Annotated[
        list[str] | None, typer.Option(metavar="ROLE=COLUMN", help="Column of image, question, answer, domain or id.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the source to read.")] = "",
    subset: Annotated[str, typer.Option(help="Subset of a Hugging Face data set.")] = "",
    root: Annotated[str, typer.Option(help="Folder that paths of pictures start from; default the table's.")] = "",
    domain: Annotated[str, typer.Option(help="Name of the kind of pictures; default the source's.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="Draw so many questions of the source; 0 takes all.")] = 0,
    per_picture: Annotated[int, typer.Option(min=0, help="Most questions about one picture; 0 for all.")] = 4,
    validation: Annotated[float, typer.Option(min=0, help="Share of pictures for validation, below 1.")] = 0.1,
    max_words: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 6,
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="By which share of the right number an answer may be off.")
    ] = 0.0,
    max_pixels: Annotated[int, typer.Option(min=1, help="Larger pictures are refused.")] = 40_000_000,
    seed: Annotated[int, typer.Option(help="Seed of every choice.")] = 1,
    engine: Annotated[
        str, typer.Option(help="local processes, or ray for a cluster with a shared file system.")
    ] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default all cores.")] = None,
    keep_work: Annotated[bool, typer.Option("--keep-work", help="Keep the folder with finished parts.")] = False,
) -> None:
    """Questions about pictures with short answers; no picture is in both files."""
    from data_prep.images.sources import read_columns
    from data_prep.tasks.rows import tell, validation_file
    from data_prep.tasks.vqa import VqaOptions
    from data_prep.tasks.vqa import vqa as make

    options = VqaOptions(per_picture, validation, max_words, tolerance, seed)
    source_options = {
        "columns": read_columns(column or []), "split": split, "subset": subset, "root": root, "domain": domain,
        "limit": limit, "max_pixels": max_pixels,
    }  # fmt: skip
    work = {"engine": engine, "workers": workers, "keep_work": keep_work}
    tell(make(source, out, options, source_options, **work), out)  # type: ignore[arg-type]
    if validation:
        typer.echo(f"{validation_file(out)}: the rows for validation")
