"""What the commands of ``contextrl tasks`` have in common: what they print, and how they count tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer


def tell(summary: dict[str, Any], out: Path) -> None:
    """Print the stages of a summary with what each dropped, and the rows of each split."""
    for stage in summary["stages"]:
        typer.echo(f"{stage['name']}: {stage['in']} in, {stage['out']} out")
        for reason, count in stage["dropped"].items():
            typer.echo(f"  {count:6d}  {reason}")
    shares = ", ".join(f"{count} {split}" for split, count in summary["splits"].items())
    typer.echo(f"{out}: {summary['rows']} rows ({shares})")


def token_counter(name: str) -> Callable[[str], int]:
    """Counts the tokens of a text with the tokenizer of that name or folder; raises TrajectoryError."""
    from transformers import AutoTokenizer

    from data_prep.trajectories.run import TrajectoryError

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise TrajectoryError(
            f"--tokenizer {name}: cannot be loaded ({str(error).splitlines()[0]}); "
            "name a model or a folder that holds one"
        ) from error
    return lambda text: len(tokenizer(text, add_special_tokens=False).input_ids)
