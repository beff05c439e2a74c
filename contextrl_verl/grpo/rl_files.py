"""Files of ordinary RL rows, looked through before verl reads them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from contextrl_verl.errors import ConfigError

_TRUTH = "reward_model.ground_truth"


class RowFile(NamedTuple):
    """What a job must know of a file of ordinary rows."""

    rows: int
    sources: Counter[str]  # how many rows each data source has
    without: Counter[str]  # how many rows have no value, by column; ``reward_model.ground_truth`` is one
    schema: Any  # of a Parquet file, pyarrow's


def read_rows(path: str, key: str, prompt_key: str = "prompt", source_key: str = "data_source") -> RowFile:
    """Look through a file of ordinary RL rows, which ``key`` of the config names, without its prompts.

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
    if not path.endswith((".parquet", ".json", ".jsonl")):
        raise ConfigError(f"{key}: {path} is neither .parquet nor .json(l). Fix: convert or rename the file.")
    look = _parquet if path.endswith(".parquet") else _json
    schema, sources, without = look(path, key, prompt_key, source_key)
    named = Counter(source for source in sources if isinstance(source, str))
    missing = Counter({_TRUTH: without, source_key: len(sources) - named.total()})
    return RowFile(len(sources), named, missing, schema)


def _check_columns(columns: Iterable[str], path: str, key: str, prompt_key: str, source_key: str) -> None:
    columns = set(columns)
    if "supporting" in columns:
        raise ConfigError(f"{key}: {path} holds contrastive pairs. Fix: name it under contextrl.pairs instead.")
    rewarded = (
        "write data_source (a string) and reward_model ({'style': 'rule', 'ground_truth': ...}), which verl's reward "
        "managers read, with every row, or name the column of the source as data.reward_fn_key"
    )
    chat = "name the column that holds the chat messages as data.prompt_key, or correct the path"
    for name, fix in ((prompt_key, chat), (source_key, rewarded), ("reward_model", rewarded)):
        if name not in columns:
            raise ConfigError(f"{key}: {path} has no column {name!r}; found {sorted(columns)}. Fix: {fix}.")


def _no_chat(path: str, key: str, prompt_key: str, found: str) -> ConfigError:
    return ConfigError(
        f"{key}: {path}: the column {prompt_key!r} (data.prompt_key) holds {found}, and verl would take it apart as if "
        "it were a list of chat messages. Fix: write [{'role': 'user', 'content': ...}] for every row."
    )


def _parquet(path: str, key: str, prompt_key: str, source_key: str) -> tuple[Any, list[Any], int]:
    """Schema, source of every row, and how many have no right answer."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    sources, without = [], 0
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        _check_columns(schema.names, path, key, prompt_key, source_key)
        kind = schema.field(prompt_key).type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
            raise _no_chat(path, key, prompt_key, f"values of type {kind}")
        for batch in file.iter_batches(columns=[source_key, "reward_model"]):
            sources += batch.column(source_key).to_pylist()
            # By Arrow: an answer may be a program's tests, megabytes a row.
            models = batch.column("reward_model")
            has_field = pa.types.is_struct(models.type) and models.type.get_field_index("ground_truth") >= 0
            without += pc.struct_field(models, "ground_truth").null_count if has_field else len(models)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(
            f"{key}: {path} cannot be read as a Parquet file ({error}). Fix: copy or write it again."
        ) from None
    return schema, sources, without


def _json(path: str, key: str, prompt_key: str, source_key: str) -> tuple[None, list[Any], int]:
    sources, without, columns = [], 0, set()
    for row, record in enumerate(json_rows(path, key)):
        columns.update(record)
        sources.append(record.get(source_key))
        model = record.get("reward_model")
        without += not isinstance(model, Mapping) or model.get("ground_truth") is None
        prompt = record.get(prompt_key)
        if prompt is not None and not (isinstance(prompt, list) and all(isinstance(turn, dict) for turn in prompt)):
            raise _no_chat(path, key, prompt_key, f"{str(prompt)[:60]!r} in row {row}")
    if sources:
        _check_columns(columns, path, key, prompt_key, source_key)
    return None, sources, without


def json_rows(path: str, key: str) -> Iterator[dict[str, Any]]:
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
    features = [(path, datasets.Features.from_arrow_schema(schema)) for path, schema in schemas]
    for path, these in features[1:]:
        first, expected = features[0]
        # One row each: datasets does not look at the types of empty ones.
        tried = [datasets.Dataset.from_dict({name: [None] for name in one}, features=one) for one in (expected, these)]
        try:
            datasets.concatenate_datasets(tried)
        except ValueError:
            name = next(name for name in expected if name in these and expected[name] != these[name])
            raise ConfigError(
                f"{key}: the column {name!r} is {expected[name]} in {first} and {these[name]} in {path}, and the "
                "datasets library, with which verl reads them, does not join the two. Fix: write both files with the "
                "same types."
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
