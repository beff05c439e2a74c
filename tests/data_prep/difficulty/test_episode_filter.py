"""Repair tasks that an agent resolves sometimes, by the records of its episodes."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
from typer.testing import CliRunner

from contextrl_verl.cli import app


def episodes(folder, **outcomes):
    folder.mkdir(exist_ok=True)
    for instance, results in outcomes.items():
        for number, outcome in enumerate(results):
            lost = {"s": "infrastructure", "c": "cancelled"}.get(outcome, "model")
            record = {"instance_id": instance, "messages": [], "contextrl": {"fault": lost}}
            record |= {"resolved": outcome == "+"} if outcome in "+-" else {}
            (folder / f"{instance}-{number}.traj.json").write_text(json.dumps(record))
    (folder / "broken.traj.json").write_text("{")
    return folder


def rows(path, *names):
    table = pa.Table.from_pylist(
        [{"data_source": "contextrl/swe", "extra_info": {"instance_id": name}} for name in names]
    )
    pq.write_table(table, path)
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["difficulty", *map(str, arguments)])


def test_tasks_between_the_bounds_stay_whatever_their_number_of_episodes(tmp_path):
    # An episode without a verdict (o: a budget was used up) is one that did not resolve; lost ones are none.
    records = episodes(tmp_path / "records", always="++++", never="--oo", half="+-", low="+---s", lost="sc")
    file = rows(tmp_path / "swe.parquet", "always", "never", "half", "low", "lost", "unseen")
    done = run(file, "--episodes", records, "--keep", 2, 4, "--out", tmp_path / "kept.parquet")
    assert done.exit_code == 0, done.output
    kept = pq.read_table(tmp_path / "kept.parquet")
    assert [row["extra_info"]["instance_id"] for row in kept.to_pylist()] == ["half", "low"]
    assert kept.schema == pq.read_schema(file)
    told = " ".join(done.output.replace("│", " ").split())
    for said in ("resolved in under 25% 1", "too easy: over 50% 1", "no episode 2,"):
        assert said in told, told


def test_mistakes_are_sentences(tmp_path):
    records = episodes(tmp_path / "records", never="--")
    file = rows(tmp_path / "swe.parquet", "never")
    out = ("--out", tmp_path / "kept.parquet")
    (tmp_path / "empty").mkdir()
    for arguments, named in [
        ((file, "--episodes", records, *out), "no task is left: too hard"),
        ((file, "--episodes", tmp_path / "empty", *out), "holds no record"),
        ((file, "--episodes", records, "--out", tmp_path / "empty/kept.parquet"), "Fix: write beside it"),
        ((file, "--episodes", records), "--episodes needs --out"),
        ((file, "--episodes", records, *out, "--local", "m"), "--episodes needs --out and no model"),
    ]:
        done = run(*arguments)
        assert done.exit_code == 1
        assert named in " ".join(done.output.split())
    assert not (tmp_path / "kept.parquet").exists()
