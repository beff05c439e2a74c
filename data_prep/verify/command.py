"""``contextrl judge``: verify a file of pairs by rules and, on request, by a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def judge(
    pairs: Annotated[Path, typer.Argument(help="File of pairs (.parquet, .jsonl).")],
    out: Annotated[Path | None, typer.Option(help="File for the pairs that pass; not needed for --dry-run.")] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Model that judges, else only the rules do: model=M, base_url=URL, key_variable, cache, concurrency, "
            "timeout, tries, max_tokens, price_in, price_out, max_cost, ... (repeat; the same names in every command).",
        ),
    ] = None,
    review: Annotated[Path | None, typer.Option(help="JSONL that a person edits: UNCERTAIN pairs.")] = None,
    length_ratio: Annotated[float, typer.Option(min=1, help="Longest over shortest context at most.")] = 2.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print calls, tokens and cost; ask nothing.")] = False,
    allow_unjudged: Annotated[
        bool, typer.Option("--allow-unjudged", help="Write the rest even if some pairs were not judged.")
    ] = False,
) -> None:
    """Verify pairs: rules always, a model with --judge, a person for what stays uncertain."""
    from contextrl_verl.errors import ConfigError
    from contextrl_verl.pairs.files import PairFile
    from data_prep.common.funnel import Funnel
    from data_prep.models.spec import read_spec
    from data_prep.report.text import print_stages
    from data_prep.verify.judge import OpenAIJudge
    from data_prep.verify.rules import RuleSettings
    from data_prep.verify.write import Judging, conclude, estimate, incomplete

    file, rules, funnel = PairFile(pairs), RuleSettings(length_ratio=length_ratio), Funnel()
    spec = read_spec("--judge", judge)
    asking = OpenAIJudge(spec) if spec else None
    if dry_run:
        for sentence in estimate(file, asking, rules, review):
            typer.echo(sentence)
        return
    if out is None:
        raise ConfigError("--out is missing. Fix: name the file for the pairs that pass, or ask for a --dry-run.")
    if asking is not None:
        typer.echo(f"judging with {spec.model} at {asking.shown}; answers in {spec.cache}", err=True)
    found = conclude(pairs, out, rules, Judging(asking, review, allow_unjudged), funnel)
    print_stages(f"{found.pairs} of {len(file)} pairs", [stage.summary() for stage in funnel])
    if usage := found.usage:
        money = f", {usage['spent']:.4f} spent" if "spent" in usage else ""
        typer.echo(
            f"{usage['requests']} requests, {usage['answered']} answers, {usage['cached']} from the cache, "
            f"{usage['malformed']} given up as malformed{money}",
            err=True,
        )
    if found.unjudged:
        typer.echo(f"contextrl judge: {incomplete(found)}", err=True)
    if found.waiting:
        typer.echo(
            f"{found.waiting} pairs wait in {review} for your decision: put VALID or INVALID after 'decision' and run "
            "the same command again",
            err=True,
        )
    typer.echo(f"{found.pairs} of {len(file)} pairs written to {out}")
