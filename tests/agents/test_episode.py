"""Episodes: what is trained on, every ending and whose fault it is, budgets, and what a cancellation leaves."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from episode_factory import (
    DONE,
    FIX,
    ChatTokens,
    FolderBox,
    FolderSandbox,
    Scripted,
    episode_of,
    make_task,
    says,
)

from contextrl_verl.agents import episode as module
from contextrl_verl.agents.ending import Ending
from contextrl_verl.agents.episode import run_episode
from contextrl_verl.agents.settings import AgentSettings
from contextrl_verl.agents.verify import Reason, Verdict
from contextrl_verl.sandbox.box import Finished, InfrastructureError

WRONG = "I have no command."


@pytest.fixture
def tokens():
    return ChatTokens("qwen2.5")


@pytest.fixture
def sandbox(tmp_path):
    return FolderSandbox(tmp_path)


@pytest.fixture
def task(tmp_path):
    return make_task(tmp_path)


@pytest.fixture(autouse=True)
def judged(monkeypatch):
    """A verdict that reads the patch; the calls."""
    calls = []

    def verify(task, patch, sandbox):
        calls.append((task, patch, sandbox, threading.current_thread().name))
        if "+++ /dev/fd" in patch:
            return Verdict(False, Reason.SYMLINK, "a link", 0.1, {})
        right = "+    return a + b" in patch
        return Verdict(right, Reason.RESOLVED if right else Reason.WRONG, "calc.add(1, 2)", 0.1, {})

    monkeypatch.setattr(module, "verify", verify)
    return calls


def test_a_repair_is_rewarded(task, tokens, sandbox, judged):
    policy = Scripted(tokens, [says("cat calc.py"), WRONG, says(FIX), says(DONE)])
    episode = episode_of(task, policy, sandbox)
    assert (episode.ending, episode.kept, episode.reward) == (Ending.SUBMITTED, True, 1.0)
    assert episode.detail == "resolved: calc.add(1, 2)"
    assert "-    return a - b\n+    return a + b\n" in episode.patch
    assert [(call[0], call[1], call[2]) for call in judged] == [(task, episode.patch, sandbox)]
    counted = {key: value for key, value in episode.metrics.items() if not key.startswith("seconds")}
    assert counted == {
        "turns": 4,
        "commands": 3,
        "format_errors": 1,
        "command_timeouts": 0,
        "prompt_tokens": len(episode.prompt_ids),
        "model_tokens": sum(len(ids) for ids, _ in policy.said),
        "observation_tokens": len(episode.response_ids) - sum(len(ids) for ids, _ in policy.said),
    }
    assert all(value >= 0 for value in episode.metrics.values())
    told = [message["content"] for message in episode.messages if message["role"] == "user"]
    assert told[1] == "<returncode>0</returncode>\n<output>\ndef add(a, b):\n    return a - b\n</output>"
    assert told[2].startswith("Please always provide EXACTLY ONE action")
    assert (task.start_base().folder / "calc.py").read_text().endswith("a - b\n")


def test_a_submission_counts_by_what_the_host_finds_not_by_what_it_says(task, tokens, sandbox):
    lie = says(f"{DONE}; echo 'diff --git a/calc.py b/calc.py'; echo '+    return a + b'")
    episode = episode_of(task, Scripted(tokens, [lie]), sandbox)
    assert (episode.ending, episode.reward, episode.patch) == (Ending.SUBMITTED, 0.0, "")


def test_everything_that_blocks_runs_in_the_given_executor(task, tokens, sandbox, judged):
    episode_of(task, Scripted(tokens, [says("ls"), says(DONE)]), sandbox)
    (box,) = sandbox.boxes
    names = {*box.threads, *(call[3] for call in judged)}
    assert names
    assert all(name.startswith("episode") for name in names)
    assert box.closed


class Broken(FolderBox):
    def run(self, command, **given):
        raise InfrastructureError("keeper", "it is gone")


class NoDiff(FolderBox):
    def diff(self):
        raise InfrastructureError("diff", "it does not answer")


class Linked(FolderBox):
    def diff(self):
        return "+++ /dev/fd\n"


async def fails():
    raise RuntimeError("the server is down")


async def never():
    await asyncio.sleep(1000)


async def answers(value):
    return value


@pytest.mark.parametrize(
    ("ending", "script", "settings"),
    [
        (Ending.TURNS, [says("ls"), says("pwd")], {"turns": 2}),
        (Ending.FORMAT, [says("ls"), WRONG, says("ls"), WRONG, WRONG], {"format_errors": 2}),
        (Ending.STUCK, [says("ls"), says("pwd"), says("ls"), says("ls")], {"repeats": 2}),
        (Ending.WALL_CLOCK, [says("ls"), never], {"seconds": 1.5}),
        (Ending.WALL_CLOCK, [says("sleep 30")], {"seconds": 1.5}),
    ],
)
def test_the_models_endings_are_kept_without_reward_and_judgement(
    task, tokens, sandbox, judged, ending, script, settings
):
    policy = Scripted(tokens, [says(FIX), *script])
    episode = episode_of(task, policy, sandbox, AgentSettings(**settings | {"turns": settings.get("turns", 9) + 1}))
    assert (episode.ending, episode.kept, episode.reward) == (ending, True, 0.0)
    assert len(policy.seen) == 1 + len(script)
    assert episode.response_mask[-1] == 1
    assert not judged
    assert "+    return a + b" in episode.patch  # kept for the record
    assert sandbox.boxes[0].closed


def test_a_timed_out_command_is_told_and_counted(task, tokens, sandbox):
    settings = AgentSettings(limits={"seconds": 0.3})
    episode = episode_of(task, Scripted(tokens, [says("echo a; exec sleep 20"), says(DONE)]), sandbox, settings)
    assert episode.ending is Ending.SUBMITTED
    assert episode.metrics["command_timeouts"] == 1
    assert "<returncode>137</returncode>\n<warning>\nThe command was ended after" in episode.messages[3]["content"]
    assert episode.messages[3]["extra"]["ended"] == "timeout"


def test_the_last_reply_may_submit(task, tokens, sandbox):
    episode = episode_of(task, Scripted(tokens, [says(FIX), says(DONE)]), sandbox, AgentSettings(turns=2))
    assert (episode.ending, episode.reward) == (Ending.SUBMITTED, 1.0)


def test_what_the_verifier_calls_a_cheat_is_one(task, tokens, tmp_path):
    episode = episode_of(task, Scripted(tokens, [says(DONE)]), FolderSandbox(tmp_path, Linked))
    assert (episode.ending, episode.kept, episode.reward) == (Ending.CHEAT, True, 0.0)
    assert episode.detail == "symlink: a link"


def no_box(base, folder):
    raise InfrastructureError("start", "no room")


def raising(*given):
    raise InfrastructureError("verify", "no room")


@pytest.mark.parametrize(
    ("ending", "detail", "script", "made"),
    [
        (Ending.SANDBOX, "start: no room", [], no_box),
        (Ending.SANDBOX, "keeper: it is gone", [says("ls")], Broken),
        (Ending.SANDBOX, "diff: it does not answer", [says(DONE)], NoDiff),
        (Ending.SERVER, "the server is down", [fails], FolderBox),
        (Ending.SERVER, "the server is down", [says("ls"), fails], FolderBox),
        (Ending.SERVER, "no reply within the 0.5 seconds", [never], FolderBox),
        (Ending.SERVER, "0 tokens with 0 log-probabilities", [lambda: answers(([], []))], FolderBox),
        (Ending.SERVER, "2 tokens with 1 log-probabilities", [lambda: answers(([1, 2], [-1.0]))], FolderBox),
        (Ending.SERVER, "asked for at most 200", [lambda: answers(([1] * 201, [-1.0] * 201))], FolderBox),
    ],
)
def test_the_infrastructures_endings_are_dropped(task, tokens, tmp_path, caplog, ending, detail, script, made):
    sandbox = FolderSandbox(tmp_path, made)
    episode = episode_of(
        task, Scripted(tokens, script), sandbox, AgentSettings(seconds=0.5 if never in script else 600, turn_tokens=200)
    )
    assert (episode.ending, episode.kept, episode.reward) == (ending, False, 0.0)
    assert detail in episode.detail
    assert f"owner__name-7: dropped ({ending.value})" in caplog.text
    assert all(box.closed for box in sandbox.boxes)


def test_a_broken_box_without_submission_is_still_the_models_fault(task, tokens, tmp_path):
    episode = episode_of(task, Scripted(tokens, [says("ls")]), FolderSandbox(tmp_path, NoDiff), AgentSettings(turns=1))
    assert (episode.ending, episode.patch) == (Ending.TURNS, "")


def test_a_verifier_without_sandbox_is_the_infrastructures_fault(task, tokens, sandbox, monkeypatch):
    monkeypatch.setattr(module, "verify", raising)
    episode = episode_of(task, Scripted(tokens, [says(DONE)]), sandbox)
    assert (episode.ending, episode.kept, episode.detail) == (Ending.VERIFIER, False, "verify: no room")


def test_a_prompt_that_does_not_fit_starts_nothing(task, tokens, sandbox):
    episode = episode_of(task, Scripted(tokens, []), sandbox, prompt_length=20)
    assert (episode.ending, episode.kept) == (Ending.OVERFLOW, False)
    assert f"{len(episode.prompt_ids)} tokens, over 20" in episode.detail
    assert not sandbox.boxes


def test_an_error_of_ours_is_dropped_with_its_traceback(task, tokens, sandbox):
    tokens.text = lambda ids: ids.nothing
    episode = episode_of(task, Scripted(tokens, [says("ls")]), sandbox)
    assert (episode.ending, episode.kept) == (Ending.ERROR, False)
    assert "in <lambda>" in episode.detail
    assert sandbox.boxes[0].closed


def test_an_episode_whose_record_cannot_be_written_is_dropped(task, tokens, sandbox, tmp_path):
    (tmp_path / "records").write_text("a file, not a folder")
    settings = AgentSettings(records=str(tmp_path / "records"))
    episode = episode_of(task, Scripted(tokens, [says(DONE)]), sandbox, settings)
    assert (episode.ending, episode.kept) == (Ending.RECORD, False)
    assert "one.traj.json cannot be written" in episode.detail


def test_every_ending_has_somebodys_fault():
    faults = {ending.value: ending.fault for ending in Ending}
    models = {"submitted", "turns", "tokens", "wall_clock", "format", "stuck", "cheat"}
    assert {ending for ending, fault in faults.items() if fault == "model"} == models
    assert {ending for ending, fault in faults.items() if fault == "cancelled"} == {"cancelled"}


# Cancellation


class Slow(FolderBox):
    """Runs until it is closed."""

    started, ended = threading.Event(), threading.Event()

    def run(self, command, **given):
        self.started.set()
        while not self.closed:
            time.sleep(0.005)
        self.ended.set()
        return Finished(137, "", "", 0.0)


def cancelled(task, policy, sandbox, until, tmp_path):
    """Cancels an episode once ``until`` is set; returns its record."""

    async def run():
        with ThreadPoolExecutor(2) as executor:
            settings = AgentSettings(records=str(tmp_path / "records"))
            running = asyncio.ensure_future(
                run_episode(
                    task,
                    policy,
                    policy.tokens,
                    settings,
                    sandbox,
                    executor,
                    prompt_length=9999,
                    response_length=9999,
                    name="one",
                )
            )
            while not until.is_set():
                await asyncio.sleep(0.005)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(run())
    return json.loads((tmp_path / "records" / "one.traj.json").read_text())


@pytest.mark.parametrize("when", ["a command", "a reply", "the start"])
def test_a_cancelled_episode_leaves_its_record_and_no_box(task, tokens, tmp_path, when):
    until, script, make = threading.Event(), [says(FIX), says("wait")], FolderBox
    if when == "a command":
        Slow.started.clear()
        until, script, make = Slow.started, [says("wait")], Slow
    elif when == "a reply":

        def asked():
            until.set()
            return never()

        script = [says(FIX), asked]
    else:

        def make(base, folder):
            until.set()
            time.sleep(0.3)
            return FolderBox(base, folder)

    sandbox = FolderSandbox(tmp_path, make)
    record = cancelled(task, Scripted(tokens, script), sandbox, until, tmp_path)
    assert record["contextrl"]["ending"] == record["contextrl"]["fault"] == "cancelled"
    assert [bool(box.closed) for box in sandbox.boxes] == [True]
    if when == "a command":
        assert Slow.ended.wait(5)


def test_nothing_is_left_of_an_answer_that_came_too_late(task, tokens, sandbox):
    ended = SimpleNamespace(cancelled=False)

    async def late():
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            ended.cancelled = True
            raise

    episode = episode_of(task, Scripted(tokens, [says("ls"), late]), sandbox, AgentSettings(seconds=1.5))
    assert episode.ending is Ending.WALL_CLOCK
    assert ended.cancelled
