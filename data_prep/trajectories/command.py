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
    related: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Band of the issues' similarity; for shared words 0.02 0.8, for an encoder choose it."),
    ] = None,
    related_model: Annotated[
        str, typer.Option(help="Sentence encoder (sentence-transformers name or folder) instead of shared words.")
    ] = "",
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
    judge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Model that verifies every pair: model=M, base_url=URL, max_cost=5, ... (repeat; names as in "
            "contextrl judge --help).",
        ),
    ] = None,
    review: Annotated[Path | None, typer.Option(help="JSONL that a person edits: UNCERTAIN pairs.")] = None,
    allow_unjudged: Annotated[
        bool, typer.Option("--allow-unjudged", help="Write the rest even if some pairs were not judged.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Stop before the judge and say what it would cost; write nothing.")
    ] = False,
    engine: Annotated[
        str, typer.Option(help="local processes, or ray for a cluster with a shared file system.")
    ] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default all cores.")] = None,
    keep_work: Annotated[bool, typer.Option("--keep-work", help="Keep the folder with finished parts.")] = False,
) -> None:
    """Turn agent runs into contrastive pairs: same place, different issue, edits hidden, every loss counted."""
    from contextrl_verl.errors import ConfigError
    from contextrl_verl.pairs import PairFormatError
    from contextrl_verl.pairs.files import PairFile
    from data_prep.common.pipeline import PipelineError
    from data_prep.common.splits import read_shares
    from data_prep.models.errors import RemoteError
    from data_prep.models.spec import read_role
    from data_prep.report.table import print_stages
    from data_prep.trajectories.candidates import CascadeSettings
    from data_prep.trajectories.groups import GroupSettings
    from data_prep.trajectories.prepare import PrepareSettings, find_candidates, prepare, rules_of
    from data_prep.trajectories.run import TrajectoryError
    from data_prep.verify.write import UNJUDGED, Judging, UnjudgedError

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
        if related_model and related is None:
            raise TrajectoryError(
                "--related-model is given without --related. Fix: choose the band, e.g. --related 0.3 0.9; the report "
                "shows how similar the issues are."
            )
        settings = PrepareSettings(
            format=format,
            tasks=str(tasks) if tasks else None,
            replay=replay,
            outcome=outcome,
            cascade=CascadeSettings(
                commit=commit,
                near=near,
                level=level,
                related=related or (0.02, 0.8),
                alike=alike,
                patch_ratio=patch_ratio,
                seed=seed,
            ),
            groups=GroupSettings(options=options, per_run=per_run, per_file=per_file, limit=limit or None, seed=seed),
            budget=budget,
            tokenizer=tokenizer,
            related_model=related_model,
            length_ratio=length_ratio,
            shares=read_shares(splits),
            split_by=split_by,
            seed=seed,
        )
        role = read_role("--judge", judge or [])
        asking = None
        if role is not None:
            from data_prep.verify.judge import judge_of

            asking = judge_of(role)
        work = {"engine": engine, "workers": workers}
        if dry_run:
            from data_prep.verify.estimate import estimate

            found = find_candidates(input, out, settings, **work)
            for sentence in estimate(PairFile(found.candidates), asking, rules_of(settings), review):
                typer.echo(sentence)
            typer.echo(f"nothing written; what is done so far lies in {found.work} for the command without --dry-run")
            return
        judging = Judging(asking, review, allow_unjudged)
        summary = prepare(input, out, settings, report=report, keep_work=keep_work, judging=judging, **work)
    except UnjudgedError as error:
        typer.echo(f"contextrl pairs trajectories: {error}", err=True)
        raise typer.Exit(UNJUDGED) from None
    except (TrajectoryError, PipelineError, RemoteError, PairFormatError, ConfigError) as error:
        typer.echo(f"contextrl pairs trajectories: {error}", err=True)
        raise typer.Exit(1) from None
    print_stages(f"{summary['pairs']} pairs from {summary['runs_read']} runs", summary["stages"])
    if summary.get("waiting_for_review"):
        typer.echo(f"{summary['waiting_for_review']} pairs wait in {review} for your decision")
    typer.echo(f"{out}: {summary['pairs']} pairs, {summary['leaked_lines_masked']} leaked lines masked, "
               f"{summary['seconds']:.0f} s" + (f"; report: {report / 'index.html'}" if report else ""))  # fmt: skip
