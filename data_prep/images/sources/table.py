"""A table file, or a folder of them: JSONL, CSV or Parquet with a picture, a question and an answer in every row."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from data_prep.common.pipeline import describe_inputs
from data_prep.images.errors import ImagePairError
from data_prep.images.sources.files import ENDINGS, columns_of, file_rows, is_table, keys_of, spans_of
from data_prep.images.sources.options import SourceOptions
from data_prep.images.sources.types import Found, Lost, Row, Span

NAME = "table"
FORM = f"a table ({', '.join(ENDINGS)}) or a folder of tables"


def claims(spec: str) -> bool:
    path = Path(spec)
    return path.is_file() or (path.is_dir() and any(_tables(path)))


def find(spec: str, options: SourceOptions) -> Found:
    """Raises ImagePairError for a file that is no readable table."""
    path = Path(spec)
    if path.is_file() and not is_table(path):
        raise ImagePairError(f"{spec} is no table that is read here. Fix: convert it to one of {', '.join(ENDINGS)}.")
    return find_tables(path, [path] if path.is_file() else list(_tables(path)), options)


def find_tables(path: Path, tables: list[Path], options: SourceOptions) -> Found:
    """Plan these tables; pictures by path lie in ``options.root``, or in the folder of ``path``."""
    folder = path.parent if path.is_file() else path
    spans: list[Span] = []
    columns: dict[str, None] = {}
    for table in tables:
        name = table.relative_to(folder).as_posix()
        columns.update(dict.fromkeys(columns_of(table, options.max_record_bytes)))
        prefix = f"{name}:" if len(tables) > 1 else ""
        spans += spans_of(table.resolve(), name, prefix, options.part_rows, options.max_record_bytes)
    if not spans:
        raise ImagePairError(f"{path} holds no row. Fix: give a table with a header and rows.")
    spans = [{**span, "max_record_bytes": options.max_record_bytes} for span in spans]
    return Found(
        name=path.resolve().name,
        columns=tuple(columns),
        spans=spans,
        keys=lambda: chain.from_iterable(map(keys_of, spans)),
        root=str(Path(options.root or folder).resolve()),
        inputs=describe_inputs(tables),
    )


def rows(span: Span) -> Iterator[Row | Lost]:
    return file_rows(span, span["max_record_bytes"])


def _tables(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_file() and is_table(path) and path.name[0] != ".")
