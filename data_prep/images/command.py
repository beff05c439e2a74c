"""``contextrl pairs images``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def images(
    source: Annotated[str, typer.Option(help="easy_vqa, hf:NAME, a table (.jsonl, .csv, .parquet), a folder of it.")],
    out: Annotated[Path, typer.Option(help="File of pairs to write (.parquet or .jsonl).")],
    report: Annotated[Path | None, typer.Option(help="Folder for index.html and summary.json.")] = None,
    method: Annotated[str | None, typer.Option(help="retrieve: similar pictures; edit: changed ones; or both.")] = None,
    questions: Annotated[int | None, typer.Option(min=0, help="Questions drawn; 0 for all, as without.")] = None,
    judge: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Vision model that verifies: model=M, base_url=...")
    ] = None,
    proposer: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Who says what to change: rules:easy_vqa, given, M.")
    ] = None,
    editor: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="procedural, {gemini,openai,diffusers}:MODEL.")
    ] = None,
    review: Annotated[Path | None, typer.Option(help="JSONL that a person edits: UNCERTAIN pairs.")] = None,
    allow_unjudged: Annotated[
        bool, typer.Option("--allow-unjudged", help="Go on without what an endpoint did not answer.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what editing would cost; write nothing.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of draws, choices, edits and splits.")] = None,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="This machine, or Ray with shared files.")] = "local",
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of a worker that embeds or edits.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default all cores.")] = None,
    keep_work: Annotated[bool, typer.Option("--keep-work", help="Keep the folder with finished parts.")] = False,
    config: Annotated[Path | None, typer.Option(help="YAML of settings (docs/image_pairs.md).")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="One of them: source.split=test, ...")
    ] = None,
) -> None:
    """Turn questions about pictures into contrastive pairs: alike, same question, other answer; every loss counted."""
    from dataclasses import replace

    from contextrl_verl.errors import ConfigError
    from data_prep.common.settings_file import load_settings
    from data_prep.images.edit.run import EditorSpec, ProposerSpec
    from data_prep.images.prepare import ImageSettings, edit_costs, prepare_images
    from data_prep.models.spec import read_spec
    from data_prep.report.text import print_stages
    from data_prep.verify.judge import OpenAIJudge
    from data_prep.verify.write import Judging

    if out.suffix not in (".parquet", ".jsonl"):
        raise ConfigError(f"--out is {out}. Fix: a name that ends in .parquet or .jsonl.")
    own = dict.fromkeys(("seed", "source.seed", "retrieve.seed", "edit.seed"), seed) | {"source.limit": questions}
    sets = [*(set_ or []), *(f"{name}={value}" for name, value in own.items() if value is not None)]
    settings = load_settings(ImageSettings, config, sets, methods=method and method.replace(" ", "").split(","))
    for role, items, form in (("proposer", proposer, ProposerSpec), ("editor", editor, EditorSpec)):
        if spec := read_spec(f"--{role}", items, form):
            settings = replace(settings, edit=replace(settings.edit, **{role: spec}))
    spec = read_spec("--judge", judge)
    judging = Judging(OpenAIJudge(spec) if spec else None, review, allow_unjudged)
    run = {"engine": engine, "workers": workers}
    if dry_run:
        for sentence in edit_costs(source, out, settings, **run):
            typer.echo(sentence)
        return
    summary = prepare_images(
        source, out, settings, report=report, gpus=gpus, keep_work=keep_work, judging=judging, **run
    )
    print_stages(f"{summary['pairs']} pairs from {summary['questions_read']} questions", summary["stages"])
    if summary.get("waiting_for_review"):
        typer.echo(f"{summary['waiting_for_review']} pairs wait in {review} for your decision")
    made = ", ".join(f"{name} {count}" for name, count in sorted(summary["methods"].items()))
    typer.echo(f"{out}: {summary['pairs']} pairs ({made}), {summary['seconds']:.0f} s"
               + (f"; report: {report / 'index.html'}" if report else ""))  # fmt: skip
