"""``contextrl difficulty``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from data_prep.difficulty.attempts import Solver


def difficulty(
    pairs: Annotated[Path, typer.Argument(help="File of pairs (.parquet, .jsonl).")],
    out: Annotated[Path | None, typer.Option(help="File for the pairs that stay; not needed for --dry-run.")] = None,
    solver: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Model behind an OpenAI-compatible endpoint: model=M, base_url=URL, max_cost=5, ... (repeat; samples "
            "at temperature=1 unless told otherwise).",
        ),
    ] = None,
    local: Annotated[str, typer.Option(help="Instead: model for vLLM on this machine (name or folder).")] = "",
    tries: Annotated[int, typer.Option(min=1, help="Tries at each pair, half of them in each order.")] = 8,
    keep: Annotated[tuple[int, int], typer.Option(help="Least and most solved tries of a pair that stays.")] = (2, 5),
    template: Annotated[str, typer.Option(help="Template of the question, as contextrl.prompt.template.")] = (
        "select_context"
    ),
    seed: Annotated[int, typer.Option(help="Of the orders and of local sampling.")] = 1,
    cache: Annotated[Path, typer.Option(help="Folder of replies of --local; a rerun costs nothing.")] = Path(
        "outputs/difficulty_cache"
    ),
    report: Annotated[Path | None, typer.Option(help="Folder for index.html and summary.json.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what --solver would cost; ask nothing.")] = False,
    allow_untried: Annotated[
        bool, typer.Option("--allow-untried", help="Write the rest even if some pairs could not be tried.")
    ] = False,
) -> None:
    """Keep the pairs that a model solves sometimes: neither always nor never (the paper: 2 to 5 times of 8)."""
    from tqdm import tqdm

    from contextrl_verl.errors import ConfigError
    from contextrl_verl.pairs.files import PairFile, write_pairs
    from data_prep.common.funnel import Funnel
    from data_prep.common.image_bytes import with_bytes
    from data_prep.difficulty.attempts import attempts_of
    from data_prep.difficulty.solve_rate import decide, kept_pairs, tallies
    from data_prep.report.text import print_stages
    from data_prep.verify.write import UnjudgedError

    low, high = keep
    if not 0 <= low <= high <= tries:
        raise ConfigError(f"--keep is {low} {high} of {tries} tries. Fix: 0 <= LOW <= HIGH <= --tries.")
    file = PairFile(pairs)
    asked = _solver(solver, local, cache, seed)
    attempts = attempts_of(file, tries, template=template, seed=seed)
    if dry_run:
        typer.echo(f"{len(file) * tries} tries on this machine" if local else asked.sentence(attempts))
        return
    if out is None:
        raise ConfigError("--out is missing. Fix: name the file for the pairs that stay, or ask for a --dry-run.")
    found = tallies(tqdm(asked.solve(attempts), total=len(file) * tries, desc="tries", unit="try"))
    funnel = Funnel()
    reasons = decide(file, found, tries, keep, funnel)
    funnel.check()
    untried = [pair_id for pair_id, reason in reasons.items() if reason.startswith("not tried")]
    if untried and not allow_untried:
        raise UnjudgedError(
            f"{len(untried)} pairs could not be tried (the first is {untried[0]!r}: {reasons[untried[0]]}). Replies "
            "that came are in the cache. Fix: mend the cause (raise max_cost, see that the endpoint is up) and run the "
            "command again, or leave those pairs out with --allow-untried."
        )
    if len(reasons) == len(file):
        counts = ", ".join(f"{reason} ({count})" for reason, count in funnel.stages[0].summary()["dropped"].items())
        raise ConfigError(f"no pair is left: {counts}. Fix: other bounds with --keep, or other pairs.")
    written = write_pairs(with_bytes(kept_pairs(file, found, reasons, asked.name)), out)
    if report is not None:
        from data_prep.difficulty.page import write_page

        write_page(report, file, found, reasons, funnel, model=asked.name, tries=tries, usage=asked.summary())
    print_stages(f"{written} of {len(file)} pairs", [stage.summary() for stage in funnel])
    typer.echo(f"{written} of {len(file)} pairs written to {out}" + (f"; report: {report}" if report else ""))


def _solver(items: list[str] | None, local: str, cache: Path, seed: int) -> Solver:
    from contextrl_verl.errors import ConfigError
    from data_prep.difficulty.solvers import EndpointSolver, SolverSpec, VllmSolver
    from data_prep.models.cache import ReplyCache
    from data_prep.models.spec import read_spec

    spec = read_spec("--solver", items, SolverSpec)
    if (spec is None) == (not local):
        raise ConfigError("Give either --solver or --local: the model whose difficulty counts.")
    return EndpointSolver(spec) if spec is not None else VllmSolver(local, ReplyCache(cache), seed=seed)
