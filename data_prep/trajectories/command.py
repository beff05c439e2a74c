"""``contextrl pairs trajectories``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def trajectories(
    context: typer.Context,
    input: Annotated[Path, typer.Option(help="File or folder of agent runs; formats are told by their fields.")],
    out: Annotated[Path, typer.Option(help="File of pairs to write (.parquet or .jsonl).")],
    report: Annotated[Path | None, typer.Option(help="Folder for index.html and summary.json.")] = None,
    format: Annotated[str | None, typer.Option(help="Format of the runs; by default every record says it.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Hugging Face tokenizer that counts tokens; by default they are estimated.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens of a context at most.")] = None,
    issue: Annotated[
        str | None,
        typer.Option(help="Kinds of pairs: some of related, any, same, counterfactual, with commas (see the docs)."),
    ] = None,
    overlap_cap: Annotated[
        float | None, typer.Option(help="Share of the pairs of a kind that words in common may tell; 1: no cap.")
    ] = None,
    show: Annotated[
        str | None, typer.Option(help="Of a run: all, observations (with the commands), or reasoning (no output).")
    ] = None,
    hide_issue: Annotated[bool | None, typer.Option("--hide-issue/--show-issue", help="Leave the issue out.")] = None,
    hide_summary: Annotated[
        bool | None,
        typer.Option("--hide-summary/--show-summary", help="Leave out the agent's words after its last edit."),
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Model that verifies pairs: model=M, ... as in contextrl judge."),
    ] = None,
    review: Annotated[Path | None, typer.Option(help="JSONL that a person edits: UNCERTAIN pairs.")] = None,
    allow_unjudged: Annotated[
        bool, typer.Option("--allow-unjudged", help="Write the rest even if some pairs were not judged.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Stop before the judge, say what it would cost, write nothing.")
    ] = False,
    engine: Annotated[str, typer.Option(help="local, or ray for a cluster with a shared file system.")] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default all cores.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of caps, splits and order.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings (docs/trajectory_pairs.md).")] = None,
    set: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="One of them, over the file.")] = None,
) -> None:
    """Turn agent runs into contrastive pairs: same place, different issue, edits hidden, every loss counted."""
    from contextrl_verl.errors import ConfigError
    from contextrl_verl.pairs.files import PairFile
    from data_prep.common.settings_file import load_settings
    from data_prep.models.spec import read_spec
    from data_prep.report.text import print_stages
    from data_prep.trajectories.prepare import PrepareSettings, find_candidates, prepare
    from data_prep.verify.judge import OpenAIJudge
    from data_prep.verify.write import Judging, estimate

    if out.suffix not in (".parquet", ".jsonl"):
        raise ConfigError(f"--out is {out}. Fix: a name that ends in .parquet or .jsonl.")
    settings = load_settings(
        PrepareSettings,
        config,
        set or [],
        format=format,
        tokenizer=tokenizer,
        max_tokens=max_tokens,
        issue=issue,
        overlap_cap=overlap_cap,
        show=show,
        hide_issue=hide_issue,
        hide_summary=hide_summary,
        seed=seed,
    )
    spec = read_spec("--judge", judge)
    asking = OpenAIJudge(spec) if spec else None
    work = {"engine": engine, "workers": workers}
    if dry_run:
        found = find_candidates(input, out, settings, **work)
        for sentence in estimate(PairFile(found.candidates), asking, settings.rules, review, settings.too_easy):
            typer.echo(sentence)
        typer.echo(f"nothing written; what is done so far lies in {found.work} for the command without --dry-run")
        return
    judging = Judging(asking, review, allow_unjudged)
    summary = prepare(input, out, settings, report=report, judging=judging, audit=context.obj, **work)
    print_stages(f"{summary['pairs']} pairs from {summary['runs_read']} runs", summary["stages"])
    for stage in (stage for stage in summary["stages"] if stage["name"] == "overlap" and stage["dropped"]):
        typer.echo(f"{stage['out']} of {stage['in']} pairs fit the overlap cap of {settings.overlap_cap:g}")
    told = ", ".join(f"{kind} {of['right']:.0%} of {of['pairs']}" for kind, of in summary["overlap"].items())
    typer.echo(f"words in common (BM25) tell: {told}")
    if summary.get("waiting_for_review"):
        typer.echo(f"{summary['waiting_for_review']} pairs wait in {review} for your decision")
    typer.echo(f"{out}: {summary['pairs']} pairs, {summary['leaked_lines_masked']} leaked lines masked, "
               f"{summary['seconds']:.0f} s" + (f"; report: {report / 'index.html'}" if report else ""))  # fmt: skip
