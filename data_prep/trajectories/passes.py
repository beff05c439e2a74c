"""The first pass over runs, in parts: a light record or a counted drop of every record of the source.

The runs themselves are stored with them, compressed, a few to a row group, so that no later step reads, unpacks or
replays anything of the source again.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.common.funnel import Funnel
from data_prep.trajectories import overlap
from data_prep.trajectories.answer import HUNKS, Hunk, common_hunks, hunks_of, shown
from data_prep.trajectories.edited_symbols import PatchError
from data_prep.trajectories.masking import unmaskable
from data_prep.trajectories.readers import check_format, load_task_patches, parse_record
from data_prep.trajectories.readers.files import Span, file_spans, list_files, span_records
from data_prep.trajectories.readers.records import Rejected
from data_prep.trajectories.run import AgentRun

PART_BYTES = 32 << 20
_FILES_PER_PART = 256
# Of the runs that are read together with a wanted one.
_RUNS_PER_GROUP = 16
_NAMES = ("run_id", "instance_id", "repository", "commit")
_LIGHT = {
    **dict.fromkeys(_NAMES, pa.string()),
    "hunks": HUNKS,
    "word_ids": pa.list_(pa.int64()),
    "word_counts": pa.list_(pa.float32()),
}
_KEYS = ["instance_id", "hunks.list.element.key", "hunks.list.element.scratch"]
SCHEMA = pa.schema({**_LIGHT, **overlap.FIELDS, "run": pa.large_string()})

_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]{2,}")
_NUMBER = re.compile(r"(\d+)$")
_MOST_WORDS = 400


@dataclass(frozen=True)
class Light:
    """What the cascade needs to know of a run: a few hundred bytes, so that a hundred thousand runs fit in memory.

    ``stored`` is what :func:`stored_run` takes, ``places`` are (file, symbol, kind) as in ``edited_symbols.Place``;
    ``words`` are what :func:`issue_words` gives, ``added`` digests of added lines; ``left_out`` are keys of hunks that
    are no answer, and places and added lines are without them.
    """

    run_id: str
    instance_id: str
    repository: str
    commit: str
    stored: tuple[str, int]
    places: tuple[tuple[str, str, str], ...]
    words: tuple[np.ndarray, np.ndarray]
    added: frozenset[int]
    left_out: tuple[int, ...] = ()

    @property
    def number(self) -> int | None:
        """The number an instance id ends in: of a pull request, so it grows with time."""
        found = _NUMBER.search(self.instance_id)
        return int(found.group(1)) if found else None

    @property
    def files(self) -> set[str]:
        """The files that the patch edits."""
        return {file for file, *_ in self.places}


def digest32(text: str) -> int:
    """A stable 32-bit digest."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")


