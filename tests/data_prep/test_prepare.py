"""From files of runs to pairs: counts, both directions, no leak, resuming to the same bytes."""

from __future__ import annotations

import gzip
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest
from leak_check import leaks_left
from made_runs import made_run, write_runs
from run_records import write_parquet
from typer.testing import CliRunner

from contextrl_verl.cli import app
from contextrl_verl.pairs.files import PairFile
from data_prep.common.pipeline import PipelineError
from data_prep.trajectories.candidates import CascadeSettings, GroupSettings
from data_prep.trajectories.prepare import PrepareSettings, find_candidates, prepare
from data_prep.trajectories.readers import open_source, parse_record
from data_prep.trajectories.readers.records import Location, RawRecord
from data_prep.trajectories.run import TrajectoryError

SETTINGS = PrepareSettings(cascade=CascadeSettings(commit="any", related=(0.0, 1.0)))
SETS = ("--set", "cascade.commit=any", "--set", "cascade.related=[0, 1]")


def made(count: int = 24) -> list:
    return [made_run(number) for number in range(count)]


@pytest.fixture
def source(tmp_path):
    return write_runs(tmp_path / "runs.jsonl", made())


def turns(messages):
    return [(message.role, message.content) for message in messages]


def test_pairs_come_in_both_directions_without_a_leak(source, tmp_path):
    out = tmp_path / "pairs.parquet"
    summary = prepare(source, out, SETTINGS, report=tmp_path / "report", workers=1)
    pairs = list(PairFile(out))
    assert len(pairs) == summary["pairs"] > 20
    runs = {located.run.run_id: located.run for located in open_source(source)}
    directions = Counter()
    for pair in pairs:
        supporting = runs[pair.provenance["supporting"]["run_id"]]
        (other,) = (runs[confounder["run_id"]] for confounder in pair.provenance["confounders"])
        assert pair.answer == supporting.patch
        assert supporting.instance_id != other.instance_id
        directions[frozenset((supporting.run_id, other.run_id))] += 1
        for run in (supporting, other):
            context = pair.supporting if run is supporting else pair.confounders[0]
            assert any(run.issue in turn.content for turn in context.messages)
            for patch in (supporting.patch, other.patch):
                assert leaks_left(turns(context.messages), turns(run.messages), patch, run.issue) == []
            assert "<PATCH_MASKED>" in context.messages[6].content
    assert set(directions.values()) == {2}
    assert {pair.split for pair in pairs} <= {"train", "validation", "probe"}


def test_counts_add_up_at_every_stage_and_rejects_have_reasons(tmp_path):
    records = [*made(), "{not json", {"instance_id": "x"}, made()[0], {**made_run(5), "info": {"submission": ""}}]
    source = write_runs(tmp_path / "runs.jsonl", records)
    summary = prepare(source, tmp_path / "p.parquet", SETTINGS, report=tmp_path / "report", workers=1)
    stages = {stage["name"]: stage for stage in summary["stages"]}
    for stage in summary["stages"]:
        assert stage["in"] == stage["out"] + sum(stage["dropped"].values()), stage
    assert stages["read"]["in"] == summary["runs_read"] == 28
    assert sum(stages["read"]["dropped"].values()) == 2
    assert stages["patch"]["dropped"] == {"empty patch": 1}
    assert stages["distinct"]["dropped"] == {"the same run again": 1}
    written = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert {"runs_read", "stages", "pairs", "leaked_lines_masked", "seconds"} <= set(written)
    assert written["leaked_lines_masked"] > 0
    assert "acme__tools-" in (tmp_path / "report" / "index.html").read_text()


def test_the_page_shows_dropped_couples_side_by_side_without_secrets(tmp_path):
    records = [*made(), made_run(3, name="beta"), made_run(4, repository="other__place")]
    records[0]["messages"][5]["content"] += "\nmail from someone.private@bigcorp-mail.com with sk-proj-" + "a1B2" * 10
    source = write_runs(tmp_path / "runs.jsonl", records)
    settings = replace(SETTINGS, cascade=CascadeSettings(commit="near", near=20, related=(0.0, 1.0)))
    summary = prepare(source, tmp_path / "p.parquet", settings, report=tmp_path / "report", workers=1)
    page = (tmp_path / "report" / "index.html").read_text()
    reasons = {(stage["name"], reason) for stage in summary["stages"] for reason in stage["dropped"]}
    for stage, reason in [
        ("same repository", "other repository"),
        ("commit", "more than 20 apart"),
        ("same file", "no file in common"),
        ("same function or class", "other"),
        ("caps", "a run is in 4 groups already"),
    ]:
        assert (stage, reason) in reasons
        assert f"{stage}: {reason}" in page
    assert page.count("one run ") == page.count("the other run ") >= 5
    assert "someone.private" not in page
    assert "a1B2a1B2" not in page


