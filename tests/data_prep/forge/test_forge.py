"""Runs of the forge: really executed, the same for the same seed, and accepted by the readers."""

import json
import re
from collections import Counter, defaultdict

import pytest
from typer.testing import CliRunner

from contextrl_verl.cli import app
from data_prep.common.funnel import Stage
from data_prep.forge.agent import Agent, Habits
from data_prep.forge.base import build, packed
from data_prep.forge.bugs import screen
from data_prep.forge.forge import forge
from data_prep.forge.library import ForgeError, find_library
from data_prep.forge.mutate import functions
from data_prep.forge.probe import observe
from data_prep.forge.record import SUBMIT, observation
from data_prep.forge.sandbox import Finished, Sandbox
from data_prep.trajectories.edited_symbols import touched
from data_prep.trajectories.readers import open_source

LIBRARY = "sortedcontainers"  # small, and it comes with Hypothesis


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
    forged = forge(LIBRARY, 6, out, seed=3, workers=2, progress=False)
    return out, forged


@pytest.fixture(scope="module")
def commit(tmp_path_factory):
    """A commit with the bugs of some functions, in a scratch folder that stays."""
    library = find_library(LIBRARY)
    sandbox = Sandbox(tmp_path_factory.mktemp("scratch"))
    library.copy_to(sandbox.work)
    batches, originals = [], {}
    for path in library.modules:
        originals[path] = (library.root / path).read_bytes().decode()
        for function, mutations in functions(path, originals[path]):
            if function.qualname in ("SortedKeyList.bisect_key_left", "SortedList.bisect_left", "SortedList.islice"):
                batches += screen(sandbox, function, mutations, originals[path], "5").batches[:1]
    stage = Stage(name="issues")
    name, issues = build(sandbox, packed(batches)[0], originals, stage)
    assert len(issues) >= 3
    return sandbox, name, issues


def commands_of(messages):
    found = [re.search(r"```bash\n(.*)\n```", m["content"], re.S) for m in messages if m["role"] == "assistant"]
    return [match[1] for match in found]


@pytest.mark.parametrize("habits", [Habits(), Habits(1, 0, 1, 1), Habits(1, 1, 0, 0)])
def test_every_recorded_command_gives_its_output_again(commit, habits):
    sandbox, name, issues = commit
    resolved = 0
    for number, issue in enumerate(issues[:3]):
        sandbox.restore()
        agent = Agent(sandbox, issue, f"again {number}", habits)
        patch = agent.work()
        sandbox.restore()
        assert sandbox.run("git rev-parse HEAD").output.strip() == name
        steps = commands_of(agent.messages)
        replies = [m["content"] for m in agent.messages[3::2]]
        assert len(steps) == len(replies) >= 8
        assert steps[-1] == SUBMIT
        for command, reply in zip(steps[:-1], replies[:-1], strict=True):
            assert observation(sandbox.run(command)) == reply
        assert sandbox.run(SUBMIT).output.partition("\n")[2] == replies[-1] == patch

        sandbox.restore()
        calls = [check.call for check in issue.bug.checks]
        assert observe(sandbox, calls) == [check.actual for check in issue.bug.checks]
        assert sandbox.run("git apply -", patch).returncode == 0
        resolved += observe(sandbox, calls) == [check.expected for check in issue.bug.checks]
        sandbox.restore()
        if not habits.gives_up:
            assert resolved == number + 1


def test_an_issue_says_what_happens_and_not_what_to_change(commit):
    _, _, issues = commit
    texts = set()
    for number, issue in enumerate(issues):
        text = Agent(commit[0], issue, f"text {number}").messages[1]["content"]
        described = text.partition("<instructions>")[0]
        assert issue.bug.checks[0].call.text in described
        assert issue.bug.checks[0].expected.text in described
        assert issue.bug.checks[0].actual.text in described
        for line in issue.fix.added:
            assert line.strip() not in described or len(line.strip()) < 5
        texts.add(described)
    assert len(texts) == len(issues)


def test_bugs_of_one_function_go_away_one_by_one(commit):
    sandbox, _, issues = commit
    of_function = Counter(issue.bug.function for issue in issues)
    assert max(of_function.values()) >= 2
    for issue in issues:
        path = sandbox.work / issue.bug.function.path
        calls = [check.call for check in issue.bug.checks]
        path.write_text(issue.fix.on(issue.text))
        assert observe(sandbox, calls) == [check.expected for check in issue.bug.checks]
        for other in issues:
            if other.fix != issue.fix and other.bug.function.path == issue.bug.function.path:
                path.write_text(other.fix.on(other.text))
                assert observe(sandbox, calls) != [check.expected for check in issue.bug.checks]
                break
        path.write_text(issue.text)


def test_readers_take_the_runs_and_couples_exist(made):
    out, forged = made
    runs = [located.run for located in open_source(out)]
    assert [run.instance_id for run in runs] == [f"forge__{LIBRARY}-{n}" for n in range(1, 7)]
    assert forged.runs == 6
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
    for name in (str(scratch), str(repository), "/forge-", "FORGE_ROOT"):
        assert name not in text


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(made, tmp_path):
    out, _ = made
    forge(LIBRARY, 6, tmp_path / "again.jsonl", seed=3, workers=1, progress=False)
    assert (tmp_path / "again.jsonl").read_bytes() == out.read_bytes()


def test_another_seed_gives_other_runs_and_compression_the_same_ones(made, tmp_path):
    forge(LIBRARY, 2, tmp_path / "other.jsonl.zst", seed=4, workers=2, progress=False)
    runs = [located.run for located in open_source(tmp_path / "other.jsonl.zst")]
    known = [located.run for located in open_source(made[0])]
    assert len(runs) == 2
    assert not {run.patch for run in runs} & {run.patch for run in known}


def test_counts_add_up_and_nothing_stays_behind(made, scratch):
    out, forged = made
    forged.funnel.check()
    names = {stage.name for stage in forged.funnel}
    assert names == {"functions", "mutations", "issues", "commits", "runs"}
    assert forged.funnel.stage("runs").left == 6
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
    text = observation(Finished(0, "a" * 9_000 + "b" * 9_000))
    assert "<elided_chars>\n8000 characters elided" in text
    assert text.count("a" * 5_000) == text.count("b" * 5_000) == 1
    assert observation(Finished(2, "")) == "<returncode>2</returncode>\n<output>\n</output>"
    assert json.dumps(observation(Finished(0, "x" * 9_999)))
