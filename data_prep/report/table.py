"""The stages of a run as a table in the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def print_stages(title: str, stages: Iterable[dict[str, Any]]) -> None:
    """Print stages as ``summary.json`` holds them."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in ("stage", "unit", "in", "out", "dropped"):
        table.add_column(column, justify="right" if column in ("in", "out") else "left")
    for stage in stages:
        dropped = ", ".join(f"{reason} {count:,}" for reason, count in stage["dropped"].items())
        table.add_row(stage["name"], stage["unit"], f"{stage['in']:,}", f"{stage['out']:,}", dropped)
    Console().print(table)