def test_every_way_to_store_the_runs_gives_the_same_pairs(source, tmp_path):
    packed, folder = tmp_path / "runs.jsonl.gz", tmp_path / "folder"
    packed.write_bytes(gzip.compress(source.read_bytes()))
    folder.mkdir()
    for number, record in enumerate(made()):
        (folder / f"{number:03d}.traj.json").write_text(json.dumps(record, indent=1))
    found = []
    table = write_parquet(tmp_path / "runs.parquet", made(), group=5)
    for name, path in (("plain", source), ("packed", packed), ("folder", folder), ("table", table)):
        prepare(path, tmp_path / f"{name}.parquet", SETTINGS, workers=2)
        found.append((tmp_path / f"{name}.parquet").read_bytes())
    assert found[0] == found[1] == found[2] == found[3]


def test_runs_are_stored_as_they_were_read(source, tmp_path):
    found = find_candidates(source, tmp_path / "p.parquet", SETTINGS, workers=1)
    source.unlink()
    for number in range(24):
        run = parse_record(RawRecord(Location(""), json.dumps(made_run(number)).encode()))
        assert found.read(run.run_id) == run


def test_more_confounders_on_request(source, tmp_path):
    settings = replace(SETTINGS, groups=GroupSettings(options=3))
    prepare(source, tmp_path / "p.parquet", settings, workers=1)
    pairs = list(PairFile(tmp_path / "p.parquet"))
    assert {len(pair.contexts) for pair in pairs} == {3}
    groups = Counter(
        frozenset(
            [pair.provenance["supporting"]["run_id"], *(other["run_id"] for other in pair.provenance["confounders"])]
        )
        for pair in pairs
    )
    assert set(groups.values()) == {3}


# tests/data_prep/test_pipeline.py runs parts on Ray, and kills them.
@pytest.mark.slow
def test_killed_again_and_again_the_result_is_the_same_to_the_byte(source, tmp_path):
    straight = tmp_path / "straight.parquet"
    prepare(source, straight, SETTINGS, workers=1)
    out = tmp_path / "killed.parquet"
    command = [
        sys.executable, "-m", "contextrl_verl.cli", "pairs", "trajectories", "--input", str(source), "--out", str(out),
        *SETS, "--workers", "2",
    ]  # fmt: skip
    draw = random.Random(3)
    for _ in range(4):
        job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1 + 4 * draw.random())
        job.send_signal(signal.SIGKILL)
        job.wait()
        assert not out.exists() or out.read_bytes() == straight.read_bytes()
    subprocess.run(command, check=True, capture_output=True)
    assert out.read_bytes() == straight.read_bytes()
    assert not list(tmp_path.glob(".killed*"))


def test_nothing_left_is_one_clear_paragraph_and_no_file(tmp_path):
    source = write_runs(tmp_path / "runs.jsonl", made(1))
    with pytest.raises(PipelineError, match=r"no pair is left \(read: 1 in, 1 out.*Fix:"):
        prepare(source, tmp_path / "p.parquet", SETTINGS, workers=1)
    assert not (tmp_path / "p.parquet").exists()
    with pytest.raises(TrajectoryError, match="does not exist"):
        prepare(tmp_path / "nowhere", tmp_path / "p.parquet", SETTINGS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "cascade.commit=never"], "cascade.commit is 'never'. Fix: input should be 'same', 'near' or 'any'."),
        (["--set", "splits=train=2"], "--splits is 'train=2'. Fix:"),
        (["--set", "commit=any"], "--set names 'commit', and there is no such setting. Fix: format, tasks,"),
        (["--engine", "spark"], "--engine is 'spark'"),
    ],
)
def test_mistakes_on_the_command_line(source, tmp_path, arguments, said):
    command = ["pairs", "trajectories", "--input", str(source), "--out", str(tmp_path / "p.parquet"), *arguments]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert said in " ".join(result.output.split())


def test_the_command_writes_what_it_says(source, tmp_path):
    out = tmp_path / "p.parquet"
    command = ["pairs", "trajectories", "--input", str(source), "--out", str(out), *SETS, "--workers", "1"]
    result = CliRunner().invoke(app, [*command, "--report", str(tmp_path / "r")])
    assert result.exit_code == 0, result.output
    assert f"{len(PairFile(out))} pairs" in result.output
    assert (tmp_path / "r" / "index.html").exists()


# tests/data_prep/test_pipeline.py runs parts on Ray, and kills them.
@pytest.mark.slow
def test_ray_gives_the_same_bytes(source, tmp_path):
    ray = pytest.importorskip("ray")
    prepare(source, tmp_path / "local.parquet", SETTINGS, workers=1, progress=False)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        prepare(source, tmp_path / "ray.parquet", SETTINGS, engine="ray", progress=False)
    finally:
        ray.shutdown()
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()
