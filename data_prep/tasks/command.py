"""``contextrl tasks``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer

Form = TypeVar("Form")
tasks = typer.Typer(help="Make rows for the main task from agent runs or pictures.", no_args_is_help=True)


def _list(wanted: bool) -> None:
    if not wanted:
        return
    from rich.console import Console
    from rich.table import Table

    from data_prep.tasks.item import REWARDS
    from data_prep.tasks.sets import SETS, SHARES

    table = Table("name", "Hugging Face Hub", "domain", "its share in the paper", "reward", "licence on its card")
    for one in SETS.values():
        hub = f"{one.hub} ({one.subset})" if one.subset else one.hub
        rewards = ", ".join(REWARDS[kind] for kind in one.kinds)
        table.add_row(one.name, hub, one.domain, SHARES[one.domain], rewards, one.licence)
    Console(width=180).print(table)
    raise typer.Exit


# Settings that are left out keep what data_prep.tasks.build.TaskSettings says.
Out = Annotated[Path, typer.Option(help="Parquet file of rows; .summary.json and .validation.parquet lie beside it.")]
Split = Annotated[str | None, typer.Option(help="Split of the source to read for training; default its own.")]
Root = Annotated[str | None, typer.Option(help="Folder that paths of pictures start from; default the source's.")]
Limit = Annotated[int | None, typer.Option(help="Draw so many examples of every split; 0, as without, takes all.")]
Validation = Annotated[float | None, typer.Option(help="Share for validation; default: a set's own split, or 0.1.")]
MaxTokens = Annotated[int | None, typer.Option(help="Longest prompt, pictures not counted; default 8000.")]
Tokenizer = Annotated[str | None, typer.Option(help="Counts tokens; a model's name or folder. Default: an estimate.")]
SplitBy = Annotated[
    Literal["instance", "repository"] | None, typer.Option(help="What splits of issues or runs never share.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of every choice.")]
Engine = Annotated[Literal["local", "ray"], typer.Option(help="This machine, or Ray with shared files.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; default all cores.")]
KeepWork = Annotated[bool, typer.Option("--keep-work", help="Keep the folder with finished parts.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="per_picture, max_words, source.max_pixels, ... (docs)."),
]


def _settings(form: type[Form], context: typer.Context) -> Form:
    """The settings that a command's options are named like, and those of --set."""
    from pydantic import BaseModel

    from data_prep.common.settings_file import load_settings

    given = {name: value for name, value in context.params.items() if value is not None}
    fields = {name: field.annotation for name, field in form.model_fields.items()}
    nested = {name: kind for name, kind in fields.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}
    sets = [f"{outer}.{name}={given[name]}" for outer in nested for name in nested[outer].model_fields if name in given]
    sets += [f"source.columns.{pair}" for pair in given.get("column", [])]
    own = {name: given[name] for name in fields.keys() - nested if name in given}
    return load_settings(form, None, [*given.get("set_", []), *sets], **own)


@tasks.command()
def public(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the set, see --list.")],
    out: Out,
    show: Annotated[
        bool, typer.Option("--list", is_eager=True, callback=_list, help="Print the sets that are known, and exit.")
    ] = False,
    path: Annotated[
        str, typer.Option(help="The set's files: a file, a folder, or what save_to_disk wrote. Empty: the Hub.")
    ] = "",
    split: Split = None,
    root: Root = None,
    limit: Limit = None,
    validation: Validation = None,
    max_tokens: MaxTokens = None,
    tokenizer: Tokenizer = None,
    split_by: SplitBy = None,
    agent_loop: Annotated[
        str | None, typer.Option(help="Of issues: name of verl's agent loop that works on them.")
    ] = None,
    instance: Annotated[
        bool | None, typer.Option(help="Of issues: write tests and commits into the rows; default with --agent-loop.")
    ] = None,
    seed: Seed = None,
    engine: Engine = "local",
    workers: Workers = None,
    keep_work: KeepWork = False,
    set_: Sets = None,
) -> None:
    """Questions and issues of the public sets that the paper trains on."""
    from data_prep.tasks.build import TaskSettings, public_rows
    from data_prep.tasks.rows import tell

    run = {"engine": engine, "workers": workers, "keep_work": keep_work}
    tell(public_rows(name, out, _settings(TaskSettings, context), path=path, **run), out)


