"""The same filter for repair tasks: how often an agent resolved each is in the records of its episodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.whole_file import whole_file
from data_prep.common.funnel import Funnel
from data_prep.report.episode import find_records


def solved_of(folder: Path, funnel: Funnel) -> dict[str, tuple[int, int]]:
    """``{instance id: (resolved, tried)}``; an episode that ended for no fault of the model's is none."""
    stage, found = funnel.stage("episodes", "episodes"), {}
    for path in find_records(folder):
        try:
            record: dict[str, Any] = json.loads(path.read_bytes())
            instance, fault = record["instance_id"], record["contextrl"]["fault"]
        except (ValueError, RecursionError, KeyError, TypeError):
            stage.drop("no record of an episode", {"file": str(path)})
            continue
        if fault != "model":
            stage.drop(f"ended by the {fault}" if fault == "infrastructure" else str(fault), {"file": str(path)})
            continue
        stage.keep()
        solved, tried = found.get(instance, (0, 0))
        found[instance] = (solved + (record.get("resolved") is True), tried + 1)
    return found


def keep_between(rows: Path, episodes: Path, out: Path, shares: tuple[float, float]) -> tuple[int, Funnel]:
    """Write the rows whose instance was resolved in a share of its episodes between the two, both included.

    Raises ConfigError: no records, rows without instances, no row left, or a place where their bases are not found.
    """
    if out.resolve().parent != rows.resolve().parent:
        raise ConfigError(
            f"--out is {out}, and the tasks' own folders are named from the folder of {rows}. Fix: write beside it."
        )
    funnel, (low, high) = Funnel(), shares
    solved = solved_of(episodes, funnel)
    if not solved:
        raise ConfigError(
            f"{episodes} holds no record of an episode that counts. Fix: name contextrl.agent.records of the job."
        )
    table = pq.read_table(rows)
    known = table.column("extra_info").to_pylist() if "extra_info" in table.column_names else []
    if not known or not all(isinstance(row, dict) and row.get("instance_id") for row in known):
        raise ConfigError(f"{rows} holds no tasks with an instance_id. Fix: name rows of contextrl tasks swe.")
    stage, kept = funnel.stage("difficulty", "tasks"), []
    for row in known:
        found, tried = solved.get(row["instance_id"], (0, 0))
        reason = ""
        if not tried:
            reason = "no episode"
        elif not low <= found / tried <= high:
            reason = f"too hard: resolved in under {low:.0%}" if found / tried < low else f"too easy: over {high:.0%}"
        kept.append(not reason)
        if reason:
            stage.drop(reason, {"instance": row["instance_id"], "resolved": f"{found} of {tried}"})
        else:
            stage.keep()
    if not any(kept):
        counts = ", ".join(f"{reason} ({count})" for reason, count in sorted(stage.dropped.items()))
        raise ConfigError(f"no task is left: {counts}. Fix: other bounds with --keep, or more episodes.")
    with whole_file(out) as scratch:
        pq.write_table(table.filter(pa.array(kept)), scratch, compression="zstd")
    return sum(kept), funnel
