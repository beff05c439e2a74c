"""A folder of pictures with a table of them, as in ``datasets``' ImageFolder: metadata.csv, .jsonl or .parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.images.errors import ImagePairError
from data_prep.images.sources import table
from data_prep.images.sources.options import SourceOptions
from data_prep.images.sources.types import Found, Lost, Row, Span

NAME = "folder"
_TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FORM = f"a folder of pictures with {' or '.join(_TABLES)} (columns file_name, question, answer)"


def claims(spec: str) -> bool:
    return any(Path(spec, name).is_file() for name in _TABLES)


def find(spec: str, options: SourceOptions) -> Found:
    """Raises ImagePairError when there are several tables, or one that cannot be read."""
    folder = Path(spec)
    tables = [folder / name for name in _TABLES if (folder / name).is_file()]
    if len(tables) > 1:
        names = [path.name for path in tables]
        raise ImagePairError(f"{spec} has several tables: {names}. Fix: give the path of one of them.")
    return table.find_tables(folder, tables, options)


def rows(span: Span) -> Iterator[Row | Lost]:
    return table.rows(span)
