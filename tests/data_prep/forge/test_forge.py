"""Runs of the forge: really executed, the same for the same seed, and accepted by the readers."""

import json
import re
import sys
from collections import defaultdict

import pytest
import zstandard
from typer.testing import CliRunner

from contextrl_verl.cli import app
from contextrl_verl.sandbox.box import Finished
from data_prep.forge.agent import Agent, Habits
from data_prep.forge.bugs import screen
from data_prep.forge.forge import forge
from data_prep.forge.library import ForgeError, find_library
from data_prep.forge.mutate import functions
from data_prep.forge.wording import SUBMIT, observation
from data_prep.forge.workplace import workplace
from data_prep.trajectories.edited_symbols import touched
from data_prep.trajectories.readers import open_source

LIBRARY, RUNS = "sortedcontainers", 6  # small, and it comes with Hypothesis


@pytest.fixture(scope="module")
def scratch(tmp_path_factory, monkeypatch_module):
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch_module.setenv("TMPDIR", str(folder))
    monkeypatch_module.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def made(scratch, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "runs.jsonl"
    forged = forge(LIBRARY, RUNS, out, seed=3, workers=2, progress=False)
    return out, forged


@pytest.fixture(scope="module")
def commit():
    """A commit with the bugs of a function, in a box that stays."""
    library = find_library(LIBRARY)
    path, texts = "sortedcontainers/sortedlist.py", library.texts()
    found = {function.qualname: (function, mutations) for function, mutations in functions(path, texts[path])}
    with workplace(library) as place:
        (issues, *_), counts = screen(place, *found["SortedList.bisect_left"], texts[path], "5")
        counts.check()
        place.write({path: issues[0].text})
        yield place, place.commit("Import the sources"), issues


def outcomes(place, issue, changed=None):
    """What the calls of an issue give, and whether that is what it wants."""
    checks = issue.checks
    asked = [(changed or {}, [check.call for check in checks])]
    (found,) = place.observe(issue.function.module, asked)
    return found, found == [check.expected for check in checks]


def commands_of(messages):
    found = [re.search(r"```bash\n(.*)\n```", m["content"], re.S) for m in messages if m["role"] == "assistant"]
    return [match[1] for match in found]


@pytest.mark.parametrize("habits", [Habits(), Habits(1, 0, 1, 1), Habits(1, 1, 0, 0)])
def test_every_recorded_command_gives_its_output_again(commit, habits):
    place, name, issues = commit
    resolved = 0
    for number, issue in enumerate(issues[:2]):
        place.restore()
        agent = Agent(place, issue, f"again {number}", habits)
        patch = agent.work()
        place.restore()
        assert place.run("git rev-parse HEAD").output.strip() == name
        steps = commands_of(agent.messages)
        replies = [m["content"] for m in agent.messages[3::2]]
        assert len(steps) == len(replies) >= 8
        assert steps[-1] == SUBMIT
        for command, reply in zip(steps[:-1], replies[:-1], strict=True):
            assert observation(place.run(command)) == reply
        assert place.run(SUBMIT).output.partition("\n")[2] == replies[-1] == patch

        place.restore()
        assert outcomes(place, issue)[0] == [check.actual for check in issue.checks]
        assert place.run("git apply -", patch).returncode == 0
        resolved += outcomes(place, issue)[1]
        place.restore()
        if not habits.gives_up:
            assert resolved == number + 1


def test_an_issue_says_what_happens_and_not_what_to_change(commit):
    _, _, issues = commit
    texts = set()
    for number, issue in enumerate(issues):
        text = Agent(commit[0], issue, f"text {number}").messages[1]["content"]
        described = text.partition("<instructions>")[0]
        assert issue.checks[0].call.text in described
        assert issue.checks[0].expected.text in described
        assert issue.checks[0].actual.text in described
        for line in issue.fix.added:
            assert line.strip() not in described or len(line.strip()) < 5
        texts.add(described)
    assert len(texts) == len(issues)


def test_bugs_of_one_function_go_away_one_by_one(commit):
    place, _, issues = commit
    assert len(issues) >= 2
    for issue in issues:
        changes = [{issue.function.path: one.fix.on(one.text)} for one in issues if one is not issue]
        assert outcomes(place, issue, {issue.function.path: issue.fix.on(issue.text)})[1]
        assert not any(outcomes(place, issue, change)[1] for change in changes)
        calls = [call for call, _ in issue.controls]
        (found,) = place.observe(issue.function.module, [({}, calls)])
        assert found == [outcome for _, outcome in issue.controls]
        # The lines of the function in the buggy file.
        lines = issue.text.split("\n")[issue.function.first - 1 : issue.function.last]
        assert lines[0].startswith("    def bisect_left(")
        assert lines[-1].strip()


def test_readers_take_the_runs_and_couples_exist(made):
    out, forged = made
    runs = [located.run for located in open_source(out)]
    assert [run.instance_id for run in runs] == [f"forge__{LIBRARY}-{n}" for n in range(1, RUNS + 1)]
    assert forged.runs == RUNS
    assert forged.resolved == sum(run.outcome == "resolved" for run in runs) >= 3
    places = defaultdict(set)
    for run in runs:
        assert run.repository == f"forge/{LIBRARY}"
        assert re.fullmatch(r"[0-9a-f]{40}", run.commit)
        assert run.issue
        assert "pyc" not in run.patch
        for place in touched(run.patch, run):
            if place.symbol:
                places[run.commit, place.file, place.symbol].add(run.instance_id)
    assert max(map(len, places.values())) >= 2


def test_transcripts_name_nothing_of_this_machine(made, scratch, repository):
    text = made[0].read_text()
    for name in (str(scratch), str(repository), "/forge-", sys.prefix):
        assert name not in text


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers_and_compressed(made, tmp_path):
    forge(LIBRARY, RUNS, tmp_path / "again.jsonl.zst", seed=3, workers=1, progress=False)
    again = zstandard.ZstdDecompressor().decompress((tmp_path / "again.jsonl.zst").read_bytes())
    assert again == made[0].read_bytes()


def test_attempts_on_an_issue_share_its_text_and_end_differently(made, tmp_path):
    forge(LIBRARY, 6, tmp_path / "several.jsonl", seed=3, workers=2, progress=False, attempts=2)
    records, first = (path.read_text().splitlines() for path in (tmp_path / "several.jsonl", made[0]))
    runs = [located.run for located in open_source(tmp_path / "several.jsonl")]
    assert [run.instance_id for run in runs] == [f"forge__{LIBRARY}-{1 + n // 2}" for n in range(6)]
    assert records[::2] == first[:3]
    couples = list(zip(runs[::2], runs[1::2], strict=True))
    for one, other in couples:
        assert (one.issue, one.commit) == (other.issue, other.commit)
        assert one.messages != other.messages
    assert sum(one.patch != other.patch for one, other in couples) >= 2
    assert {run.outcome for run in runs[1::2]} >= {"unresolved"}


def test_another_seed_gives_other_runs(made, tmp_path):
    forge(LIBRARY, 2, tmp_path / "other.jsonl.gz", seed=4, workers=2, progress=False)
    runs, known = ([located.run for located in open_source(path)] for path in (tmp_path / "other.jsonl.gz", made[0]))
    assert len(runs) == 2
    assert not {run.patch for run in runs} & {run.patch for run in known}


def test_counts_add_up_and_nothing_stays_behind(made, scratch):
    out, forged = made
    forged.funnel.check()
    names = {stage.name for stage in forged.funnel}
    assert names == {"functions", "mutations", "runs"}
    assert forged.funnel.stage("runs").left == RUNS
    assert forged.funnel.stage("mutations").dropped["no call changes"] > 0
    assert list(scratch.iterdir()) == []
    assert [path.name for path in out.parent.iterdir()] == ["runs.jsonl"]


def test_a_library_that_is_too_small_leaves_no_file(tmp_path):
    with pytest.raises(ForgeError, match=r"zipp .* gives only \d+ runs .* ask for fewer"):
        forge("zipp", 500, tmp_path / "runs.jsonl", seed=1, workers=2, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_is_wrong(tmp_path):
    runner = CliRunner()
    for arguments, words in [
        (["--library", "../x", "--out", str(tmp_path / "a.jsonl")], "not the name of a distribution"),
        (["--library", LIBRARY, "--out", str(tmp_path / "a.txt")], "write to a name that ends in .jsonl"),
        (["--library", "numpy", "--out", str(tmp_path / "a.jsonl")], "not pure Python"),
    ]:
        result = runner.invoke(app, ["forge", *arguments])
        assert result.exit_code == 1
        assert words in result.output
        assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_long_output_keeps_its_ends():
    text = observation(Finished(0, "a" * 9_000 + "b" * 9_000, "", 0))
    assert "<elided_chars>\n8000 characters elided" in text
    assert text.count("a" * 5_000) == text.count("b" * 5_000) == 1
    assert observation(Finished(2, "", "", 0)) == "<returncode>2</returncode>\n<output>\n</output>"
    assert json.dumps(observation(Finished(0, "x" * 9_999, "", 0)))
