"""Where the rows of a public set lie, and the work of a part: examples become items with stored pictures, or drops."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import Funnel
from data_prep.images.sources import hf, tables
from data_prep.images.sources.base import RowRejected, SourceOptions
from data_prep.images.sources.scan import PictureReader, drawn_rows, plan_parts
from data_prep.images.store import ImageRejected
from data_prep.tasks.item import Item, write_items
from data_prep.tasks.sets import SETS, PublicSet

_SPLITS = ("train", "validation", "val", "dev", "test", "qa_tuning", "alignment")


def plan_public(record: PublicSet, path: str, own_validation: bool, options: SourceOptions) -> list[dict[str, Any]]:
    """Payloads for :func:`scan_public`, of the split for training and, where it is wanted and there, for validation.

    ``path``: a file, a folder of files as the Hub has them, or one that ``save_to_disk`` wrote; ``""``: the Hub. Raises
    ConfigError when nothing is there, no such split, or columns are missing.
    """
    there, split = _splits(record, path), options.split or record.train
    wanted, options = {"train": split}, options.model_copy(update={"split": ""})
    if own_validation and record.validation not in ("", split) and record.validation in there:
        wanted["validation"] = record.validation
    parts = []
    for which, name in wanted.items():
        kind, found = _find(record, path, name, there, options)
        if missing := sorted(set(record.columns) - set(found.columns)):
            other = "name the columns of yours so" if record.issues else "read yours with contextrl tasks vqa"
            raise ConfigError(
                f"{path or record.hub} has no column {missing[0]!r}, which {record.name} needs; it has "
                f"{sorted(found.columns)}. Fix: give the files of {record.hub}, or {other}."
            )
        columns = [column for column in (*record.columns, *record.optional) if column in found.columns]
        own = {"set": record.name, "split": which}
        parts += [own | part for part in plan_parts(kind, found, columns, options)]
    return parts


def _splits(record: PublicSet, path: str) -> dict[str, list[Path]]:
    """Splits that are there, with their files where it is tables; files that name no split are all for training."""
    if not path:
        return {record.train: [], record.validation: []}
    folder = Path(path)
    if (saved := folder / "dataset_dict.json").is_file():
        return {name: [] for name in json.loads(saved.read_text(encoding="utf-8"))["splits"]}
    if folder.is_file() or not folder.exists():
        return {"": [folder]} if folder.is_file() else {}
    files = [file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file() and tables.is_table(file)]
    files = [file for file in files if not any(part[0] == "." for part in file.parts)]
    # The Hub keeps each subset in a folder of its name.
    files = [file for file in files if record.subset in file.parts] or files
    named: dict[str, list[Path]] = {}
    for file, name in product(files, _SPLITS):
        if re.search(rf"(?<![a-z]){name}(?![a-z])", file.with_suffix("").as_posix().lower()):
            named.setdefault(name, []).append(folder / file)
    return named or ({record.train: [folder / file for file in files]} if files else {})


def _find(
    record: PublicSet, path: str, split: str, there: dict[str, list[Path]], options: SourceOptions
) -> tuple[str, Any]:
    """The kind of source, and what planning it found."""
    only = f' --include "{record.subset}/*"' if record.subset else ""
    unpack = "" if record.streamed else "; unpack its pictures there"
    download = f"`hf download {record.hub} --repo-type dataset --local-dir DIR{only}`{unpack}, and give --path DIR"
    if not path:
        if not record.streamed:
            raise ConfigError(f"{record.name} cannot be read from the Hub row by row. Fix: run {download}.")
        options = options.model_copy(update={"split": split, "subset": record.subset})
        try:
            return "hf", hf.find(f"hf:{record.hub}", options)
        except ConfigError as error:
            raise ConfigError(f"{error} Or, where there is a network, run {download}.") from None
    folder = Path(path)
    if not folder.exists():
        raise ConfigError(f"--path is {path}, and nothing is there. Fix: run {download}.")
    if (folder / "state.json").is_file():
        return "hf", hf.find(path, options)
    files = there.get(split, there.get(""))
    if files is None:
        other = f"; it has {sorted(there)}, see --split" if there else ""
        raise ConfigError(f"{path} holds no table of the split {split!r}{other}. Fix: run {download}.")
    if not files:
        return "hf", hf.find(path, options.model_copy(update={"split": split}))
    return "table", tables.find_tables(folder, files, options)


def scan_public(payload: dict[str, Any], path: Path) -> Funnel:
    """Read the span of a payload; items go to ``path``. Counts are in stages ``examples`` and ``questions``."""
    funnel = Funnel()
    write_items(_items(payload, funnel), path)
    return funnel


def _items(payload: dict[str, Any], funnel: Funnel) -> Iterator[Item]:
    examples, questions = funnel.stage("examples", "examples"), funnel.stage("questions", "questions")
    record, split, pictures = SETS[payload["set"]], payload["split"], PictureReader(payload)
    known = {"name": record.name, "split": split, "tolerance": record.tolerance}
    for row in drawn_rows(payload, examples):
        try:
            asked = list(record.read(dict.fromkeys((*record.columns, *record.optional)) | row.load()))
        except RowRejected as error:
            examples.drop(error.reason, {**row.where, "detail": error.detail})
            continue
        examples.keep()
        for number, question in enumerate(asked):
            try:
                if isinstance(question, RowRejected):
                    raise question
                stored = tuple(pictures.stored(value)[0] for value in question.pictures)
            except ImageRejected as error:
                questions.drop(error.reason, {**row.where, "detail": error.detail})
                continue
            questions.keep()
            identity = f"{record.name}:{split}:{row.key}:{number}"
            yield replace(question, pictures=stored, item_id=identity, **known)
