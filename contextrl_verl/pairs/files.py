"""Reading and writing files of contrastive pairs: Parquet (explicit schema) or JSONL.

Nothing here loads a whole file: writing is streamed into row groups of bounded size, and
:class:`PairFile` gives random access by reading the one row group that holds a pair.
"""

from __future__ import annotations

import bisect
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contextrl_verl import __version__
from contextrl_verl.pairs import ARROW_SCHEMA, ContrastivePair, PairFormatError, parse_pair
from contextrl_verl.pairs.whole_file import whole_file

# Small groups keep random access cheap: one pair of 32k-token runs is some 250 kB.
_ROWS_PER_GROUP = 64
_GROUP_BYTES = 16 << 20


def write_pairs(pairs: Iterable[ContrastivePair], path: str | os.PathLike[str]) -> int:
    """Write pairs to ``.parquet`` or ``.jsonl``, atomically; returns their number.

    Raises:
        PairFormatError: a pair_id occurs twice, or the file ending is neither of the two.
    """
    path = Path(path)
    if path.suffix not in (".parquet", ".jsonl"):
        raise PairFormatError(f"{path}: pairs are written as .parquet or .jsonl. Fix: change the file's ending.")
    write = _write_parquet if path.suffix == ".parquet" else _write_jsonl
    with whole_file(path) as scratch:
        return write(_distinct(pairs, path), scratch)


def _distinct(pairs: Iterable[ContrastivePair], path: Path) -> Iterator[ContrastivePair]:
    seen: set[str] = set()
    for number, pair in enumerate(pairs):
        if pair.pair_id in seen:
            raise PairFormatError(
                f"{path}: row {number}: field 'pair_id' has value {pair.pair_id!r} for the second time. "
                "Fix: give every pair its own id."
            )
        seen.add(pair.pair_id)
        yield pair


def _write_parquet(pairs: Iterator[ContrastivePair], path: Path) -> int:
    schema = ARROW_SCHEMA.with_metadata(
        {**ARROW_SCHEMA.metadata, b"created_by": f"contextrl-verl {__version__}".encode()}
    )
    count, size = 0, 0
    group: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for pair in chain(pairs, [None]):
            if group and (pair is None or len(group) == _ROWS_PER_GROUP or size >= _GROUP_BYTES):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                count += len(group)
                group, size = [], 0
            if pair is not None:
                group.append(pair.to_row())
                for context in pair.contexts:
                    size += len(context.text or "") + sum(len(turn.content) for turn in context.messages or ())
                    size += sum(len(image.bytes or b"") for image in context.images or ())
    return count


