"""Readers of agent runs: every format, container and layout; locations; damaged files."""

from __future__ import annotations

import json
import tracemalloc
from random import Random

import pytest
from event_records import ALL_MAKERS
from reader_checks import COMPRESSIONS, ENDINGS, only_reject, runs_of
from run_records import (
    FIX,
    MAKERS,
    PATCH,
    klear,
    mini_v1,
    mini_v2,
    packed,
    swe_agent,
    swe_smith,
    turns,
    write_lines,
    write_parquet,
)

from data_prep.common.reverse_diff import reverse_diff
from data_prep.trajectories.readers import FORMATS, load_task_patches, open_source, parse_record
from data_prep.trajectories.readers.files import Span, file_spans, span_records
from data_prep.trajectories.readers.records import Location, Rejected
from data_prep.trajectories.run import AgentRun, TrajectoryError


def test_fields_that_only_some_formats_have(tmp_path):
    found = {name: runs_of(write_lines(tmp_path / f"{name}.jsonl", [maker(3)]))[0] for name, maker in MAKERS.items()}
    assert found["klear"].commit == "1fd52533"
    assert found["swe_smith"].commit == "1fd52536"
    assert found["mini_v1"].commit == ""
    assert found["mini_v1"].source == "mini-swe-agent-1"
    assert found["mini_v2"].source == "mini-swe-agent-1.1"


def test_version_2_says_the_same_as_version_1(tmp_path):
    one, two = (runs_of(write_lines(tmp_path / "a.jsonl", [maker(1)]))[0] for maker in (mini_v1, mini_v2))
    assert [turn.content for turn in two.messages][3] == [turn.content for turn in one.messages][3]
    assert f"```bash\n{FIX}\n```" in two.messages[4].content
    assert two.messages[-1].role == "user"


def test_the_stated_commit_and_repository_are_used(tmp_path):
    record = {**mini_v1(), "base_commit": "c0ffee", "repo": "other/place"}
    assert runs_of(write_lines(tmp_path / "a.jsonl", [record]))[0].commit == "c0ffee"
    record["instance_id"] = "task 12"
    (run,) = runs_of(write_lines(tmp_path / "a.jsonl", [record]))
    assert (run.repository, run.instance_id) == ("other/place", "task 12")


@pytest.mark.parametrize(
    ("instance", "repository", "commit"),
    [
        ("django__django-10097", "django/django", ""),
        ("oauthlib__oauthlib.1fd52536.combine_file__otc4vogi", "oauthlib/oauthlib", "1fd52536"),
        ("pydantic__pydantic.acb0f10f.pr_8316", "pydantic/pydantic", "acb0f10f"),
        ("instance_a__b-" + "0a" * 20 + "-vd5", "a/b", "0a" * 20),
        ("scikit-learn__scikit-learn-1", "scikit-learn/scikit-learn", ""),
    ],
)
def test_instance_ids(tmp_path, instance, repository, commit):
    (run,) = runs_of(write_lines(tmp_path / "a.jsonl", [{**mini_v1(), "instance_id": instance}]))
    assert (run.repository, run.commit, run.instance_id) == (repository, commit, instance)


@pytest.mark.parametrize(
    ("maker", "storage"),
    [
        *((maker, storage) for maker in ALL_MAKERS for storage in COMPRESSIONS),
        *((maker, "parquet") for maker in ("klear", "swe_smith", "mini_v1", "swe_agent", "atif")),
    ],
)
def test_a_file_in_pieces_gives_the_records_of_the_whole(tmp_path, maker, storage):
    records = [ALL_MAKERS[maker](n) for n in range(1, 6)]
    path = tmp_path / f"a.jsonl{ENDINGS.get(storage, '')}"
    write_parquet(path, records) if storage == "parquet" else write_lines(path, records, storage)
    found = list(open_source(path))
    assert [located.location for located in found] == [Location(path.name, n) for n in range(5)]
    assert [located.run.instance_id for located in found] == [
        record.get("instance_id", f"owner__name-{n}") for n, record in enumerate(records, 1)
    ]
    spans = list(file_spans(path, path.name, 800))
    assert {"none": 4, "parquet": 3}.get(storage, 1) <= len(spans) <= 5
    assert len(spans) == 1 or storage in ("none", "parquet")
    again = [raw for span in spans for raw in span_records(path, Span(*json.loads(json.dumps(span))), 1 << 20)]
    assert [(raw.location, parse_record(raw)) for raw in again] == found


def test_folders_hold_any_mixture(tmp_path):
    (tmp_path / "b" / "owner__name-12").mkdir(parents=True)
    document = {key: value for key, value in mini_v1(12).items() if key != "instance_id"}
    (tmp_path / "b" / "owner__name-12" / "owner__name-12.traj.json").write_text(json.dumps(document, indent=2))
    agent = {key: value for key, value in swe_agent(13).items() if key != "instance_id"}
    (tmp_path / "b" / "owner__name-13.traj").write_text(json.dumps(agent, indent=2))
    write_lines(tmp_path / "a.jsonl.xz", [klear(1), klear(2)], "xz")
    write_parquet(tmp_path / "c.parquet", [swe_smith(1)])
    (tmp_path / "notes.log").write_text("not a run")
    (tmp_path / ".hidden.jsonl").write_text("{}")
    found = list(open_source(tmp_path))
    assert [located.location.file for located in found] == [
        "a.jsonl.xz",
        "a.jsonl.xz",
        "c.parquet",
        "b/owner__name-13.traj",
        "b/owner__name-12/owner__name-12.traj.json",
    ]
    assert [located.run.instance_id for located in found[3:]] == ["owner__name-13", "owner__name-12"]


