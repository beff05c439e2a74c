"""Files of rows, all of them or none; and what a command says about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contextrl_verl.pairs.whole_file import whole_file
from data_prep.common.funnel import Funnel

_ROWS_PER_GROUP = 200
_BYTES_PER_GROUP = 64 << 20


def validation_file(out: Path) -> Path:
    """Where the rows for validation go: ``rows.validation.parquet`` beside ``rows.parquet``."""
    return out.with_suffix(".validation.parquet")


def write_row_files(files: Mapping[Path, Iterable[dict[str, Any]]], schema: pa.Schema) -> None:
    """Write rows to each of the Parquet files, one after the other; no file takes its name before all are written."""
    with ExitStack() as leaving:
        for path, rows in files.items():
            _write(rows, leaving.enter_context(whole_file(path)), schema)


def reasons(funnel: Funnel) -> str:
    """The most frequent reasons of every stage for leaving things out, in one line."""
    worst = [f"{stage.name}: {reason} ({n})" for stage in funnel for reason, n in stage.dropped.most_common(3)]
    return "; ".join(worst) or "nothing was dropped"


def _write(rows: Iterable[dict[str, Any]], path: Path, schema: pa.Schema) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in _batches(rows):
            writer.write_table(pa.Table.from_pylist(batch, schema))


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(image["bytes"]) for image in row.get("images") or ())
        if len(batch) == _ROWS_PER_GROUP or size >= _BYTES_PER_GROUP:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
