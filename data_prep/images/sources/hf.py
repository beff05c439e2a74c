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
from data_prep.common.pipeline import describe_inputs, fingerprint
from data_prep.images.sources.base import Found, Row, SourceOptions, Span, row_ranges
from data_prep.images.store import one_line

NAME = "hf"
FORM = "hf:NAME of a Hugging Face data set, or a folder that save_to_disk wrote"


def claims(spec: str) -> bool:
    return spec.startswith("hf:") or _is_saved(Path(spec))


def find(spec: str, options: SourceOptions) -> Found:
    """Raises ConfigError when there is no such data set or split."""
    from datasets import Image

    name = spec.removeprefix("hf:")
    saved = _is_saved(Path(name))
    try:
        data, split = _load(name, options.subset, options.split, saved)
        columns = tuple(data.column_names or next(iter(data), {}))
    except (ConfigError, ImportError):
        raise
    except Exception as error:  # the libraries below raise whatever the network and the files bring them to
        raise ConfigError(
            f"{spec}: cannot be loaded ({one_line(error)}). Fix: correct the name, the subset or the split; without a "
            "network, save it with save_to_disk elsewhere and give the folder."
        ) from None
    # A column may hold a list of pictures.
    inner = {name: getattr(kind, "feature", kind) for name, kind in (data.features or {}).items()}
    folder = Path(name).resolve() if Path(name).is_dir() else None
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder else []
    at = {"name": name, "subset": options.subset, "split": split, "saved": saved}
    at["inputs"] = fingerprint(describe_inputs(files))
    keys = None
    if saved:
        count = len(data)
        spans = [{**at, **part} for part in row_ranges(count, options)]
        keys = lambda: (f"{split}:{index}" for index in range(count))  # noqa: E731
    elif options.limit:
        # A stream is read from its start, and not on; how long it is may not be known.
        known = getattr((data.info.splits or {}).get(split), "num_examples", None) or options.limit
        left_out = max(0, known - options.limit)
        spans = [{**at, "shards": list(range(data.num_shards)), "take": options.limit, "left_out": left_out}]
    else:
        spans = [{**at, "shards": [shard], "take": None} for shard in range(data.num_shards)]
    return Found(
        name=folder.name if folder else name,
        columns=columns,
        spans=spans,
        keys=keys,
        root=str(folder) if folder else None,
        pictures=tuple(name for name, kind in inner.items() if isinstance(kind, Image)),
    )


def rows(span: Span) -> Iterator[Row]:
    data, split = _load(span["name"], span["subset"], span["split"], span["saved"])
    names = {name: kind.names for name, kind in (data.features or {}).items() if hasattr(kind, "int2str")}
    if data.column_names:
        data = data.select_columns([name for name in span["columns"] if name in data.column_names])
    if span["saved"]:
        # As Arrow, pictures stay encoded.
        data = data.with_format("arrow")
        for index in range(span["start"], span["stop"]):
            load = lambda index=index: data[index].to_pylist()[0]  # noqa: E731
            yield Row(f"{split}:{index}", {"split": split, "row": index}, partial(_named, load, names))
        return
    data = data.decode(False)
    found = ((shard, *row) for shard in span["shards"] for row in enumerate(data.shard(data.num_shards, shard)))
    for shard, index, row in islice(found, span["take"]):
        where = {"split": split, "shard": shard, "row": index}
        yield Row(f"{split}:{shard}:{index}", where, partial(_named, row.copy, names))


def _load(name: str, subset: str, split: str, saved: bool) -> tuple[Any, str]:
    """The data set of one split, and the split's name."""
    import datasets

    data = datasets.load_from_disk(name) if saved else datasets.load_dataset(name, subset or None, streaming=True)
    there = data if isinstance(data, dict) else {str(data.split or split or "train"): data}
    chosen = split or ("train" if "train" in there or len(there) > 1 else next(iter(there)))
    if chosen not in there:
        raise ConfigError(f"{name}: there is no split {chosen!r}. Fix: one of {sorted(there)}, --set source.split=...")
    return there[chosen], chosen


def _is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def _named(load: Any, names: dict[str, list[str]]) -> dict[str, Any]:
    """A row with the names of classes in place of their numbers."""
    row = load()
    for name, classes in names.items():
        if isinstance(row.get(name), int) and 0 <= row[name] < len(classes):
            row[name] = classes[row[name]]
    return row
