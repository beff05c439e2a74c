"""Where the rows of a set lie: on the Hub, in a folder that save_to_disk wrote, or in files as the Hub has them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from contextrl_verl.errors import ConfigError
from data_prep.images.sources import hf, tables
from data_prep.images.sources.base import Found, SourceOptions
from data_prep.tasks.public.record import PublicSet

_ALONE = "state.json"
_SEVERAL = "dataset_dict.json"
_SPLITS = ("train", "validation", "val", "dev", "test", "qa_tuning", "alignment")


def locate(record: PublicSet, path: str, split: str, own_validation: bool, options: SourceOptions) -> dict[str, Found]:
    """``{"train": rows, "validation": rows}``, the latter only where it is asked for and the set has it there.

    Args:
        path: a file, or a folder; ``""``: the Hub.
        split: of the set that is read for training.
        own_validation: whether the set's own split for validation is wanted.

    Raises:
        ConfigError: nothing there, no such split, or columns that are missing.
    """
    place = _hub if not path else _path
    found = {"train": place(record, path, split, options)}
    if own_validation and record.validation and record.validation != split and _has(record, path):
        found["validation"] = place(record, path, record.validation, options)
    for rows in found.values():
        missing = sorted(set(record.columns) - set(rows.columns))
        if missing:
            raise ConfigError(
                f"{path or record.hub} has no column {missing[0]!r}, which {record.name} needs; it has "
                f"{sorted(rows.columns)}. Fix: give the files of {record.hub}, or read yours with contextrl tasks vqa."
            )
    return found


def _download(record: PublicSet) -> str:
    only = f' --include "{record.subset}/*"' if record.subset else ""
    unpack = "; unpack its pictures there" if not record.streamed else ""
    return f"`hf download {record.hub} --repo-type dataset --local-dir DIR{only}`{unpack}, and give --path DIR"


def _hub(record: PublicSet, path: str, split: str, options: SourceOptions) -> Found:
    if not record.streamed:
        raise ConfigError(f"{record.name} cannot be read from the Hub row by row. Fix: run {_download(record)}.")
    chosen = options.model_copy(update={"split": split, "subset": record.subset})
    try:
        return hf.find(f"hf:{record.hub}", chosen)
    except ConfigError as error:
        why = str(error).partition(". Fix:")[0]
        if "cannot be loaded" not in why:
            raise
        raise ConfigError(
            f"{record.name} cannot be read from the Hugging Face Hub ({why}). Fix: where there is a network run "
            f"{_download(record)}."
        ) from None


def _path(record: PublicSet, path: str, split: str, options: SourceOptions) -> Found:
    folder = Path(path)
    if not folder.exists():
        raise ConfigError(f"--path is {path}, and nothing is there. Fix: run {_download(record)}.")
    if (folder / _ALONE).is_file():
        return hf.find(path, options)
    if (folder / _SEVERAL).is_file():
        if split not in _saved_splits(folder):
            raise ConfigError(f"{path} has no split {split!r}. Fix: --split with one of {_saved_splits(folder)}.")
        return hf.find(path, options.model_copy(update={"split": split}))
    files = _files(record, folder, split)
    if not files:
        there = sorted({name for file in _tables(folder) for name in _named(file, folder)})
        other = f"; it has files of {there}, see --split" if there else ""
        raise ConfigError(f"{path} holds no table of the split {split!r}{other}. Fix: run {_download(record)}.")
    return tables.find_tables(folder, files, options)


def _has(record: PublicSet, path: str) -> bool:
    """Whether there is a split for validation of its own; files that name no split are all for training."""
    if not path:
        return True
    folder = Path(path)
    if (folder / _SEVERAL).is_file():
        return record.validation in _saved_splits(folder)
    return not (folder / _ALONE).is_file() and any(
        record.validation in _named(file, folder) for file in _files(record, folder, record.validation)
    )


def _saved_splits(folder: Path) -> list[str]:
    return list(json.loads((folder / _SEVERAL).read_text(encoding="utf-8"))["splits"])


def _tables(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and tables.is_table(path))
    return [path for path in files if not any(part[0] == "." for part in path.relative_to(folder).parts)]


def _files(record: PublicSet, folder: Path, split: str) -> list[Path]:
    files = _tables(folder)
    # The Hub keeps each subset in a folder of its name.
    files = [file for file in files if record.subset in file.relative_to(folder).parts] or files
    if folder.is_file() or not any(_named(file, folder) for file in files):
        return files if split == record.train or folder.is_file() else []
    return [file for file in files if split in _named(file, folder)]


def _named(file: Path, folder: Path) -> set[str]:
    """Splits that a file's name, or a folder above it, says: ``data/train-00000-of-00002.parquet``."""
    if folder == file:
        return set()
    parts = [*file.relative_to(folder).parts[:-1], file.stem]
    return {name for part in parts for name in _SPLITS if re.search(rf"(?<![a-z]){name}(?![a-z])", part.lower())}