@tasks.command()
def vqa(
    context: typer.Context,
    source: Annotated[str, typer.Option(help="easy_vqa, hf:NAME, or a table, or a folder of pictures with a table.")],
    out: Out,
    column: Annotated[
        list[str] | None, typer.Option(metavar="ROLE=COLUMN", help="Column of image, question, answer, domain or id.")
    ] = None,
    split: Split = None,
    root: Root = None,
    domain: Annotated[str | None, typer.Option(help="Name of the kind of pictures; default the source's.")] = None,
    limit: Limit = None,
    validation: Validation = None,
    seed: Seed = None,
    engine: Engine = "local",
    workers: Workers = None,
    keep_work: KeepWork = False,
    set_: Sets = None,
) -> None:
    """Questions about pictures with short answers; no picture is in both files."""
    from data_prep.tasks.build import TaskSettings, vqa_rows
    from data_prep.tasks.rows import tell

    run = {"engine": engine, "workers": workers, "keep_work": keep_work}
    tell(vqa_rows(source, out, _settings(TaskSettings, context), **run), out)


@tasks.command()
def trace_qa(
    context: typer.Context,
    input: Annotated[Path, typer.Option(help="File or folder of runs, in any format that the readers know.")],
    out: Annotated[Path, typer.Option(help="Parquet file of the rows; a .summary.json is written beside it.")],
    max_tokens: MaxTokens = None,
    tokenizer: Tokenizer = None,
    per_run: Annotated[int | None, typer.Option(help="Most questions over one run; default 4.")] = None,
    validation: Annotated[float | None, typer.Option(help="Share for validation; default 0.1.")] = None,
    split_by: SplitBy = None,
    seed: Seed = None,
    engine: Engine = "local",
    workers: Workers = None,
) -> None:
    """Questions about what happened in a run, with exact answers."""
    from data_prep.tasks.rows import tell
    from data_prep.tasks.trace_qa import TraceSettings, trace_rows

    tell(trace_rows(input, out, _settings(TraceSettings, context), engine=engine, workers=workers), out)


@tasks.command()
def swe(
    context: typer.Context,
    source: Annotated[Literal["forge", "table"], typer.Option(help="Bugs made here, or a public table.")],
    out: Out,
    table: Annotated[
        str | None, typer.Option(help="Whose columns it has: swe_smith, swe_gym, swe_bench, swe_rebench, r2e_gym.")
    ] = None,
    path: Annotated[str | None, typer.Option(help="The table's files; default the Hub.")] = None,
    checkouts: Annotated[str | None, typer.Option(help="Folder of git repositories for a table's rows.")] = None,
    images: Annotated[str | None, typer.Option(help="Folder of unpacked images for a table's rows.")] = None,
    test_command: Annotated[str | None, typer.Option(help="Where a table has none; default pytest.")] = None,
    library: Annotated[str | None, typer.Option(help="Of the forge: an installed distribution; default rich.")] = None,
    split: Split = None,
    limit: Annotated[int | None, typer.Option(help="Tasks of the forge (default 200), or examples of a table.")] = None,
    validation: Annotated[float | None, typer.Option(help="Share for validation; default 0.1.")] = None,
    max_tokens: MaxTokens = None,
    tokenizer: Tokenizer = None,
    split_by: SplitBy = None,
    seed: Seed = None,
    sandbox: Annotated[str | None, typer.Option(help="Where tasks are tried; default what this machine has.")] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for index.html and summary.json.")] = None,
    engine: Engine = "local",
    workers: Workers = None,
    keep_work: KeepWork = False,
    set_: Sets = None,
) -> None:
    """Repair tasks for an agent in a sandbox, each tried with and without its repair."""
    from data_prep.tasks.rows import tell
    from data_prep.tasks.swe import SweSettings, swe_rows

    run = {"engine": engine, "workers": workers, "keep_work": keep_work}
    tell(swe_rows(source, out, _settings(SweSettings, context), report=report, **run), out)
