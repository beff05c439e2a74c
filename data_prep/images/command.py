"""``contextrl pairs images``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_ENDPOINT = "(repeat NAME=VALUE; names as in contextrl judge --help: base_url, max_cost, cache, ...)"


def images(
    source: Annotated[str, typer.Option(help="easy_vqa, hf:NAME, a table (.jsonl, .parquet), or a folder with one.")],
    out: Annotated[Path, typer.Option(help="File of pairs to write (.parquet or .jsonl).")],
    method: Annotated[str, typer.Option(help="retrieve: similar pictures; edit: changed ones; or both.")] = (
        "retrieve,edit"
    ),
    report: Annotated[Path | None, typer.Option(help="Folder for index.html and summary.json.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="ROLE=COLUMN of a table, for image, question, answer, domain, id.")
    ] = None,
    source_option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of the source: split, subset, root, domain, max_pixels, max_bytes, ..."),
    ] = None,
    questions: Annotated[int, typer.Option(min=0, help="Questions drawn from the source; 0 for all.")] = 0,
    embedder: Annotated[
        str, typer.Option(help="descriptor (no weights), hf:MODEL, st:MODEL, or endpoint:URL MODEL.")
    ] = "descriptor",
    cosine: Annotated[tuple[float, float], typer.Option(help="Band of the cosine of retrieved pictures.")] = (
        0.85,
        1.0,
    ),
    template: Annotated[str, typer.Option(help="Same question: exact, or normalised (case, blanks, stops).")] = (
        "normalised"
    ),
    per_image: Annotated[int, typer.Option(min=1, help="Retrieved couples that a picture may be in.")] = 4,
    limit: Annotated[int, typer.Option(min=0, help="Retrieved couples at most; 0 for no limit.")] = 0,
    search: Annotated[str, typer.Option(help="numpy or faiss: exact; faiss-hnsw, faiss-ivf: may miss some.")] = "numpy",
    edits: Annotated[int, typer.Option(min=1, help="Pictures to edit at most.")] = 700,
    proposer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help=f"Who says what to change: rules:easy_vqa, given, or a model {_ENDPOINT}."
        ),
    ] = None,
    editor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Who changes it: procedural, gemini:MODEL, openai:MODEL, diffusers:FOLDER; price=..., max_cost=...",
        ),
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help=f"Vision model that verifies every pair: model=M {_ENDPOINT}."),
    ] = None,
    review: Annotated[Path | None, typer.Option(help="JSONL that a person edits: UNCERTAIN pairs.")] = None,
    allow_unjudged: Annotated[
        bool, typer.Option("--allow-unjudged", help="Go on without what an endpoint did not answer.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what proposer and editor would cost; ask and write nothing.")
    ] = False,
    splits: Annotated[str, typer.Option(help="Shares of the splits.")] = "train=0.8,validation=0.1,probe=0.1",
    seed: Annotated[int, typer.Option(help="Of draws, choices, edits and splits.")] = 1,
    engine: Annotated[
        str, typer.Option(help="local processes, or ray for a cluster with a shared file system.")
    ] = "local",
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of a worker that embeds or edits, with --engine ray.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default all cores.")] = None,
    keep_work: Annotated[bool, typer.Option("--keep-work", help="Keep the folder with finished parts.")] = False,
) -> None:
    """Turn questions about pictures into contrastive pairs: alike, same question, other answer; every loss counted."""
    from contextrl_verl.errors import ConfigError
    from contextrl_verl.pairs import PairFormatError
    from data_prep.common.pipeline import PipelineError
    from data_prep.common.splits import read_shares
    from data_prep.images.edit.model_spec import EditorRole, ProposerRole
    from data_prep.images.edit.run import EditSettings
    from data_prep.images.errors import ImagePairError
    from data_prep.images.prepare import METHODS, ImageSettings, edit_costs, prepare_images
    from data_prep.images.retrieve import RetrieveSettings
    from data_prep.images.sources import read_columns
    from data_prep.models.errors import RemoteError
    from data_prep.models.spec import read_role
    from data_prep.report.table import print_stages
    from data_prep.verify.write import UNJUDGED, Judging, UnjudgedError

    try:
        methods = tuple(name.strip() for name in method.split(",") if name.strip())
        if not methods or set(methods) - set(METHODS) or len(set(methods)) < len(methods):
            raise ImagePairError(f"--method is {method!r}. Fix: retrieve, edit, or retrieve,edit.")
        if engine not in ("local", "ray"):
            raise ImagePairError(f"--engine is {engine!r}. Fix: one of local, ray.")
        if out.suffix not in (".parquet", ".jsonl"):
            raise ImagePairError(f"--out is {out}. Fix: a name that ends in .parquet or .jsonl.")
        options = _options(source_option or [])
        options |= {"columns": read_columns(column or []), "limit": questions, "seed": seed}
        settings = ImageSettings(
            source=options,
            methods=methods,
            embedder=embedder,
            retrieve=RetrieveSettings(
                low=cosine[0], high=cosine[1] if cosine[1] < 1 else None, template=template, per_image=per_image,
                limit=limit or None, engine=search, seed=seed,
            ),
            edit=EditSettings(
                proposer=read_role("--proposer", proposer or [], ProposerRole) or ProposerRole(),
                editor=read_role("--editor", editor or [], EditorRole) or EditorRole(),
                edits=edits,
                seed=seed,
            ),
            shares=read_shares(splits),
            seed=seed,
        )  # fmt: skip
        asked = None
        if judge:
            from data_prep.verify.judge import judge_of

            asked = judge_of(read_role("--judge", judge))
        if dry_run:
            for sentence in edit_costs(source, out, settings, engine=engine, workers=workers):
                typer.echo(sentence)
            return
        judging = Judging(asked, review, allow_unjudged)
        summary = prepare_images(
            source, out, settings, report=report, engine=engine, workers=workers, gpus=gpus, keep_work=keep_work,
            judging=judging,
        )  # fmt: skip
    except UnjudgedError as error:
        typer.echo(f"contextrl pairs images: {error}", err=True)
        raise typer.Exit(UNJUDGED) from None
    except (ImagePairError, PipelineError, RemoteError, PairFormatError, ConfigError, ValueError) as error:
        typer.echo(f"contextrl pairs images: {error}", err=True)
        raise typer.Exit(1) from None
    print_stages(f"{summary['pairs']} pairs from {summary['questions_read']} questions", summary["stages"])
    if summary.get("waiting_for_review"):
        typer.echo(f"{summary['waiting_for_review']} pairs wait in {review} for your decision")
    made = ", ".join(f"{name} {count}" for name, count in sorted(summary["methods"].items()))
    typer.echo(f"{out}: {summary['pairs']} pairs ({made}), {summary['seconds']:.0f} s"
               + (f"; report: {report / 'index.html'}" if report else ""))  # fmt: skip


def _options(items: list[str]) -> dict[str, str]:
    from data_prep.images.errors import ImagePairError

    found = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or name in ("columns", "limit", "seed", "store"):
            raise ImagePairError(
                f"--source-option {item!r}. Fix: NAME=VALUE; columns, number of questions and seed have options of "
                "their own."
            )
        found[name] = value
    return found
