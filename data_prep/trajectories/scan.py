"""First pass: every record of the source becomes a light record or a counted drop, piece of a file by piece.

The runs themselves are stored with their light records, compressed, a few to a row group, so that no later step reads,
unpacks or replays anything of the source again.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.common.funnel import Funnel, Stage
from data_prep.trajectories.edited_symbols import PatchError, touched
from data_prep.trajectories.readers import Location, Rejected, check_format, load_task_patches, parse_record
from data_prep.trajectories.readers.files import Span, file_spans, list_files, span_records
from data_prep.trajectories.run import AgentRun
from data_prep.trajectories.run_summary import Light, added_lines, issue_words

PART_BYTES = 32 << 20
# Of the runs that are read together with a wanted one.
_RUNS_PER_GROUP = 16
_LIGHT = [
    ("run_id", pa.string()),
    ("instance_id", pa.string()),
    ("repository", pa.string()),
    ("commit", pa.string()),
    ("places", pa.list_(pa.list_(pa.string()))),
    ("word_ids", pa.list_(pa.int64())),
    ("word_counts", pa.list_(pa.float32())),
    ("added", pa.list_(pa.int64())),
]
SCHEMA = pa.schema([*_LIGHT, ("run", pa.large_string())])


def plan_scan(source: str | Path, options: dict[str, Any], part_bytes: int = PART_BYTES) -> list[dict[str, Any]]:
    """Payloads for :func:`scan_part`: plain files of lines by byte ranges, tables by row groups, others whole."""
    check_format(options["format"])
    parts: list[list[tuple[str, Span]]] = []
    small: list[tuple[str, Span]] = []
    held = 0
    for path, name in list_files(source):
        spans = [(str(path), span) for span in file_spans(path, name, part_bytes)]
        if len(spans) > 1 or path.stat().st_size >= part_bytes:
            parts += [[span] for span in spans]
            continue
        small += spans
        held += path.stat().st_size
        if held >= part_bytes or len(small) >= 256:
            parts.append(small)
            small, held = [], 0
    return [{**options, "spans": part} for part in [*parts, small] if part]


def scan_part(payload: dict[str, Any], path: Path) -> Funnel:
    """Read the spans of a payload and write light records with their runs as Parquet."""
    funnel = Funnel()
    read, patch = funnel.stage("read"), funnel.stage("patch")
    tasks = load_task_patches(payload["tasks"]) if payload["tasks"] else None

    def rows() -> Iterator[dict[str, Any]]:
        for file, span in payload["spans"]:
            for raw in span_records(Path(file), Span(*span), payload["max_record_bytes"]):
                found = parse_record(raw, payload["format"], tasks=tasks, replay=payload["replay"])
                if isinstance(found, Rejected):
                    read.drop(found.reason, {**raw.location._asdict(), "detail": found.detail})
                    continue
                read.keep()
                row = _light_row(found, raw.location, patch, payload["outcome"])
                if row is not None:
                    yield row

    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        held: list[dict[str, Any]] = []
        for row in rows():
            held.append(row)
            if len(held) == _RUNS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(held, SCHEMA))
                held = []
        writer.write_table(pa.Table.from_pylist(held, SCHEMA))
    return funnel


def _light_row(run: AgentRun, location: Location, stage: Stage, outcome: str) -> dict[str, Any] | None:
    sample = {"run": run.run_id, **location._asdict()}
    if outcome not in ("any", run.outcome):
        stage.drop(f"outcome is {run.outcome}", sample)
        return None
    try:
        places = touched(run.patch, run)
    except PatchError as error:
        stage.drop(error.reason, sample)
        return None
    if not places:
        stage.drop("edits no code", sample)
        return None
    stage.keep()
    ids, counts = issue_words(run.issue)
    return {
        "run_id": run.run_id,
        "instance_id": run.instance_id,
        "repository": run.repository,
        "commit": run.commit,
        "places": sorted({(place.file, place.symbol, place.kind, place.how) for place in places}),
        "word_ids": ids,
        "word_counts": counts,
        "added": sorted(added_lines(run.patch)),
        "run": run.model_dump_json(),
    }


def load_lights(paths: list[Path], funnel: Funnel) -> list[Light]:
    """The light records of all parts in order; the same run twice is kept once."""
    stage = funnel.stage("distinct")
    seen: set[str] = set()
    lights: list[Light] = []
    for path in paths:
        number = -1
        for batch in pq.ParquetFile(path).iter_batches(batch_size=2048, columns=[name for name, _ in _LIGHT]):
            for row in batch.to_pylist():
                number += 1
                if row["run_id"] in seen:
                    stage.drop("the same run again", {"run": row["run_id"]})
                    continue
                seen.add(row["run_id"])
                stage.keep()
                words = (np.array(row.pop("word_ids"), np.int64), np.array(row.pop("word_counts"), np.float32))
                places = tuple(tuple(place) for place in row.pop("places"))
                added = frozenset(row.pop("added"))
                lights.append(Light(**row, stored=(str(path), number), places=places, words=words, added=added))
    return lights


@lru_cache(maxsize=16)
def stored_run(file: str, row: int) -> AgentRun:
    """The run that :func:`scan_part` stored in a row of a file; the last ones are kept, for neighbours share them."""
    group, index = divmod(row, _RUNS_PER_GROUP)
    return AgentRun.model_validate_json(_texts(file, group)[index])


@lru_cache(maxsize=2)
def _texts(file: str, group: int) -> list[str]:
    return _opened(file).read_row_group(group, columns=["run"]).column(0).to_pylist()


@lru_cache(maxsize=4)
def _opened(file: str) -> pq.ParquetFile:
    return pq.ParquetFile(file)
