"""A Hugging Face data set, saved on disk or by name. Nothing of it is executed, and PIL does not decode for it.

By name it is streamed, file by file; ``datasets`` runs no code of a data set (4.0 and later cannot).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from contextrl_verl.errors import ConfigError
from data_prep.common.pipeline import describe_inputs
from data_prep.images.sources.base import Found, Lost, Row, RowRejected, SourceOptions, Span, one_line, row_ranges

NAME = "hf"
FORM = "hf:NAME of a Hugging Face data set, or a folder that save_to_disk wrote"


def claims(spec: str) -> bool:
    return spec.startswith("hf:") or _is_saved(Path(spec))


def find(spec: str, options: SourceOptions) -> Found:
    """Raises ConfigError when there is no such data set or split."""
    name = spec.removeprefix("hf:")
    saved = _is_saved(Path(name))
    if saved and options.subset:
        raise ConfigError(f"{spec}: a saved data set has no subset {options.subset!r}. Fix: leave subset out.")
    try:
        data, split = _load(name, options.subset, options.split, saved)
        columns, pictures = tuple(data.column_names or next(iter(data), {})), _picture_columns(data.features)
    except (ConfigError, ImportError):
        raise
    except Exception as error:  # the libraries below raise whatever the network and the files bring them to
        raise ConfigError(
            f"{spec}: cannot be loaded ({type(error).__name__}: {one_line(error)}). Fix: correct the name, the subset "
            "or the split; without a network, save it with save_to_disk elsewhere and give the folder."
        ) from None
    at = {"name": name, "subset": options.subset, "split": split, "saved": saved}
    local = Path(name).resolve() if Path(name).is_dir() else None
    found = {
        "name": name.rstrip("/").rpartition("/")[2] if local else name,
        "columns": columns,
        "pictures": pictures,
        "root": options.root or (str(local) if local else None),
        "inputs": [split, describe_inputs(sorted(p for p in local.rglob("*") if p.is_file())) if local else name],
    }
    if saved:
        count = len(data)
        keys = lambda: (f"{split}:{index}" for index in range(count))  # noqa: E731
        return Found(spans=[{**at, **part} for part in row_ranges(count, options)], keys=keys, **found)
    if options.limit:
        known = getattr((data.info.splits or {}).get(split), "num_examples", None)
        spans = [{**at, "shards": list(range(data.num_shards)), "take": options.limit, "of": known}]
    else:
        spans = [{**at, "shards": [shard], "take": None, "of": None} for shard in range(data.num_shards)]
    return Found(spans=spans, keys=None, **found)


def rows(span: Span) -> Iterator[Row | Lost]:
    data, split = _load(span["name"], span["subset"], span["split"], span["saved"])
    names = {name: kind.names for name, kind in (data.features or {}).items() if hasattr(kind, "int2str")}
    root = Path(span["name"]).resolve() if Path(span["name"]).is_dir() else None
    if data.column_names:
        data = data.select_columns([name for name in span["columns"] if name in data.column_names])
    if span["saved"]:
        # As Arrow, pictures stay encoded.
        data = data.with_format("arrow")
        for index in range(span["start"], span["stop"]):
            load = lambda index=index: data[index].to_pylist()[0]  # noqa: E731
            yield Row(f"{split}:{index}", {"split": split, "row": index}, partial(_row, load, names, root))
        return
    data, given = data.decode(False), 0
    for shard in span["shards"]:
        part = data.shard(num_shards=data.num_shards, index=shard)
        for index, row in enumerate(islice(part, None if span["take"] is None else span["take"] - given)):
            where = {"split": split, "shard": shard, "row": index}
            yield Row(f"{split}:{shard}:{index}", where, partial(_row, partial(dict, row), names, root))
            given += 1
        if given == span["take"]:
            rest = max(0, span["of"] - given) if span["of"] else 0
            yield Lost(rest, "left out by the limit", "a stream is read from its start" + ("" if rest else ", not on"))
            return


def _load(name: str, subset: str, split: str, saved: bool) -> tuple[Any, str]:
    """The data set of one split, and the split's name."""
    import datasets

    if saved:
        data = datasets.load_from_disk(name)
    else:
        data = datasets.load_dataset(name, subset or None, streaming=True)
    if not isinstance(data, dict):
        there = str(data.split) if data.split is not None else split or "train"
        if split and split != there:
            raise ConfigError(f"{name}: there is no split {split!r}. Fix: leave it out, this is one split.")
        return data, there
    if not split and len(data) > 1 and "train" not in data:
        raise ConfigError(f"{name}: which split? There are {sorted(data)}. Fix: choose one with split.")
    chosen = split or ("train" if "train" in data else next(iter(data)))
    if chosen not in data:
        raise ConfigError(f"{name}: there is no split {chosen!r}. Fix: one of {sorted(data)}.")
    return data[chosen], chosen


def _is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def _picture_columns(features: Any) -> tuple[str, ...]:
    """Columns that hold a picture, or a list of some."""
    from datasets import Image

    inner = {name: getattr(kind, "feature", kind) for name, kind in (features or {}).items()}
    return tuple(name for name, kind in inner.items() if isinstance(kind, Image))


def _row(load: Any, names: dict[str, list[str]], root: Path | None) -> dict[str, Any]:
    try:
        row = load()
    except Exception as error:  # Arrow and datasets raise whatever a damaged file brings them to
        raise RowRejected("unreadable row", f"{type(error).__name__}: {one_line(error)}") from None
    for name, classes in names.items():
        if isinstance(row.get(name), int) and 0 <= row[name] < len(classes):
            row[name] = classes[row[name]]
    return {name: _relative(value, root) for name, value in row.items()}


def _relative(value: Any, root: Path | None) -> Any:
    """The picture of a folder that ``datasets`` read comes with its whole path; ours start from the folder."""
    if isinstance(value, list):
        return [_relative(one, root) for one in value]
    if root is None or not isinstance(value, dict) or value.get("bytes") is not None:
        return value
    path = value.get("path")
    if isinstance(path, str) and Path(path).is_relative_to(root):
        return {**value, "path": str(Path(path).relative_to(root))}
    return value