def test_the_name_of_a_trial_folder_tells_the_task(tmp_path):
    folder = tmp_path / "owner__name-9__AbCdEfG" / "agent"
    folder.mkdir(parents=True)
    record = {**MAKERS["atif"](1), "session_id": "3f1c"}
    (folder / "trajectory.json").write_text(json.dumps(record, indent=1))
    (run,) = runs_of(tmp_path)
    assert (run.instance_id, run.repository) == ("owner__name-9", "owner/name")


def test_a_file_is_taken_by_its_bytes_not_its_name(tmp_path):
    path = tmp_path / "runs"
    path.write_bytes(packed(json.dumps(mini_v1()).encode(), "zst"))
    assert len(runs_of(path)) == 1


def test_a_named_format_is_not_guessed(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [klear(1)])
    assert runs_of(path, format="klear") == runs_of(path)
    assert runs_of(path, format="mini-swe-agent")[0].source == "mini-swe-agent"
    with pytest.raises(TrajectoryError, match=r"format is 'csv'.*mini-swe-agent"):
        next(iter(open_source(path, format="csv")))
    assert {"mini-swe-agent", "atif", "swe-agent", "swe-smith", "klear"} < set(FORMATS)


def record_with(**changes) -> dict:
    return {**mini_v1(), **changes}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"{not json}\n", "not JSON"),
        (b"[1, 2]\n", "unknown format"),
        (b'{"a": 1}\n', "unknown format"),
        (b'"text"\n', "unknown format"),
        (json.dumps(mini_v1()).encode()[:-200], "truncated"),
        (b'{"a": [1, 2]', "truncated"),
        ('{"a": "é'.encode()[:-1], "truncated"),
        (b'{"a": "\xff\xfe"}\n', "undecodable bytes"),
        (json.dumps(record_with(messages=[])).encode(), "no messages"),
        (json.dumps(record_with(messages=None)).encode(), "no messages"),
        (json.dumps(record_with(messages=turns()[:2])).encode(), "no messages"),
        (json.dumps(record_with(messages="hello")).encode(), "wrong types"),
        (json.dumps(record_with(messages=[3])).encode(), "wrong types"),
        (json.dumps(record_with(messages=[{"role": "alien", "content": "x"}])).encode(), "wrong types"),
        (json.dumps(record_with(messages=[{"role": "user", "content": 3}])).encode(), "wrong types"),
        (json.dumps(record_with(info={"submission": 3})).encode(), "wrong types"),
        (json.dumps(record_with(info=[1])).encode(), "wrong types"),
        (json.dumps(record_with(instance_id=None)).encode(), "no instance id"),
        (json.dumps(record_with(instance_id="my task")).encode(), "no repository"),
        (b"[" * 100_000, "not JSON"),
        (b'{"n": 1' + b"0" * 5000 + b"}", "unknown format"),
        (json.dumps(record_with(note="x" * 70_000)).encode(), "too large"),
    ],
)
def test_rejects_name_their_reason(tmp_path, data, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    reject = only_reject(path, max_record_bytes=65_536 if reason == "too large" else 1 << 22)
    assert reject.reason == reason
    assert reject.detail


def test_what_python_writes_beyond_json_is_read(tmp_path):
    record = mini_v1()
    record["info"]["cost"] = float("nan")
    record["messages"][2]["content"] += " \ud800 half a pair"
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(record).encode())
    (run,) = runs_of(path)
    assert "\ufffd half a pair" in run.messages[2].content
    run.messages[2].content.encode("utf-8")


@pytest.mark.parametrize("patch", [None, "", "   \n"])
def test_a_run_without_a_patch_is_a_run(tmp_path, patch):
    (run,) = runs_of(write_lines(tmp_path / "a.jsonl", [record_with(info={"submission": patch})]))
    assert run.patch.strip() == ""
    assert run.patch_origin == "none"


def test_an_error_in_place_of_the_submission_is_no_patch(tmp_path):
    record = record_with(info={"exit_status": "LimitsExceeded", "submission": "cost limit of 3 reached"})
    assert runs_of(write_lines(tmp_path / "a.jsonl", [record]))[0].patch == ""
    record = record_with(info={"exit_status": "Submitted", "submission": "garbage"})
    assert runs_of(write_lines(tmp_path / "a.jsonl", [record]))[0].patch == "garbage"


def test_a_line_that_is_too_large_costs_only_itself(tmp_path):
    records = [mini_v1(1), record_with(note="x" * 3_000_000), mini_v1(2)]
    found = list(open_source(write_lines(tmp_path / "a.jsonl.gz", records, "gz"), max_record_bytes=50_000))
    assert [getattr(located.run, "reason", "run") for located in found] == ["run", "too large", "run"]


