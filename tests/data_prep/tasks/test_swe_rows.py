"""``contextrl tasks swe``: every task tried in the real sandbox, what is none counted, rows that verl reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_repository import FIX, KEEP, MUST, bench_row, git, make_repository, write, write_lines

from contextrl_verl.agents.task import AGENT_NAME, DATA_SOURCE
from contextrl_verl.agents.verify import Reason, Verdict
from contextrl_verl.demo.agent import repair, tasks_in
from contextrl_verl.errors import ConfigError
from contextrl_verl.sandbox import InfrastructureError, open_sandbox
from data_prep.report.episode import write_episodes
from data_prep.tasks import swe
from data_prep.tasks.rows import COLUMNS, validation_file
from data_prep.tasks.swe import Sources, SweSettings, swe_rows, try_task

QUIET = {"progress": False}
# Every copy of a module of the library under repair that a box shows, but for the one to be repaired.
_SEARCH = """
import os, zipfile
for folder, folders, files in os.walk("/"):
    if folder == "/":
        folders[:] = sorted(set(folders) - {"proc", "sys", "testbed"})
    for path in (os.path.join(folder, name) for name in files):
        members = [path]
        if path.endswith((".whl", ".zip", ".egg")) and zipfile.is_zipfile(path):
            members = zipfile.ZipFile(path).namelist()
        if any("rich/console." in name or "rich/__pycache__/console." in name for name in members):
            print(path)
