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
from data_prep.trajectories.answer import shown
from data_prep.trajectories.candidates import CascadeSettings
from data_prep.trajectories.groups import GroupSettings
from data_prep.trajectories.prepare import PrepareSettings, find_candidates, prepare
from data_prep.trajectories.readers import open_source, parse_record
from data_prep.trajectories.readers.records import Location, RawRecord
from data_prep.trajectories.run import TrajectoryError

# Words tell all of these made pairs.
SETTINGS = PrepareSettings(
    issue=("related",), overlap_cap=1, hide_issue=False, cascade=CascadeSettings(commit="any", related=(0.0, 1.0))
)
SETS = (
    *("--issue", "related", "--overlap-cap", "1", "--show-issue"),
    *("--set", "cascade.commit=any", "--set", "cascade.related=[0, 1]"),
)


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
        assert pair.answer == shown(supporting.patch)
        assert pair.provenance["kind"] == "related"
        assert supporting.instance_id != other.instance_id
        directions[frozenset((supporting.run_id, other.run_id))] += 1
        for run in (supporting, other):
            context = pair.supporting if run is supporting else pair.confounders[0]
            assert any(run.issue in turn.content for turn in context.messages)
            for patch in (supporting.patch, other.patch):
                assert leaks_left(turns(context.messages), turns(run.messages), patch, run.issue) == []
            assert any("<PATCH_MASKED>" in turn.content for turn in context.messages if turn.role == "assistant")
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


def again(number: int, line: int) -> dict:
    """A run of the issue of run ``number`` that changes another line of the same function."""
    record = {**made_run(number + 12 * line), "instance_id": f"acme__tools-{1000 + number}"}
    record["messages"][1] = made_run(number)["messages"][1]
    return record


def test_several_kinds_in_one_file_keep_an_instance_in_one_split(tmp_path):
    records = [*made(), *(again(number, line) for number in range(12) for line in (2, 4))]
    source, out = write_runs(tmp_path / "runs.jsonl", records), tmp_path / "p.parquet"
    settings = replace(SETTINGS, issue=("related", "same"))
    summary = prepare(source, out, settings, workers=1, progress=False)
    splits: dict[str, str] = {}
    counts = Counter()
    for pair in PairFile(out):
        sides = [pair.provenance["supporting"], *pair.provenance["confounders"]]
        instances = {side["instance_id"] for side in sides}
        assert pair.provenance["kind"] == ("same" if len(instances) == 1 else "related")
        assert ("several times on one issue" in pair.query) == (len(instances) == 1)
        counts[pair.provenance["kind"]] += 1
        assert {splits.setdefault(instance, pair.split) for instance in instances} == {pair.split}
    assert min(counts.values()) > 8
    assert {kind: of["pairs"] for kind, of in summary["overlap"].items()} == {"all": sum(counts.values()), **counts}
    stages = {stage["name"]: stage for stage in summary["stages"]}
    together = stages["different patch"]["out"] + stages["same instance, different patch"]["out"]
    assert stages["caps"]["in"] == together


def test_runs_that_are_altered_are_drawn_and_the_others_counted(source, tmp_path):
    settings = replace(SETTINGS, issue=("related", "counterfactual"), counterfactual_runs=5)
    stage = find_candidates(source, tmp_path / "p.parquet", settings, workers=1, progress=False).funnel.stage(
        "counterfactual runs"
    )
    assert (stage.entered, stage.left, stage.dropped) == (24, 5, {"more than counterfactual_runs": 19})


def test_pairs_over_the_cap_on_words_are_left_out_and_counted(tmp_path):
    records = made()
    # Half of the runs speak of nothing but what another's patch is about.
    for number in range(0, 24, 2):
        said = made_run((number + 2) % 24)["info"]["submission"].replace("_", " ").split("+    ")[1]
        records[number]["messages"][2]["content"] += f" {said}" * 9
    source, free, capped = write_runs(tmp_path / "runs.jsonl", records), tmp_path / "f.parquet", tmp_path / "c.parquet"
    before = prepare(source, free, SETTINGS, workers=1, progress=False)["overlap"]
    cap = before["related"]["right"] - 0.1
    summary = prepare(source, capped, replace(SETTINGS, overlap_cap=cap), workers=1, progress=False)
    after = summary["overlap"]["related"]
    assert after["right"] <= cap < before["related"]["right"]
    (stage,) = (stage for stage in summary["stages"] if stage["name"] == "overlap")
    assert stage["in"] == before["related"]["pairs"] > stage["out"] == after["pairs"] > 0
    assert {pair.pair_id for pair in PairFile(capped)} < {pair.pair_id for pair in PairFile(free)}


def test_a_cap_that_no_pair_meets_says_so(source, tmp_path):
    with pytest.raises(PipelineError, match=r"overlap: \d+ in, 0 out, dropped for: over the cap .*0.1"):
        prepare(source, tmp_path / "p.parquet", replace(SETTINGS, overlap_cap=0.1), workers=1, progress=False)


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
    empty = {"info": {"submission": ""}}
    source = write_runs(tmp_path / "runs.jsonl", [*({**run, **empty} for run in made(2)), {"instance_id": 3}])
    read = r"read: 3 in, 2 out, dropped for: unknown format 1; patch: 2 in, 0 out, dropped for: empty patch 2"
    with pytest.raises(PipelineError, match=rf"{read}.*Fix:.*report/index.html"):
        prepare(source, tmp_path / "p.parquet", SETTINGS, report=tmp_path / "report", workers=1)
    assert "empty patch" in (tmp_path / "report" / "index.html").read_text()
    assert json.loads((tmp_path / "report" / "summary.json").read_text())["pairs"] == 0
    with pytest.raises(TrajectoryError, match="does not exist"):
        prepare(tmp_path / "nowhere", tmp_path / "p.parquet", SETTINGS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "cascade.commit=never"], "cascade.commit is 'never'. Fix: input should be 'same', 'near' or 'any'."),
        (["--set", "splits=train=2"], "--splits is 'train=2'. Fix:"),
        (["--set", "commit=any"], "--set names 'commit', and there is no such setting. Fix: format, tasks,"),
        (["--issue", "related,other"], "issue.1 is 'other'. Fix: input should be 'related', 'any', 'same' or"),
        (["--overlap-cap", "75"], "overlap_cap is 75.0. Fix: input should be less than or equal to 1."),
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
    assert "words in common (BM25) tell: all " in result.output
    # The command brings the audit; what makes pairs does not know it.
    found = json.loads((tmp_path / "r" / "summary.json").read_text())
    percent = found["audit"]["percent"]["trajectory"]["overlap: tf-idf"]
    assert percent == pytest.approx(100 * found["overlap"]["related"]["right"], abs=0.06)
    assert percent > 80
    assert any(line.startswith("Warning: trajectory") for line in found["audit"]["conclusion"])
    page = (tmp_path / "r" / "index.html").read_text()
    assert "Warning: trajectory" in page
    assert "words in common (BM25) tell it, %" in page


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
