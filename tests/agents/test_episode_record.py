"""The record of an episode: read back by the pair pipeline with its patch, and free of secrets."""

from __future__ import annotations

import json

import pytest
from episode_factory import DONE, FIX, ChatTokens, FolderSandbox, Scripted, episode_of, make_task, says

from contextrl_verl.agents import episode as module
from contextrl_verl.agents.settings import AgentSettings
from contextrl_verl.agents.verify import Reason, Verdict
from data_prep.trajectories.actions import actions_of
from data_prep.trajectories.readers import open_source

TOKEN = "ghp_" + "a1B2" * 9


@pytest.fixture
def run(tmp_path, monkeypatch):
    def verify(task, patch, sandbox):
        return Verdict("a + b" in patch, Reason.RESOLVED if "a + b" in patch else Reason.WRONG, "", 0.1, {"tests": 1})

    monkeypatch.setattr(module, "verify", verify)

    def run(script, name="step1/one", **settings):
        policy = Scripted(ChatTokens("qwen2.5"), script)
        given = AgentSettings(records=str(tmp_path / "records"), **settings)
        episode = episode_of(make_task(tmp_path), policy, FolderSandbox(tmp_path), given, name=name)
        return episode, json.loads((tmp_path / "records" / f"{name}.traj.json").read_text())

    return run


def test_the_pair_pipeline_reads_episodes_back_with_their_patches(run, tmp_path):
    fence = "mswea_bash_command"
    repaired, _ = run(
        [says("cat calc.py", fence=fence), "?", says(FIX, fence=fence), says(DONE, fence=fence)], fence=fence
    )
    given_up, _ = run([says(FIX.replace("+", "*"))], "step1/two", turns=1)
    first, second = (located.run for located in open_source(tmp_path / "records"))
    assert (first.instance_id, first.repository, first.issue) == ("owner__name-7", "owner/name", "calc.add subtracts.")
    assert (first.source, first.outcome, first.patch_origin) == ("mini-swe-agent-1.1", "resolved", "submitted")
    assert first.patch == repaired.patch
    assert "+    return a + b" in first.patch
    assert (second.patch, second.outcome) == (given_up.patch, "unknown")
    assert "+    return a * b" in second.patch
    # All that was said, and the patch as the last turn.
    assert [turn.content for turn in first.messages] == [*(m["content"] for m in repaired.messages), repaired.patch]
    actions = list(actions_of(first))
    assert [action.script for action in actions] == ["cat calc.py", FIX, DONE]
    assert actions[0].output.code == 0
    assert actions[0].output.head == "def add(a, b):\n    return a - b\n"


def test_a_record_says_how_it_went(run):
    episode, record = run([says("ls"), "no command", says(DONE)])
    own = record["contextrl"]
    assert own["verdict"] == {
        "resolved": False, "reason": "wrong", "detail": "", "seconds": 0.1, "dropped": {"tests": 1}
    }  # fmt: skip
    assert (own["ending"], own["fault"], own["reward"], own["detail"]) == ("submitted", "model", 0.0, "wrong")
    assert own["metrics"].keys() == episode.metrics.keys()
    assert own["metrics"]["turns"] == 3
    assert (record["resolved"], record["info"]["exit_status"]) == (False, "Submitted")
    assert record["info"]["model_stats"]["api_calls"] == 3
    said, seen, wrong, told, _, last = record["messages"][2:]
    assert said["extra"]["actions"] == [{"command": "ls"}]
    assert said["extra"].keys() == {"tokens", "seconds", "cut", "actions"}
    assert seen["extra"].keys() == {"returncode", "ended", "seconds", "tokens"}
    assert "actions" not in wrong["extra"]
    assert told["role"] == "user"
    assert (last["role"], last["content"]) == ("exit", "")
    assert sum(message["extra"]["tokens"] for message in record["messages"][2:-1]) == len(episode.response_ids)


def test_without_a_verdict_nothing_is_said_of_the_outcome(run):
    _, record = run([says("ls")], turns=1)
    assert "resolved" not in record
    assert (record["contextrl"]["verdict"], record["info"]["exit_status"]) == (None, "turns")
    # What the last command gave back is in the record, although nobody read it.
    assert "calc.py" in record["messages"][3]["content"]


def test_records_hold_no_secrets(run):
    episode, record = run([says(f"echo {TOKEN} | tee key.txt"), says(DONE)])
    assert TOKEN in episode.messages[3]["content"]
    assert TOKEN in episode.patch
    assert TOKEN not in json.dumps(record)
    assert json.dumps(record).count("<REDACTED:token>") == 6  # reply, action, output, submission twice, last turn


def test_half_a_surrogate_pair_does_not_stop_a_record(run, monkeypatch):
    monkeypatch.setattr(ChatTokens, "text", lambda self, ids: says("echo \udc80"))
    _, record = run(["x"], turns=1)
    assert record["messages"][2]["extra"]["actions"] == [{"command": "echo \udc80"}]