@pytest.mark.parametrize("compression", COMPRESSIONS[1:])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_file_gives_the_runs_before_and_one_reject(tmp_path, compression, damage):
    records = [{**mini_v1(n), "noise": Random(n).randbytes(3000).hex()} for n in range(1, 41)]
    write_lines(tmp_path / f"a.jsonl{ENDINGS[compression]}", records, compression)
    data = bytearray((tmp_path / f"a.jsonl{ENDINGS[compression]}").read_bytes())
    middle = len(data) // 2
    if damage == "cut":
        del data[middle:]
    else:
        data[middle : middle + 40] = bytes(byte ^ 0x5A for byte in data[middle : middle + 40])
    (tmp_path / f"a.jsonl{ENDINGS[compression]}").write_bytes(data)
    write_lines(tmp_path / "b.jsonl", [mini_v1(99)])
    found = list(open_source(tmp_path))
    assert found[-1].run.instance_id == "owner__name-99"
    first = [located.run for located in found if located.location.file.startswith("a")]
    good = [run for run in first if isinstance(run, AgentRun)]
    assert [run.instance_id for run in good] == [f"owner__name-{n}" for n in range(1, len(good) + 1)]
    # a Zstandard block holds 128 KiB, which is about half of this file
    assert len(good) >= (10 if compression != "zst" else 0)
    assert first[-1].reason == "damaged file"
    # flipped bytes may still unpack, to lines that are no runs; the checksum at the end tells
    assert damage == "flipped" or len(first) == len(good) + 1


def test_a_damaged_row_group_costs_its_own_rows(tmp_path):
    rows = [{**klear(n), "noise": Random(n).randbytes(2000).hex()} for n in range(1, 9)]
    path = write_parquet(tmp_path / "a.parquet", rows)
    import pyarrow.parquet as pq

    column = pq.ParquetFile(path).metadata.row_group(1).column(2)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + 4 : column.data_page_offset + 24] = b"\xff" * 20
    path.write_bytes(data)
    found = list(open_source(path))
    ids = [located.run.instance_id for located in found if isinstance(located.run, AgentRun)]
    kept = {klear(n)["instance_id"] for n in (1, 2, 5, 6, 7, 8)}
    assert kept <= set(ids)
    assert any(located.run.reason == "damaged file" for located in found if isinstance(located.run, Rejected))


def test_nothing_to_read_is_an_error_with_a_way_out(tmp_path):
    with pytest.raises(TrajectoryError, match="does not exist; give"):
        list(open_source(tmp_path / "none"))
    (tmp_path / "x.log").write_text("x")
    with pytest.raises(TrajectoryError, match=r"holds no file of runs; expected .*\.jsonl"):
        list(open_source(tmp_path))


def test_memory_is_bounded_by_the_record_not_the_file(tmp_path):
    path = write_lines(tmp_path / "a.jsonl.gz", [{**mini_v1(n), "pad": "x" * 20_000} for n in range(600)], "gz")
    tracemalloc.start()
    count = sum(1 for _ in open_source(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 600
    assert peak < 2_500_000, peak


def test_patches_joined_from_a_table_are_the_reverse(tmp_path):
    ids = [klear(n)["instance_id"] for n in (1, 2)]
    bug = reverse_diff(PATCH)
    assert "+        return value + value + 1\n" in bug
    table = write_parquet(tmp_path / "tasks.parquet", [{"instance_id": ids[0], "patch": bug, "repo": "r"}])
    runs = write_lines(tmp_path / "runs.jsonl", [klear(1), klear(2)])
    first, second = runs_of(runs, tasks=load_task_patches(table))
    assert (first.patch, first.patch_origin) == (PATCH, "joined")
    assert (second.patch, second.patch_origin) == ("", "none")
    damaged = write_parquet(tmp_path / "damaged.parquet", [{"instance_id": ids[0], "patch": "Binary files differ"}])
    reject, _ = (located.run for located in open_source(runs, tasks=load_task_patches(damaged)))
    assert reject.reason == "damaged task patch"
    assert ids[0] in reject.detail
    with pytest.raises(TrajectoryError, match="instance_id and patch"):
        load_task_patches(runs)


def test_replay_is_asked_before_the_table(tmp_path):
    runs = write_lines(tmp_path / "runs.jsonl", [klear(1)])
    (run,) = runs_of(runs, replay=True, tasks={klear(1)["instance_id"]: "other"})
    assert run.patch_origin == "replayed"
    assert "-        return value + value + 1\n+        return value + value\n" in run.patch


def test_records_of_the_atif_package_are_read(tmp_path):
    atif = pytest.importorskip("atif")
    document = atif.Trajectory.model_validate(MAKERS["atif"](4)).to_json_dict()
    (run,) = runs_of(write_lines(tmp_path / "a.jsonl", [document]))
    assert (run.repository, run.patch, len(run.messages)) == ("owner/name", PATCH, 4)