def _write_jsonl(pairs: Iterator[ContrastivePair], path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as stream:
        for count, pair in enumerate(pairs, 1):  # noqa: B007
            stream.write(pair.model_dump_json() + "\n")
    return count


def inside(folder: Path, path: str | os.PathLike[str]) -> Path | None:
    """Where a path that starts at the folder really leads, links followed; None if that is outside it.

    Raises OSError, ValueError or RuntimeError for what no file system can follow.
    """
    folder = folder.resolve()
    full = (folder / path).resolve()
    return full if full.is_relative_to(folder) else None


class PairFile:
    """Random access to one file of pairs without holding it in memory.

    It is ``.parquet`` with the columns of :data:`contextrl_verl.pairs.schema.ARROW_SCHEMA`, or ``.jsonl`` with one
    record a line (image bytes in base64). Paths of images start at its folder and must stay inside.

    Raises:
        PairFormatError: the file is missing, empty, or lacks columns.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if "://" in str(path):
            raise PairFormatError(f"{path}: pairs are read from local files. Fix: copy it to a local path.")
        if not self.path.is_file():
            raise PairFormatError(f"{self.path}: there is no such file of contrastive pairs. Fix: correct the path.")
        if self.path.suffix not in (".parquet", ".jsonl"):
            raise PairFormatError(f"{self.path}: pairs are read from .parquet or .jsonl. Fix: convert the file.")
        self._source = _Parquet(self.path) if self.path.suffix == ".parquet" else _Jsonl(self.path)
        if not len(self):
            raise PairFormatError(f"{self.path}: the file holds zero pairs. Fix: point to a file with pairs.")

    def __len__(self) -> int:
        return self._source.rows

    def __getitem__(self, row: int) -> ContrastivePair:
        if not 0 <= row < len(self):
            raise IndexError(row)
        where = f"{self.path}: row {row}"
        pair = parse_pair(self._source.read(row), where)
        for context in pair.contexts:
            for image in context.images or ():
                if image.bytes is None:
                    image.path = self._inside(image.path, where)
        return pair

    def _inside(self, path: str, where: str) -> str:
        """An image's path from the file's folder on; a pair file must not make anyone read elsewhere."""
        if (full := inside(self.path.parent, path)) is None:
            raise PairFormatError(
                f"{where}: field 'images.path' has value {path!r}, which leads out of the file's folder "
                f"{self.path.parent.resolve()}. "
                "Fix: keep the images under that folder and name them relative to it, or store their bytes."
            )
        return str(full)

    def __iter__(self) -> Iterator[ContrastivePair]:
        for row in range(len(self)):
            yield self[row]

    def without_images(self) -> Iterator[dict[str, Any]]:
        """Every row's ``pair_id``, ``kind`` of contexts and number of ``options``, never touching image bytes."""
        return self._source.scan()


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: tuple[int, pq.ParquetFile] | None = None
        self._group: tuple[int, pa.Table] | None = None
        try:
            file = self._file()
        except (pa.ArrowException, OSError) as error:
            raise PairFormatError(
                f"{path}: this cannot be read as a Parquet file ({error}). Fix: write it with "
                "contextrl_verl.pairs.files.write_pairs."
            ) from None
        missing = [name for name in ARROW_SCHEMA.names if name not in file.schema_arrow.names]
        if missing:
            raise PairFormatError(
                f"{path}: columns {missing} are missing; found {file.schema_arrow.names}. Fix: write the file with "
                "contextrl_verl.pairs.files.write_pairs; ordinary verl rows belong under data.train_files instead."
            )
        sizes = (file.metadata.row_group(index).num_rows for index in range(file.num_row_groups))
        self._starts = [0, *accumulate(sizes)]
        self.rows = self._starts[-1]

    def _file(self) -> pq.ParquetFile:
        # A data-loader worker must not share the parent's file position.
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), pq.ParquetFile(self._path))
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_group": None}

    def read(self, row: int) -> dict[str, Any]:
        group = bisect.bisect_right(self._starts, row) - 1
        if self._group is None or self._group[0] != group:
            with self._damage_named():
                self._group = (group, self._file().read_row_group(group, columns=ARROW_SCHEMA.names))
        return self._group[1].slice(row - self._starts[group], 1).to_pylist()[0]

    def scan(self) -> Iterator[dict[str, Any]]:
        schema = self._file().schema
        # Writers other than ours name the elements of a list differently.
        inner = (schema.column(index).path for index in range(len(schema)))
        kinds = [path for path in inner if path.startswith(("supporting.", "confounders.")) and path.endswith(".kind")]
        if len(kinds) != 2:
            raise PairFormatError(
                f"{self._path}: the columns 'supporting' and 'confounders' are not contexts (a record with 'kind', "
                "and a list of such). Fix: write the file with contextrl_verl.pairs.files.write_pairs."
            )
        with self._damage_named():
            for batch in self._file().iter_batches(batch_size=4096, columns=["pair_id", *kinds]):
                for row in batch.to_pylist():
                    kind, others = (row["supporting"] or {}).get("kind"), row["confounders"] or ()
                    yield {"pair_id": row["pair_id"], "kind": kind, "options": 1 + len(others)}

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise PairFormatError(
                f"{self._path}: the file is damaged ({error}). Fix: copy or write it again."
            ) from None


class _Jsonl:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets: list[int] = []
        with path.open("rb") as stream:
            offset = 0
            for line in stream:
                if line.strip():
                    self._offsets.append(offset)
                offset += len(line)
        self.rows = len(self._offsets)

    def read(self, row: int) -> Any:
        with self._path.open("rb") as stream:
            stream.seek(self._offsets[row])
            try:
                return json.loads(stream.readline())
            except ValueError as error:
                raise PairFormatError(
                    f"{self._path}: row {row} is not JSON ({error}). Fix: one JSON object a line."
                ) from None

    def scan(self) -> Iterator[dict[str, Any]]:
        for row in range(self.rows):
            pair = parse_pair(self.read(row), f"{self._path}: row {row}")
            yield {"pair_id": pair.pair_id, "kind": pair.supporting.kind, "options": len(pair.contexts)}


class PairCollection:
    """Several files of pairs behind one index; pair ids must be distinct across them."""

    def __init__(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        self.files = [PairFile(path) for path in paths]
        self._rows = [(file, row) for file in self.files for row in range(len(file))]
        self.ids: list[str] = []
        self.options: list[int] = []
        seen: dict[str, Path] = {}
        for file in self.files:
            for row in file.without_images():
                if row["pair_id"] in seen:
                    raise PairFormatError(
                        f"{file.path}: field 'pair_id' has value {row['pair_id']!r}, already used in "
                        f"{seen[row['pair_id']]}. Fix: give every pair its own id, or list each file once."
                    )
                seen[row["pair_id"]] = file.path
                self.ids.append(row["pair_id"])
                self.options.append(row["options"])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> ContrastivePair:
        file, row = self._rows[index]
        return file[row]