def issue_words(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids (int64, ascending) and counts (float32) of the most frequent words of an issue, lower case, identifiers whole
    and by their parts."""
    counts: Counter[str] = Counter()
    for word in _WORD.findall(text.lower()):
        parts = [part for part in word.split("_") if len(part) > 2]
        counts.update([word, *(parts if len(parts) > 1 else ())])
    merged: Counter[int] = Counter()
    for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST_WORDS]:
        merged[digest32(word)] += count
    ids = np.array(sorted(merged), dtype=np.int64)
    return ids, np.array([merged[int(word)] for word in ids], dtype=np.float32)


def plan_scan(source: str | Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Payloads for :func:`scan_part`: pieces of large files, several small files together."""
    check_format(settings["format"])
    parts: list[list[tuple[str, Span]]] = [[]]
    held = 0
    for path, name in list_files(source):
        size = min(path.stat().st_size, PART_BYTES)
        for span in file_spans(path, name, PART_BYTES):
            if held + size > PART_BYTES or len(parts[-1]) == _FILES_PER_PART:
                parts.append([])
                held = 0
            parts[-1].append((str(path), span))
            held += size
    return [{"spans": part, **settings} for part in parts]


def scan_part(payload: dict[str, Any], path: Path) -> Funnel:
    """Read the spans of a payload and write light records with their runs as Parquet."""
    funnel = Funnel()
    rows = _light_rows(payload, funnel)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        while held := list(islice(rows, _RUNS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(held, SCHEMA))
    return funnel


def _light_rows(payload: dict[str, Any], funnel: Funnel) -> Iterator[dict[str, Any]]:
    read, patch = funnel.stage("read"), funnel.stage("patch")
    tasks = load_task_patches(payload["tasks"]) if payload["tasks"] else None
    for file, span in payload["spans"]:
        for raw in span_records(Path(file), Span(*span), payload["max_record_bytes"]):
            where, stage = raw.location._asdict(), read
            try:
                run = parse_record(raw, payload["format"], tasks=tasks, replay=payload["replay"])
                if isinstance(run, Rejected):
                    read.drop(run.reason, {**where, "detail": run.detail})
                    continue
                read.keep()
                stage, where = patch, {"run": run.run_id, **where}
                row = _light_row(run, payload["outcome"], (tasks or {}).get(run.instance_id, ""))
            except PatchError as error:
                patch.drop(error.args[0], where)
            except Exception as error:
                stage.fail(error, where)
            else:
                patch.keep()
                yield row


def _light_row(run: AgentRun, outcome: str, reference: str) -> dict[str, Any]:
    """Raises PatchError: the run is not wanted."""
    if outcome not in ("any", run.outcome):
        raise PatchError(f"outcome is {run.outcome}")
    hunks = hunks_of(run, reference)
    if not any(hunk.places for hunk in hunks):
        raise PatchError("edits no code")
    if reason := unmaskable(run):
        raise PatchError(reason)
    ids, counts = issue_words(run.issue)
    return {
        **{name: getattr(run, name) for name in _NAMES},
        "hunks": [hunk.to_row() for hunk in hunks],
        "word_ids": ids,
        "word_counts": counts,
        **overlap.keys(run, shown(run.patch)),
        "run": run.model_dump_json(),
    }


def load_lights(paths: list[Path], funnel: Funnel) -> list[Light]:
    """The light records of all parts in order; the same run twice is kept once, and hunks that several instances share
    are in none."""
    distinct, answer = funnel.stage("distinct"), funnel.stage("answer")
    keys = (
        (row["instance_id"], {hunk["key"] for hunk in row["hunks"] if not hunk["scratch"]})
        for _, row in _rows(paths, _KEYS)
    )
    common, lights = common_hunks(keys), {}
    for stored, row in _rows(paths, list(_LIGHT)):
        if row["run_id"] in lights:
            distinct.drop("the same run again", {"run": row["run_id"]})
            continue
        distinct.keep()
        hunks, words = map(Hunk.of_row, row.pop("hunks")), (row.pop("word_ids"), row.pop("word_counts"))
        sides: dict[bool, list[Hunk]] = {True: [], False: []}
        for hunk in hunks:
            sides[hunk.scratch or hunk.key in common].append(hunk)
        lights[row["run_id"]] = light = Light(
            **row,
            stored=stored,
            places=tuple(sorted({place for hunk in sides[False] for place in hunk.places})),
            words=(np.array(words[0], np.int64), np.array(words[1], np.float32)),
            added=frozenset(line for hunk in sides[False] for line in hunk.added),
            left_out=tuple(sorted({hunk.key for hunk in sides[True]})),
        )
        if light.places:
            answer.keep()
        else:
            answer.drop("edits only what several instances edit alike", {"run": light.run_id})
    return [light for light in lights.values() if light.places]


def _rows(paths: list[Path], columns: list[str]) -> Iterator[tuple[tuple[str, int], dict[str, Any]]]:
    """Every row with its file and number."""
    for path in paths:
        batches = pq.ParquetFile(path).iter_batches(batch_size=2048, columns=columns)
        for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
            yield (str(path), number), row


def stored_run(file: str, row: int) -> AgentRun:
    """The run that :func:`scan_part` stored in a row of a file."""
    group, index = divmod(row, _RUNS_PER_GROUP)
    return AgentRun.model_validate_json(_texts(file, group)[index])


@lru_cache(maxsize=4)
def _texts(file: str, group: int) -> list[str]:
    """The last groups are kept, for neighbours share them."""
    return pq.ParquetFile(file).read_row_group(group, columns=["run"]).column(0).to_pylist()