"""


def table_settings(rows: Path, checkouts: Path, **more) -> SweSettings:
    machine = Sources(checkouts=str(checkouts), seconds=60)
    return SweSettings(table="swe_bench", path=str(rows), machine=machine, **more)


@pytest.fixture
def checkouts(tmp_path):
    folder = tmp_path / "checkouts" / "ann__shapes"
    folder.mkdir(parents=True)
    before, _ = make_repository(folder)
    return tmp_path / "checkouts", before


def stages(summary):
    return {stage["name"]: stage for stage in summary["stages"]}


def test_what_is_no_task_is_counted_by_its_reason(checkouts, tmp_path):
    folder, before = checkouts
    other = FIX.replace("width * height", "width - height")
    rows = [
        bench_row(before),
        bench_row(before, instance_id="ann__shapes-2"),
        bench_row(before, instance_id="ann__shapes-2"),
        bench_row(before, instance_id="always", FAIL_TO_PASS=[KEEP], PASS_TO_PASS=[]),
        bench_row(before, instance_id="never", patch=other),
        bench_row(before, instance_id="damaged", patch=FIX.replace("def area(width, height)", "def area(w, h)")),
        bench_row(before, instance_id="empty", FAIL_TO_PASS="[]"),
        bench_row(before, instance_id="cut", FAIL_TO_PASS=["tests/test_area.py::test_area[a"]),
        bench_row(before, instance_id="django", FAIL_TO_PASS=["test_area (tests.Case)"]),
        bench_row("0" * 40, instance_id="gone"),
        bench_row(before, instance_id="elsewhere", repo="no/where"),
        bench_row(before, instance_id="reading", patch=""),
        bench_row(before, instance_id="long", problem_statement="word " * 9000),
    ]
    out = tmp_path / "out" / "swe.parquet"
    settings = table_settings(write_lines(tmp_path / "rows.jsonl", rows), folder, validation=0.5)
    summary = swe_rows("table", out, settings, report=tmp_path / "page", workers=2, **QUIET)
    found = stages(summary)
    assert found["examples"]["dropped"] == {
        "no test that can be asked for and must begin to pass": 3,
        "the checkout has no such commit": 1,
        "no checkout or image here": 1,
        "no patch": 1,
    }
    assert found["test ids"]["dropped"] == {"cut in its middle": 1, "not an id of pytest's": 1}
    assert found["tried"]["dropped"] == {
        "passes without a change": 1,
        "never passes: wrong": 1,
        "the reference does not apply": 1,
        "the issue has more than 8000 tokens": 1,
    }
    assert found["rows"]["dropped"] == {"the same instance again": 1}
    assert summary["splits"] == {"train": 1, "validation": 1}
    table = pq.read_table(out)
    assert table.column_names == [*(name for name, _ in COLUMNS), "agent_name"]
    (row,) = table.to_pylist()
    (task,) = tasks_in(out)
    assert (row["agent_name"], row["data_source"]) == (AGENT_NAME, DATA_SOURCE)
    assert row["reward_model"]["ground_truth"] == row["extra_info"]["instance_id"] == task.instance_id
    assert row["prompt"] == [{"role": "user", "content": "The area of a box is wrong."}]
    # What judges a repair is nowhere in what the model is shown.
    assert "test_area" not in json.dumps(row["prompt"])
    assert (task.checks.fail_to_pass, task.checks.pass_to_pass, task.reference) == ((MUST,), (KEEP,), FIX)
    assert task.base.packages == ("shapes",)
    assert git(Path(task.base.folder), "rev-parse", "HEAD") == row["extra_info"]["base_commit"]
    assert Path(task.base.folder).parent == out.with_name("swe.bases")
    # Both tasks start from one state; that of the damaged one is gone, and so is the work.
    assert len(list(out.with_name("swe.bases").iterdir())) == summary["bases"] == 1
    assert not list(out.parent.glob(".*"))
    page = (tmp_path / "page" / "index.html").read_text()
    assert "never passes: wrong" in page
    assert "ann/shapes" in page
    (episode,) = repair([task])
    assert episode.reward == 1


def test_images_bring_their_files_and_r2e_gyms_tests_are_the_hosts_alone(tmp_path):
    image = tmp_path / "images" / "ns_shapes_final_abc"
    testbed = image / "testbed"
    testbed.mkdir(parents=True)
    make_repository(testbed)
    write(testbed, {"shapes/box.py": "def area(width, height):\n    return width + height\n"})
    case = "from shapes.box import area\n\n\nclass TestBox:\n    def test_area(self):\n        assert area(2, 3) == 6\n"
    write(image, {"r2e_tests/test_1.py": case, "r2e_tests/__init__.py": ""})
    right = "def area(width, height):\n    return width * height\n"
    file = {"header": {"file": {"path": "shapes/box.py"}}, "new_file_content": right,
            "old_file_content": (testbed / "shapes/box.py").read_text()}  # fmt: skip
    row = {
        "repo_name": "shapes", "docker_image": "ns/shapes_final:abc", "commit_hash": "abc",
        "problem_statement": "wrong", "parsed_commit_content": json.dumps({"file_diffs": [file]}),
        "expected_output_json": json.dumps({"TestBox.test_area": "PASSED"}),
    }  # fmt: skip
    draft = next(_drafts("r2e_gym", [row], tmp_path, images=str(tmp_path / "images"), test_command="pytest r2e_tests"))
    assert draft.task.base.image == str(image)
    assert "/r2e_tests" in draft.task.base.hidden
    assert "class TestBox" in draft.task.checks.test_patch
    base = tmp_path / "bases" / Path(draft.task.base.folder).name
    assert not (base / "r2e_tests").exists()
    assert git(base, "rev-list", "--all", "--count") == "1"


def _drafts(table, rows, folder, **machine):
    from data_prep.common.funnel import Funnel
    from data_prep.images.sources.base import SourceOptions
    from data_prep.tasks.swe_table_tasks import plan_tables, table_drafts

    path = write_lines(folder / "rows.jsonl", rows)
    for payload in plan_tables(table, str(path), SourceOptions(), Sources(**machine)):
        yield from table_drafts(payload, folder / "bases", Funnel())


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (True, [], "passes without a change"),
        (False, [Reason.NOT_APPLIED], "the reference does not apply"),
        (False, [Reason.WRONG, Reason.MISSING, Reason.WRONG], "never passes: wrong"),
        (False, [Reason.RESOLVED, Reason.TIMEOUT, Reason.RESOLVED], "flaky: the reference passes sometimes"),
        (False, [Reason.WRONG, Reason.RESOLVED, Reason.RESOLVED], "flaky: the reference passes sometimes"),
        (False, [Reason.RESOLVED] * 3, ""),
    ],
)
def test_the_reference_must_pass_every_time_and_nothing_else(before, after, reason, monkeypatch):
    asked = iter([Verdict(before, Reason.RESOLVED if before else Reason.WRONG),
                  *(Verdict(one is Reason.RESOLVED, one) for one in after)])  # fmt: skip
    given = []

    def verify(task, patch, sandbox, unchanged=False):
        given.append((patch, unchanged))
        return next(asked)

    class Task:
        reference = FIX

    monkeypatch.setattr(swe, "verify", verify)
    assert try_task(Task(), None).reason == reason
    assert given == [("", True), *[(FIX, False)] * len(after)]
    assert next(asked, None) is None


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"table": "swe_pro"}, "--table is 'swe_pro'"),
        ({"machine": Sources()}, "--checkouts DIR"),
        ({"machine": Sources(checkouts="nowhere")}, "--checkouts is nowhere"),
        ({"path": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"machine": Sources(checkouts=".", test_command="make test")}, "the test command is not pytest's (1)"),
    ],
)
def test_a_mistake_is_a_sentence_and_writes_nothing(changed, named, checkouts, tmp_path, monkeypatch):
    folder, before = checkouts
    monkeypatch.chdir(folder)
    settings = table_settings(write_lines(tmp_path / "rows.jsonl", [bench_row(before)]), folder)
    with pytest.raises(ConfigError, match="Fix: ") as caught:
        swe_rows("table", tmp_path / "swe.parquet", settings.model_copy(update=changed), workers=1, **QUIET)
    assert named in str(caught.value)
    assert not (tmp_path / "swe.parquet").exists()


@pytest.mark.parametrize("count", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_tasks_of_the_forge_are_repaired_by_a_script(count, tmp_path):
    out = tmp_path / "swe.parquet"
    summary = swe_rows("forge", out, SweSettings(validation=0, source={"limit": count}), **QUIET)
    assert summary["rows"] == count
    tasks = tasks_in(out)
    for task in tasks:
        # A patch written for the calls that the issue shows is none.
        assert any(question.call.text not in task.issue for question in task.checks.questions)
        assert task.reference not in task.issue
        assert task.base.packages == ("rich",)
    with closing(open_sandbox().start(tasks[0].start_base())) as box:
        assert box.run(f"python - <<'EOF'\n{_SEARCH}\nEOF").output == ""
    episodes = repair(tasks, tmp_path / "episodes", at_once=4)
    assert [(episode.reward, episode.ending.value) for episode in episodes] == [(1.0, "submitted")] * count
    assert all(episode.metrics["turns"] == 6 for episode in episodes)
    page = write_episodes(tmp_path / "episodes", tmp_path / "page", count, 1).read_text()
    assert page.count('<span class="tag right">resolved</span>') == count


@pytest.mark.parametrize(
    ("error", "dropped"),
    [
        (InfrastructureError("image", "there is none"), {"no box of its image": 1}),
        (InfrastructureError("keeper", "it ended"), {"raised InfrastructureError": 1}),
    ],
)
def test_a_box_that_cannot_be_had_is_counted(error, dropped, checkouts, tmp_path, monkeypatch):
    folder, before = checkouts
    draft = next(_drafts("swe_bench", [bench_row(before)], tmp_path, checkouts=str(folder)))

    def fail(task, sandbox):
        raise error

    monkeypatch.setattr(swe, "try_task", fail)
    monkeypatch.setitem(swe._DRAFTS, "table", lambda payload, bases, funnel: iter([draft]))
    payload = {"kind": "table", "bases": str(tmp_path / "bases"), "settings": SweSettings().model_dump(mode="json")}
    funnel = swe._part(payload, tmp_path / "part.jsonl")
    assert funnel.stage("tried").dropped == dropped
    assert (tmp_path / "part.jsonl").read_text() == ""


@pytest.mark.slow
def test_the_seed_makes_the_tasks_and_no_function_is_in_both_files(tmp_path):
    made = []
    for name, workers, count in (("one", 1, 5), ("two", 2, 8)):
        out = tmp_path / name / "swe.parquet"
        swe_rows("forge", out, SweSettings(validation=0.4, source={"limit": count}), workers=workers, **QUIET)
        made.append([tasks_in(path) for path in (out, validation_file(out))])
    first, second = ({task.instance_id: task for part in parts for task in part} for parts in made)
    assert (len(first), len(second)) == (5, 8)
    for name, task in first.items():
        other = second[name]
        assert (task.issue, task.checks, task.reference) == (other.issue, other.checks, other.reference)
        assert Path(task.base.folder).name == Path(other.base.folder).name
    for parts in made:
        train, validation = ({task.instance_id.partition(".")[0] for task in part} for part in parts)
        assert not train & validation


@pytest.mark.slow
def test_a_killed_run_goes_on_and_gives_the_same(tmp_path, checkouts):
    folder, before = checkouts
    # All but one are tried once, and are none.
    asked = {number: [MUST] if number == 5 else [KEEP] for number in range(8)}
    wanted = [
        bench_row(before, instance_id=f"i-{number}", FAIL_TO_PASS=must, PASS_TO_PASS=[])
        for number, must in asked.items()
    ]
    rows = write_lines(tmp_path / "rows.jsonl", wanted)
    command = [sys.executable, "-m", "contextrl_verl.cli", "tasks", "swe", "--source", "table", "--table", "swe_bench",
               "--path", str(rows), "--checkouts", str(folder), "--validation", "0", "--workers", "1",
               "--out"]  # fmt: skip
    out = tmp_path / "killed" / "swe.parquet"
    process = subprocess.Popen([*command, str(out)], stderr=subprocess.DEVNULL, start_new_session=True)
    notes = lambda: list(out.parent.glob(".swe.parquet.work/*/part-*.json"))  # noqa: E731
    while not notes():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    done = {path: path.stat().st_mtime_ns for path in notes()}
    straight = tmp_path / "straight" / "swe.parquet"
    for path in (out, straight):
        assert subprocess.run([*command, str(path), "--keep-work"], capture_output=True).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert pq.read_table(out).equals(pq.read_table(straight))
    assert not validation_file(out).exists()
