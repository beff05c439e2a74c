"""Episodes in the sandbox that this machine has, judged by the real verifier."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from episode_factory import DONE, FIX, ChatTokens, Scripted, episode_of, make_task, says

from contextrl_verl.agents.ending import Ending
from contextrl_verl.agents.episode import run_episode
from contextrl_verl.agents.settings import AgentSettings
from contextrl_verl.sandbox import open_sandbox, rungs

RUN = says('python -c "import calc; print(calc.add(1, 2))"')


@pytest.fixture(scope="module")
def sandbox():
    first = rungs()[0]
    if not first.usable:
        pytest.skip(f"no bubblewrap here: {first.detail}")
    return open_sandbox(first.name)


@pytest.fixture
def tokens():
    return ChatTokens("qwen2.5")


def test_a_repair_is_found_by_the_host_and_judged_by_what_it_answers(tmp_path, tokens, sandbox):
    task = make_task(tmp_path)
    episode = episode_of(task, Scripted(tokens, [RUN, says(FIX), RUN, says(DONE)]), sandbox)
    assert (episode.ending, episode.reward, episode.detail) == (Ending.SUBMITTED, 1.0, episode.detail)
    told = [message["content"] for message in episode.messages if message["role"] == "user"]
    assert "<output>\n-1\n</output>" in told[1]
    assert "<output>\n3\n</output>" in told[3]
    assert episode.verdict.reason.value == "resolved"
    wrong = Scripted(tokens, [says(FIX.replace("+", "*")), says(f"{DONE}; cat calc.py")])
    episode = episode_of(task, wrong, sandbox)
    assert (episode.ending, episode.reward, episode.verdict.reason.value) == (Ending.SUBMITTED, 0.0, "wrong")


def test_a_link_out_of_the_repository_is_a_cheat(tmp_path, tokens, sandbox):
    script = [says("rm calc.py; ln -s /etc/passwd calc.py"), says(DONE)]
    episode = episode_of(make_task(tmp_path), Scripted(tokens, script), sandbox)
    assert (episode.ending, episode.kept, episode.reward) == (Ending.CHEAT, True, 0.0)
    assert episode.detail.startswith("symlink: ")


@pytest.mark.parametrize(
    "command",
    [
        "ls\0",
        "echo " + "x" * 140_000,
        "rm -rf /testbed /tmp ~",
        "kill -9 -1; kill -9 $PPID",
        "rm calc.py; mkfifo calc.py",
        "ulimit -v 1; yes",
        "echo exit 1 > ~/.bashrc; cd /; yes > /tmp/full",
    ],
)
def test_a_model_cannot_have_its_episode_dropped(tmp_path, tokens, sandbox, command):
    """What breaks the box from within would spare it the reward 0."""
    settings = AgentSettings(limits={"seconds": 2}, turn_tokens=10**6)
    script = [says(command), says("echo still here"), says(DONE)]
    episode = episode_of(make_task(tmp_path), Scripted(tokens, script), sandbox, settings, response_length=10**6)
    assert (episode.ending, episode.reward) == (Ending.SUBMITTED, 0.0)
    assert "<output>\nstill here\n</output>" in episode.messages[5]["content"]


def test_a_model_that_shuts_itself_out_is_kept_too(tmp_path, tokens, sandbox):
    script = [says(FIX), says("chmod 000 /testbed"), says(DONE)]
    episode = episode_of(make_task(tmp_path), Scripted(tokens, script), sandbox, AgentSettings(turns=3))
    assert (episode.ending, episode.kept, episode.reward) == (Ending.TURNS, True, 0.0)
    assert "<returncode>126</returncode>" in episode.messages[-1]["content"]
    assert "+    return a + b" in episode.patch


def test_episodes_side_by_side_and_cancelled_leave_no_process(tmp_path, tokens, sandbox):
    task = make_task(tmp_path)
    before = {child.pid for child in psutil.Process().children(recursive=True)}

    async def run():
        with ThreadPoolExecutor(5) as executor:

            def one(script):
                policy = Scripted(tokens, script)
                given = {"prompt_length": 9999, "response_length": 9999}
                return run_episode(task, policy, tokens, AgentSettings(), sandbox, executor, **given)

            sleeping = asyncio.ensure_future(one([says("touch here; sleep 1000 & sleep 1000")]))
            episodes = await asyncio.gather(*(one([says(FIX), says(DONE)]) for _ in range(4)))
            while sum(child.name() == "sleep" for child in psutil.Process().children(recursive=True)) < 2:
                await asyncio.sleep(0.02)
            sleeping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sleeping
            return episodes

    episodes = asyncio.run(run())
    assert [episode.reward for episode in episodes] == [1.0] * 4
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
