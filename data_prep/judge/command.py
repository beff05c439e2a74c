"""``contextrl judge``: verify a file of pairs by rules and, on request, by a language model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from contextrl_verl.pairs import ContrastivePair
    from data_prep.judge.llm import OpenAIJudge

# Exit status 1 is a mistake to mend; this one: not all pairs were judged.
INCOMPLETE = 3


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
    from contextrl_verl.pair_files import PairFile, write_pairs
    from contextrl_verl.pairs import PairFormatError
    from data_prep.counting import Funnel
    from data_prep.judge.rules import RuleSettings
    from data_prep.judge.verify import incomplete, verify
    from data_prep.remote.errors import RemoteError

    try:
        file, rules, funnel = PairFile(pairs), RuleSettings(length_ratio=length_ratio), Funnel()
        asking = None
        if model:
            asking = _judge(
                model, base_url, key_variable, cache, concurrency, timeout, tries, max_tokens, tokens_per_image,
                price_in, price_out, currency, max_cost,
            )  # fmt: skip
        if dry_run:
            _dry_run(file, asking, rules, review)
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
                raise typer.Exit(INCOMPLETE)
        written = write_pairs(_with_bytes(result.kept(file)), out)
    except (RemoteError, PairFormatError, ConfigError) as error:
        typer.echo(f"contextrl judge: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{written} of {len(file)} pairs written to {out}")


def _judge(
    model: str, base_url: str | None, key_variable: str, cache: Path, concurrency: int, timeout: float, tries: int,
    max_tokens: int, tokens_per_image: int, price_in: float | None, price_out: float | None, currency: str,
    max_cost: float | None,
) -> OpenAIJudge:  # fmt: skip
    from data_prep.judge.llm import OpenAIJudge
    from data_prep.remote.budget import Budget, Prices
    from data_prep.remote.cache import ReplyCache
    from data_prep.remote.chat import ChatSettings
    from data_prep.remote.errors import RemoteError
    from data_prep.remote.retry import RetryPolicy

    if (price_in is None) != (price_out is None):
        raise RemoteError("Only one of --price-in and --price-out is given. Fix: give both.")
    prices = None if price_in is None else Prices.of(price_in, price_out, currency)
    settings = ChatSettings(
        model=model,
        base_url=base_url,
        key_variable=key_variable,
        max_tokens=max_tokens,
        concurrency=concurrency,
        timeout=timeout,
        tokens_per_image=tokens_per_image,
        retry=RetryPolicy(attempts=tries),
    )
    return OpenAIJudge(settings, ReplyCache(cache), Budget(prices, max_cost))


def _dry_run(file: Any, asking: OpenAIJudge | None, rules: Any, review: Path | None) -> None:
    from data_prep.judge.review import read_review
    from data_prep.judge.verify import verify

    passed = verify(file, None, rules=rules)
    count = sum(decision.kept for decision in passed.decisions)
    typer.echo(f"{count} of {len(file)} pairs pass the rules")
    if asking is not None:
        decided = {entry.pair_id for entry in read_review(review) if entry.decision} if review else set()
        typer.echo(asking.estimate(pair for pair in passed.kept(file) if pair.pair_id not in decided).sentence())


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


def _with_bytes(pairs: Iterator[ContrastivePair]) -> Iterator[ContrastivePair]:
    """Images given by path are stored in the new file, whose folder is another one."""
    for pair in pairs:
        for context in pair.contexts:
            for image in context.images or ():
                if image.bytes is None:
                    image.bytes, image.path = Path(image.path).read_bytes(), None
        yield pair
