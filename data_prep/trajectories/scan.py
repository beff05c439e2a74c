"""First pass: every record of the source becomes a light record or a counted drop, file range by file range."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.common.funnel import Funnel, Stage
from data_prep.trajectories.edited_symbols import PatchError, touched
from data_prep.trajectories.readers import load_task_patches, parse_record
from data_prep.trajectories.readers.files import file_records, list_files, resolve
from data_prep.trajectories.readers.types import Location, RawRecord, Rejected
from data_prep.trajectories.run import AgentRun
from data_prep.trajectories.run_summary import Light, added_lines, issue_words

PART_BYTES = 32 << 20
_BLOCK = 1 << 22

SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("instance_id", pa.string()),
        ("repository", pa.string()),
        ("commit", pa.string()),
        ("location", pa.string()),
        ("places", pa.list_(pa.list_(pa.string()))),
        ("chars", pa.int64()),
        ("word_ids", pa.list_(pa.int64())),
        ("word_counts", pa.list_(pa.float32())),
        ("added", pa.list_(pa.int64())),
        ("issue", pa.string()),
    ]
)


def plan_scan(source: str | Path, options: dict[str, Any], part_bytes: int = PART_BYTES) -> list[dict[str, Any]]:
    """Payloads for :func:`scan_part`: plain files of lines by byte ranges, tables by row groups, others whole."""
    parts: list[dict[str, Any]] = []
    small: list[dict[str, Any]] = []
    held = 0
    for path, name in list_files(source):
        spans = list(_spans(path, name, part_bytes))
        if len(spans) > 1 or path.stat().st_size >= part_bytes:
            parts += [{"spans": [span]} for span in spans]
            continue
        small += spans
        held += path.stat().st_size
        if held >= part_bytes or len(small) >= 256:
            parts.append({"spans": small})
            small, held = [], 0
    if small:
        parts.append({"spans": small})
    return [{"source": str(source), **options, **part} for part in parts]


def _spans(path: Path, name: str, part_bytes: int) -> Iterator[dict[str, Any]]:
    first = next(iter(file_records(path, name, limit=1 << 20)), None)
    at = first.location if first is not None else Location(name, "lines", "none", 0, 0)
    if at.layout == "parquet" and not isinstance(first.data if first else None, Rejected):
        groups = pq.ParquetFile(path).metadata
        start, size = 0, 0
        for group in range(groups.num_row_groups):
            size += groups.row_group(group).total_byte_size
            if size >= part_bytes and group + 1 < groups.num_row_groups:
                yield {"file": name, "first": [name, "parquet", "none", 0, start], "stop": group + 1}
                start, size = group + 1, 0
        yield {"file": name, "first": [name, "parquet", "none", 0, start], "stop": None}
    elif at.layout == "lines" and at.compression == "none" and path.stat().st_size > part_bytes:
        yield from _line_spans(path, name, part_bytes)
    else:
        yield {"file": name, "first": None, "stop": None}


def _line_spans(path: Path, name: str, part_bytes: int) -> Iterator[dict[str, Any]]:
    """Cut at the first line that starts at or after every multiple of ``part_bytes``; counts lines on the way."""
    start = [name, "lines", "none", 0, 0]
    line = offset = 0
    target = part_bytes
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            while target <= offset + len(block):
                end = block.find(b"\n", max(0, target - 1 - offset))
                if end < 0:
                    break
                cut = offset + end + 1
                yield {"file": name, "first": start, "stop": cut}
                start = [name, "lines", "none", line + block.count(b"\n", 0, end + 1), cut]
                target = (cut // part_bytes + 1) * part_bytes
            line += block.count(b"\n")
            offset += len(block)
    if offset > start[4]:
        yield {"file": name, "first": start, "stop": None}


def span_records(source: str, span: dict[str, Any], limit: int) -> Iterator[RawRecord]:
    """The raw records of one span."""
    first = Location(*span["first"]) if span["first"] else None
    for raw in file_records(resolve(source, span["file"]), span["file"], limit, first=first):
        if span["stop"] is not None and raw.location.offset >= span["stop"]:
            return
        yield raw


def scan_part(payload: dict[str, Any], path: Path) -> Funnel:
    """Read the spans of a payload and write light records as Parquet."""
    funnel = Funnel()
    read, patch = funnel.stage("read"), funnel.stage("patch")
    tasks = load_task_patches(payload["tasks"]) if payload["tasks"] else None
    rows: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for span in payload["spans"]:
            for raw in span_records(payload["source"], span, payload["max_record_bytes"]):
                found = parse_record(raw, payload["format"], tasks=tasks, replay=payload["replay"])
                if isinstance(found, Rejected):
                    where = {"file": raw.location.file, "record": raw.location.record, "detail": found.detail}
                    read.drop(found.reason, where)
                    continue
                read.keep()
                row = _light_row(found, raw.location, patch, payload)
                if row is not None:
                    rows.append(row)
                if len(rows) >= 512:
                    writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
                    rows = []
        writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    return funnel


def _light_row(run: AgentRun, location: Location, stage: Stage, payload: dict[str, Any]) -> dict[str, Any] | None:
    outcome = payload["outcome"]
    sample = {"run": run.run_id, "file": location.file, "record": location.record}
    if outcome != "any" and run.outcome != outcome:
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
        "location": json.dumps(location),
        "places": sorted({(place.file, place.symbol, place.kind, place.how) for place in places}),
        "chars": sum(len(message.content) for message in run.messages),
        "word_ids": ids,
        "word_counts": counts,
        "added": sorted(added_lines(run.patch)),
        # Only for those who embed it: it is the one long text of the record.
        "issue": run.issue.encode("utf-8", "replace").decode("utf-8") if payload["keep_issue"] else "",
    }


def load_lights(paths: list[Path], funnel: Funnel) -> list[Light]:
    """The light records of all parts in order; the same run twice is kept once."""
    stage = funnel.stage("distinct")
    seen: set[str] = set()
    lights: list[Light] = []
    for path in paths:
        columns = [name for name in SCHEMA.names if name != "issue"]
        for batch in pq.ParquetFile(path).iter_batches(batch_size=2048, columns=columns):
            for row in batch.to_pylist():
                if row["run_id"] in seen:
                    stage.drop("the same run again", {"run": row["run_id"], "location": row["location"]})
                    continue
                seen.add(row["run_id"])
                stage.keep()
                words = (np.array(row.pop("word_ids"), np.int64), np.array(row.pop("word_counts"), np.float32))
                places = tuple(tuple(place) for place in row.pop("places"))
                added = frozenset(row.pop("added"))
                lights.append(Light(**row, places=places, words=words, added=added))
    return lights
