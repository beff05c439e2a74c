"""Files of ordinary RL rows, looked through before verl reads them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from contextrl_verl.errors import ConfigError

_TRUTH = "reward_model.ground_truth"


@dataclass
class RowFile:
    """What a job must know of a file of ordinary rows.

    Attributes:
        rows: their number.
        sources: how many rows each data source has.
        without: how many rows have no value, by column; ``reward_model.ground_truth`` is one.
        schema: of a Parquet file, pyarrow's.
    """

    rows: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    without: Counter[str] = field(default_factory=Counter)
    schema: Any = None

    def add(self, source: Any, source_key: str, count: int = 1) -> None:
        """Count rows of a data source."""
        if isinstance(source, str):
            self.sources[source] += count
        else:
            self.without[source_key] += count


def read_rows(path: str, key: str, prompt_key: str = "prompt", source_key: str = "data_source") -> RowFile:
    """Look through a file of ordinary RL rows, without its prompts.

    Args:
        key: the config key that names the file, for messages.
        prompt_key: the column of chat messages (``data.prompt_key``).
        source_key: the column that chooses the reward (``data.reward_fn_key``).

    Raises:
        ConfigError: the file is missing, unreadable, holds pairs, lacks a column, or its prompts are no chat messages.
    """
    if "://" in path:
        raise ConfigError(
            f"{key}: {path} is remote and cannot be counted before the job. Fix: copy it to a local path."
        )
    if not os.path.isfile(path):
        home = " and write the home folder out; verl's reader does not expand ~" if path.startswith("~") else ""
        raise ConfigError(f"{key}: there is no file {path}. Fix: correct the path{home}.")
    if path.endswith(".parquet"):
        return _parquet(path, key, prompt_key, source_key)
    if path.endswith((".json", ".jsonl")):
        return _json(path, key, prompt_key, source_key)
    raise ConfigError(f"{key}: {path} is neither .parquet nor .json(l). Fix: convert or rename the file.")


def _check_columns(columns: Iterable[str], path: str, key: str, prompt_key: str, source_key: str) -> None:
    columns = set(columns)
    if "supporting" in columns:
        raise ConfigError(f"{key}: {path} holds contrastive pairs. Fix: name it under contextrl.pairs instead.")
    needed = {prompt_key: "data.prompt_key", source_key: "data.reward_fn_key", "reward_model": None}
    missing = [name for name in needed if name not in columns]
    if prompt_key in missing:
        raise ConfigError(
            f"{key}: {path} has no column {prompt_key!r} (data.prompt_key); found {sorted(columns)}. "
            "Fix: name the column that holds the chat messages as data.prompt_key, or correct the path."
        )
    if missing:
        raise ConfigError(
            f"{key}: {path} has no column {missing[0]!r}, which verl's reward managers read; found {sorted(columns)}. "
            "Fix: write data_source (a string) and reward_model ({'style': 'rule', 'ground_truth': ...}) with every "
            "row, or name the column of the source as data.reward_fn_key."
        )


def _no_chat(path: str, key: str, prompt_key: str, found: str) -> ConfigError:
    return ConfigError(
        f"{key}: {path}: the column {prompt_key!r} (data.prompt_key) holds {found}, and verl would take it apart as if "
        "it were a list of chat messages. Fix: write [{'role': 'user', 'content': ...}] for every row."
    )


def _parquet(path: str, key: str, prompt_key: str, source_key: str) -> RowFile:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        _check_columns(schema.names, path, key, prompt_key, source_key)
        kind = schema.field(prompt_key).type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
            raise _no_chat(path, key, prompt_key, f"values of type {kind}")
        found = RowFile(rows=file.metadata.num_rows, schema=schema)
        # Counted by Arrow: an answer may be a program's tests, megabytes a row.
        for batch in file.iter_batches(columns=[source_key, "reward_model"]):
            for counted in batch.column(source_key).value_counts():
                found.add(counted["values"].as_py(), source_key, counted["counts"].as_py())
            truths = batch.column("reward_model")
            has_field = pa.types.is_struct(truths.type) and truths.type.get_field_index("ground_truth") >= 0
            without = pc.struct_field(truths, "ground_truth").null_count if has_field else len(truths)
            found.without[_TRUTH] += without
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(
            f"{key}: {path} cannot be read as a Parquet file ({error}). Fix: copy or write it again."
        ) from None
    return found


def _json(path: str, key: str, prompt_key: str, source_key: str) -> RowFile:
    found, columns = RowFile(), set()
    for record in _json_rows(path, key):
        columns.update(record)
        found.rows += 1
        found.add(record.get(source_key), source_key)
        model = record.get("reward_model")
        found.without[_TRUTH] += not isinstance(model, Mapping) or model.get("ground_truth") is None
        prompt = record.get(prompt_key)
        if prompt is not None and not (isinstance(prompt, list) and all(isinstance(turn, dict) for turn in prompt)):
            raise _no_chat(path, key, prompt_key, f"{str(prompt)[:60]!r} in row {found.rows - 1}")
    if found.rows:
        _check_columns(columns, path, key, prompt_key, source_key)
    return found


def _json_rows(path: str, key: str) -> Iterator[dict[str, Any]]:
    """One object a line or, as verl's reader accepts it too, one list of objects."""
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
            yield from (record for record in (found if whole else [found]) if isinstance(record, dict))


def check_joined(paths: list[str], files: list[RowFile], key: str) -> None:
    """Raises ConfigError if ``datasets``, with which verl reads the files, cannot join their columns' types."""
    import datasets

    schemas = [(path, file.schema) for path, file in zip(paths, files, strict=True) if file.schema is not None]
    if len(schemas) < 2:
        return
    features = [(path, datasets.Features.from_arrow_schema(schema)) for path, schema in schemas]
    (first, expected), *others = features
    for path, these in others:
        # One row each: datasets does not look at the types of empty ones.
        tried = [datasets.Dataset.from_dict({name: [None] for name in one}, features=one) for one in (expected, these)]
        try:
            datasets.concatenate_datasets(tried)
        except ValueError:
            apart = {n: (expected[n], these[n]) for n in expected if n in these and expected[n] != these[n]}
            name, (one, other) = next(iter(apart.items()))
            raise ConfigError(
                f"{key}: the column {name!r} is {one} in {first} and {other} in {path}, and the datasets library, with "
                "which verl reads them, does not join the two. Fix: write both files with the same types, for instance "
                "by reading them into one table and writing that."
            ) from None


def check_values(files: list[RowFile], key: str, *, truth_needed: bool) -> None:
    """Raises ConfigError if rows lack what the reward needs.

    Args:
        truth_needed: not where a user's own reward function may do without.
    """
    total = sum(file.rows for file in files)
    without = sum((file.without for file in files), Counter())  # leaves zeros out
    if not truth_needed:
        del without[_TRUTH]
    if without:
        name, count = without.most_common(1)[0]
        raise ConfigError(
            f"{key}: {count} of {total} rows have no {name}, without which there is no reward. Fix: write it with "
            "every row, or leave these rows out."
        )
