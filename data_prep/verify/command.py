"""``contextrl judge``: verify a file of pairs by rules and, on request, by a language model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from data_prep.verify.judge import OpenAIJudge


def judge(
    pairs: Annotated[Path, typer.Argument(help="File of pairs (.parquet, .jsonl).")],
    out: Annotated[Path | None, typer.Option(help="File for the pairs that pass; not needed for --dry-run.")] = None,
    model: Annotated[str, typer.Option(help="Model that judges; without one only the rules do.")] = "",
    base_url: Annotated[str | None, typer.Option(help="OpenAI-compatible endpoint, e.g. http://host:8000/v1.")] = None,
    key_variable: Annotated[str, typer.Option(help="Environment variable with the key.")] = "OPENAI_API_KEY",
    cache: Annotated[Path, typer.Option(help="Folder of answers; a rerun costs nothing.")] = Path(
        "outputs/judge_cache"
    ),
    review: Annotated[Path | None, typer.Option(help="JSONL that a person edits: UNCERTAIN pairs.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 8,
    timeout: Annotated[float, typer.Option(help="Seconds for one request.")] = 120.0,
    tries: Annotated[int, typer.Option(min=1, help="Requests for one answer when the endpoint fails.")] = 6,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one reply, reasoning included.")] = 2048,
    tokens_per_image: Annotated[int, typer.Option(min=0, help="Most an image may cost, for the cap.")] = 4096,
    price_in: Annotated[float | None, typer.Option(help="Price of a million input tokens.")] = None,
    price_out: Annotated[float | None, typer.Option(help="Price of a million output tokens.")] = None,
    currency: Annotated[str, typer.Option(help="Of the prices and the cap; only shown.")] = "USD",
    max_cost: Annotated[float | None, typer.Option(help="Spending cap of this command; needs prices.")] = None,
    length_ratio: Annotated[float, typer.Option(min=1, help="Longest over shortest context at most.")] = 2.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print calls, tokens and cost; ask nothing.")] = False,
    allow_unjudged: Annotated[
        bool, typer.Option("--allow-unjudged", help="Write the rest even if some pairs were not judged.")
    ] = False,
) -> None:
    """Verify pairs: rules always, a judge if --model is given, a person for what stays uncertain."""
    from contextrl_verl.errors import ConfigError
    from contextrl_verl.pairs import PairFormatError
    from contextrl_verl.pairs.files import PairFile, write_pairs
    from data_prep.common.funnel import Funnel
    from data_prep.common.image_bytes import with_bytes
    from data_prep.models.errors import RemoteError
    from data_prep.models.spec import EndpointRole
    from data_prep.verify.estimate import estimate
    from data_prep.verify.judge import judge_of
    from data_prep.verify.rules import RuleSettings
    from data_prep.verify.verify import incomplete, verify
    from data_prep.verify.write import UNJUDGED

    try:
        file, rules, funnel = PairFile(pairs), RuleSettings(length_ratio=length_ratio), Funnel()
        asking = None
        if model:
            role = EndpointRole(
                model=model, base_url=base_url, key_variable=key_variable, cache=cache, concurrency=concurrency,
                timeout=timeout, tries=tries, max_tokens=max_tokens, tokens_per_image=tokens_per_image,
                price_in=price_in, price_out=price_out, currency=currency, max_cost=max_cost,
            )  # fmt: skip
            asking = judge_of(role)
        if dry_run:
            for sentence in estimate(file, asking, rules, review):
                typer.echo(sentence)
            return
        if out is None:
            raise RemoteError("--out is missing. Fix: name the file for the pairs that pass, or ask for a --dry-run.")
        if asking is not None:
            typer.echo(f"judging with {model} at {asking.endpoint.shown}; answers in {cache}", err=True)
        result = verify(file, asking, rules=rules, review=review, funnel=funnel, progress=_bar(len(file), asking))
        _say(funnel, result, review)
        problem = incomplete(result)
        if problem is not None:
            typer.echo(f"contextrl judge: {problem}", err=True)
            if not allow_unjudged:
                raise typer.Exit(UNJUDGED)
        written = write_pairs(with_bytes(result.kept(file)), out)
    except (RemoteError, PairFormatError, ConfigError) as error:
        typer.echo(f"contextrl judge: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{written} of {len(file)} pairs written to {out}")


def _bar(total: int, asking: OpenAIJudge | None) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc="judged", unit="pair", leave=False).update if asking is not None else None


def _say(funnel: Any, result: Any, review: Path | None) -> None:
    for stage in funnel:
        typer.echo(f"{stage.name}: {stage.entered} in, {stage.left} out", err=True)
        for reason, count in sorted(stage.dropped.items()):
            typer.echo(f"  {count:8d}  {reason}", err=True)
    for sentence in result.usage.get("fallbacks", []):
        typer.echo(f"note: {sentence}", err=True)
    if result.usage:
        usage = result.usage
        money = f", {usage['spent']:.4f} {usage['currency']} spent" if "spent" in usage else ""
        typer.echo(
            f"{usage['requests']} requests, {usage['answered']} answers, {usage['cached']} from the cache, "
            f"{usage['malformed']} given up as malformed{money}",
            err=True,
        )
    if result.waiting:
        typer.echo(
            f"{result.waiting} pairs wait in {review} for your decision: put VALID or INVALID after 'decision' and run "
            "the same command again",
            err=True,
        )
