"""``contextrl audit``: exit code 0 without a shortcut, 1 with one, 2 for input that cannot be audited."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FOUND_SHORTCUT = 1
BAD_INPUT = 2


def audit_command(
    files: Annotated[list[Path], typer.Argument(help="Parquet or JSONL files of pairs, audited together.")],
    out: Annotated[Path | None, typer.Option(help="Folder for audit.json and audit.png.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Feature group; repeat for several. Default: all.")] = None,
    threshold: Annotated[float, typer.Option(help="Accuracy (two contexts) a shortcut must beat.")] = 0.55,
    evidence_threshold: Annotated[
        float | None, typer.Option(help="Fail when overlap of words beats this accuracy. Default: only report.")
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds of cross-validation.")] = 5,
    repeats: Annotated[int, typer.Option(help="Repeats of cross-validation with other folds.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of folds, models and sample.")] = 0,
    max_pairs: Annotated[int, typer.Option(help="Larger sets are sampled by couple.")] = 10_000,
    evidence: Annotated[bool, typer.Option(help="Also report how far overlap of words gets.")] = True,
) -> None:
    """Can the supporting context be told without the evidence? Exit code 1 if so."""
    from rich.console import Console
    from tqdm import tqdm

    from contextrl_verl.pairs.files import PairFile
    from data_prep.audit.result import print_result, write_chart, write_json
    from data_prep.audit.run import audit

    sources = [PairFile(path) for path in files]
    with tqdm(total=sum(map(len, sources)), unit="pair", delay=1, leave=False) as bar:

        def counted():
            for source in sources:
                for pair in source:
                    yield pair
                    bar.update()

        result = audit(
            counted(), group or None, seed, folds, threshold, repeats=repeats, evidence=evidence,
            evidence_threshold=evidence_threshold, max_pairs=max_pairs, progress=bar.set_description_str,
        )  # fmt: skip
    if out is not None:
        write_json(result, out / "audit.json")
        write_chart(result, out / "audit.png")
    print_result(result, Console(width=None if Console().is_terminal else 120))
    if not result.passed:
        raise typer.Exit(FOUND_SHORTCUT)
