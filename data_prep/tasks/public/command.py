"""``contextrl tasks public``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def public(
    name: Annotated[str, typer.Argument(help="Name of the set, see --list.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="Parquet file of rows for training; .validation.parquet lies beside it.")
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="Print the sets that are known, and exit.")] = False,
    path: Annotated[
        str, typer.Option(help="The set's files: a file, a folder, or what save_to_disk wrote. Empty: the Hub.")
    ] = "",
    split: Annotated[str, typer.Option(help="Split of the set to read for training; default its own.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="Draw so many examples of every split; 0 takes all.")] = 0,
    validation: Annotated[
        float | None,
        typer.Option(
            min=0, help="Share of pictures or instances for validation; default: the set's own split, or 0.1."
        ),
    ] = None,
    per_picture: Annotated[int, typer.Option(min=0, help="Most questions about one picture; 0 for all.")] = 4,
    max_words: Annotated[int, typer.Option(min=1, help="Longest short answer.")] = 6,
    max_tokens: Annotated[int, typer.Option(min=200, help="Longest prompt, pictures not counted.")] = 8000,
    tokenizer: Annotated[str, typer.Option(help="Counts tokens; a model's name or folder. Empty: an estimate.")] = "",
    split_by: Annotated[str, typer.Option(help="Of issues: instance or repository, which splits never share.")] = (
        "instance"
    ),
    agent_loop: Annotated[str, typer.Option(help="Of issues: name of verl's agent loop that works on them.")] = "",
    instance: Annotated[
        bool | None,
        typer.Option(
            "--instance/--no-instance",
            help="Of issues: write tests and commits into the rows; default with --agent-loop.",
        ),
    ] = None,
    root: Annotated[str, typer.Option(help="Folder that paths of pictures start from; default --path.")] = "",
    max_pixels: Annotated[int, typer.Option(min=1, help="Larger pictures are refused.")] = 40_000_000,
    seed: Annotated[int, typer.Option(help="Seed of every choice.")] = 1,
    engine: Annotated[
        str, typer.Option(help="local processes, or ray for a cluster with a shared file system.")
    ] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default all cores.")] = None,
    keep_work: Annotated[bool, typer.Option("--keep-work", help="Keep the folder with finished parts.")] = False,
) -> None:
    """Questions and issues of the public sets that the paper trains on."""
    from contextrl_verl.errors import ConfigError
    from data_prep.tasks.public.build import PublicOptions, public_rows
    from data_prep.tasks.rows import tell, token_counter, validation_file

    if show:
        _list()
        return
    if not name or out is None:
        raise ConfigError(
            "there is no name of a set, or no --out. Fix: contextrl tasks public NAME --out rows.parquet, with a "
            "NAME of contextrl tasks public --list."
        )
    options = PublicOptions(validation, per_picture, max_words, max_tokens, split_by, agent_loop, instance, seed)
    summary = public_rows(
        name, out, options, path=path, split=split, tokens=token_counter(tokenizer),
        source_options={"limit": limit, "root": root, "max_pixels": max_pixels},
        engine=engine, workers=workers, keep_work=keep_work,
    )  # type: ignore[arg-type]  # fmt: skip
    tell(summary, out)
    if validation != 0:
        typer.echo(f"{validation_file(out)}: the rows for validation")


def _list() -> None:
    from rich.console import Console
    from rich.table import Table

    from data_prep.tasks.public.record import REWARDS
    from data_prep.tasks.public.sets import SETS, SHARES

    table = Table("name", "Hugging Face Hub", "domain", "its share in the paper", "reward", "licence on its card")
    for one in SETS.values():
        hub = f"{one.hub} ({one.subset})" if one.subset else one.hub
        rewards = ", ".join(REWARDS[kind] for kind in one.kinds)
        table.add_row(one.name, hub, one.domain, SHARES[one.domain], rewards, one.licence)
    Console(width=180).print(table)
