"""``contextrl audit``: exit code 0 without a shortcut, 1 with one, 2 for input that cannot be audited."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contextrl_verl.errors import ConfigError

if TYPE_CHECKING:
    from contextrl_verl.pairs.files import PairFile

FOUND_SHORTCUT = 1
BAD_INPUT = 2


def audit_command(
    files: Annotated[list[Path], typer.Argument(help="Parquet or JSONL files of pairs, audited together.")],
    out: Annotated[Path | None, typer.Option(help="Folder for audit.json.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Feature group; repeat for several. Default: all.")] = None,
    threshold: Annotated[
        float, typer.Option(min=0.5, max=0.99, help="Accuracy (two contexts) a shortcut must beat.")
    ] = 0.55,
    evidence_threshold: Annotated[
        float | None,
        typer.Option(min=0.5, max=0.99, help="Fail when overlap of words beats this accuracy. Default: only report."),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds of cross-validation.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats of cross-validation with other folds.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of folds, models and sample.")] = 0,
    max_pairs: Annotated[int, typer.Option(min=30, help="Larger sets are sampled by couple.")] = 10_000,
    evidence: Annotated[bool, typer.Option(help="Also report how far overlap of words gets.")] = True,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default all cores.")] = None,
) -> None:
    """Can the supporting context be told without the evidence? Exit code 1 if so."""
    from itertools import chain

    from rich.console import Console
    from tqdm import tqdm

    from contextrl_verl.pairs.files import PairFile
    from contextrl_verl.pairs.whole_file import write_whole
    from data_prep.audit.result import print_result
    from data_prep.audit.run import audit

    sources = [PairFile(path) for path in files]
    with tqdm(chain.from_iterable(sources), total=sum(map(len, sources)), unit="pair", delay=1, leave=False) as pairs:
        result = audit(
            pairs, group or None, seed, folds, threshold, repeats=repeats, evidence=evidence,
            evidence_threshold=evidence_threshold, max_pairs=max_pairs, workers=workers,
            progress=pairs.set_description_str,
        )  # fmt: skip
    if out is not None:
        write_whole(out / "audit.json", result.as_json())
    print_result(result, Console(width=None if Console().is_terminal else 120))
    if not result.passed:
        raise typer.Exit(FOUND_SHORTCUT)


def measured(file: PairFile) -> dict[str, Any]:
    """What other commands say of the pairs they wrote: ``passed``, the ``conclusion`` in sentences, and the ``percent``
    each group gets right, by domain or kind; or why there is no audit."""
    try:
        from data_prep.audit.result import conclusion
        from data_prep.audit.run import audit

        result = audit(file, repeats=1, workers=None)
    except ModuleNotFoundError as error:
        return {"conclusion": [f"No audit: {error.name!r} is not installed (pip install 'contextrl-verl[audit]')."]}
    except ConfigError as error:
        return {"conclusion": [f"No audit: {error}"]}
    percent: dict[str, dict[str, float]] = {domain.domain: {} for domain in result.domains}
    for row in result.rows:
        percent[row.domain][row.group] = round(100 * row.accuracy, 1)
    return {"passed": result.passed, "conclusion": [*result.notes, *conclusion(result)], "percent": percent}
