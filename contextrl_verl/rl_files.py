"""Files of ordinary RL rows, counted and looked into before verl reads them."""

from __future__ import annotations

import json
import os

from contextrl_verl.errors import ConfigError


def count_rows(path: str, key: str, prompt_key: str = "prompt") -> int:
    """The number of rows of a file of ordinary RL rows.

    Args:
        key: the config key that names the file, for messages.
        prompt_key: the column that must be there (``data.prompt_key``).

    Raises:
        ConfigError: the file is missing, unreadable, holds pairs, or lacks the column.
    """
    if "://" in path:
        raise ConfigError(
            f"{key}: {path} is remote and cannot be counted before the job. Fix: copy it to a local path."
        )
    if not os.path.isfile(path):
        home = " and write the home folder out; verl's reader does not expand ~" if path.startswith("~") else ""
        raise ConfigError(f"{key}: there is no file {path}. Fix: correct the path{home}.")
    if path.endswith(".parquet"):
        columns, rows = _parquet_rows(path, key)
    elif path.endswith((".json", ".jsonl")):
        columns, rows = _json_rows(path, key)
    else:
        raise ConfigError(f"{key}: {path} is neither .parquet nor .json(l). Fix: convert or rename the file.")
    if "supporting" in columns:
        raise ConfigError(f"{key}: {path} holds contrastive pairs. Fix: name it under contextrl.pairs instead.")
    if rows and prompt_key not in columns:
        raise ConfigError(
            f"{key}: {path} has no column {prompt_key!r} (data.prompt_key); found {sorted(columns)}. "
            "Fix: name the column that holds the chat messages as data.prompt_key, or correct the path."
        )
    return rows


def _parquet_rows(path: str, key: str) -> tuple[set[str], int]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(
            f"{key}: {path} cannot be read as a Parquet file ({error}). Fix: copy or write it again."
        ) from None
    return set(file.schema_arrow.names), file.metadata.num_rows


def _json_rows(path: str, key: str) -> tuple[set[str], int]:
    """One object a line or, as verl's reader accepts it too, one list of objects."""
    columns: set[str] = set()
    rows = 0
    with open(path, "rb") as stream:
        whole = stream.read(1) == b"["
        stream.seek(0)
        for number, line in enumerate([stream.read()] if whole else stream):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except ValueError as error:
                place = "the list" if whole else f"line {number + 1}"
                raise ConfigError(
                    f"{key}: {path}: {place} is not JSON ({error}). Fix: one JSON object a line, in UTF-8."
                ) from None
            records = found if whole else [found]
            columns.update(*(record for record in records if isinstance(record, dict)))
            rows += len(records)
    return columns, rows
