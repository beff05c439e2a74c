"""What the server saw is what is trained, whatever the model says: ids, masks and log-probabilities."""

from __future__ import annotations

from pathlib import Path

import pytest
from episode_factory import DONE, ChatTokens, FolderSandbox, Scripted, episode_of, make_task, says
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contextrl_verl.agents.ending import Ending
from contextrl_verl.agents.protocol import SUBMIT
from contextrl_verl.agents.settings import AgentSettings
from contextrl_verl.sandbox.box import Finished

FAMILIES = ["qwen2.5", "llama3"]


class Echo:
    """Gives back what it is told, twice, which may spell special tokens; runs nothing."""

    def __init__(self, base, folder):
        pass

    def run(self, command, *, stdin="", seconds=None):
        return Finished(len(command) % 3, SUBMIT if command == DONE else command * 2, "", 0.1)

    def diff(self):
        return ""

    def close(self):
        pass


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return make_task(tmp_path_factory.mktemp("task"))


@pytest.fixture
def tokens():
    return ChatTokens("qwen2.5")


@pytest.fixture
def sandbox():
    return FolderSandbox(Path(), Echo)


def checked(policy, episode):
    """The conversation is what the policy saw and said, in turn; what it said is marked, and nothing else is."""
    whole = episode.prompt_ids + episode.response_ids
    mask, logprobs = [0] * len(episode.response_ids), [0.0] * len(episode.response_ids)
    for seen, (reply, values) in zip(policy.seen, policy.said, strict=True):
        assert whole[: len(seen)] == seen
        assert whole[len(seen) : len(seen) + len(reply)] == reply
        start = len(seen) - len(episode.prompt_ids)
        mask[start : start + len(reply)] = [1] * len(reply)
        logprobs[start : start + len(reply)] = values
    assert episode.response_mask == mask
    assert episode.logprobs == logprobs
    assert whole == policy.seen[-1] + policy.said[-1][0]
    return whole


@pytest.mark.parametrize("family", FAMILIES)
def test_seven_turns_are_one_conversation_of_the_chat_template(task, family):
    tokens = ChatTokens(family)
    script = [says(f"echo {number} ünï") for number in range(7)]
    policy = Scripted(tokens, script)
    episode = episode_of(task, policy, FolderSandbox(Path(), Echo), AgentSettings(turns=7))
    assert episode.ending is Ending.TURNS
    assert len(policy.seen) == 7
    whole = checked(policy, episode)
    # The model ended each turn itself, so the ids are those of the template over the messages.
    messages = [{key: message[key] for key in ("role", "content")} for message in episode.messages[:-1]]
    shown = tokens._rendered(messages, False)
    assert shown[: len(whole)] == whole
    assert len(shown) - len(whole) <= 1  # the line break behind the last turn


replies = st.one_of(
    st.text(max_size=60).map(says),
    st.text(max_size=60),
    st.sampled_from(["```bash\nls\n", says("a") + says("b"), "<think>\n" + says("x"), "<|im_end|>", "<|eot_id|>"]),
    st.lists(st.integers(0, 250), min_size=1, max_size=60),
)


@pytest.mark.parametrize("family", FAMILIES)
@given(
    script=st.lists(replies, min_size=6, max_size=6),
    turn_tokens=st.integers(1, 120),
    response_length=st.one_of(st.just(20_000), st.integers(1, 3000)),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_model_says_is_kept_to_the_id(task, family, script, turn_tokens, response_length):
    policy = Scripted(ChatTokens(family), script)
    given = AgentSettings(turns=6, turn_tokens=turn_tokens, format_errors=10, repeats=10)
    episode = episode_of(task, policy, FolderSandbox(Path(), Echo), given, response_length=response_length)
    assert episode.ending in (Ending.TURNS, Ending.TOKENS)
    if response_length == 20_000:
        assert len(policy.seen) == 6
    checked(policy, episode)
    assert len(episode.response_ids) <= response_length
    assert all(most == min(turn_tokens, response_length - len(seen) + len(episode.prompt_ids))
               for most, seen in zip(policy.most, policy.seen, strict=True))  # fmt: skip


# Budgets of tokens


def test_a_reply_may_take_a_turns_tokens_or_what_is_left(task, tokens, sandbox):
    policy = Scripted(tokens, [says("ls"), says("pwd"), says("ls -a")])
    unbounded = episode_of(task, policy, sandbox, AgentSettings(turns=3, turn_tokens=60))
    assert policy.most == [60, 60, 60]
    used = len(policy.seen[2]) - len(unbounded.prompt_ids)
    policy = Scripted(tokens, policy.script)
    episode_of(task, policy, sandbox, AgentSettings(turns=3, turn_tokens=60), response_length=used + 7)
    assert policy.most == [60, 60, 7]
    assert policy.seen[2] == unbounded.prompt_ids + unbounded.response_ids[:used]


@pytest.mark.parametrize("short", [1, 0])
def test_an_observation_needs_room_for_a_reply(task, tokens, sandbox, short):
    policy = Scripted(tokens, [says("ls"), says("pwd")])
    episode_of(task, policy, sandbox, AgentSettings(turns=2))
    needed = len(policy.seen[1]) - len(policy.seen[0]) + 1
    policy = Scripted(tokens, policy.script)
    episode = episode_of(task, policy, sandbox, response_length=needed - short)
    assert episode.ending is Ending.TOKENS
    assert len(policy.seen) == 1 + (not short)
    assert len(episode.response_ids) == (len(policy.said[0][0]) if short else needed)
    assert episode.kept


def test_a_reply_that_uses_everything_up_may_still_submit(task, tokens, sandbox):
    length = len(tokens.ids(says(DONE)))
    episode = episode_of(task, Scripted(tokens, [says(DONE)]), sandbox, response_length=length)
    assert episode.ending is Ending.SUBMITTED
    episode = episode_of(task, Scripted(tokens, [says(DONE)]), sandbox, response_length=length - 3)
    assert (episode.ending, episode.response_mask) == (Ending.TOKENS, [1] * (length - 3))


def test_a_cut_reply_is_closed_with_a_token_that_is_not_trained_on(task, tokens, sandbox):
    long = tokens.ids("THOUGHT: " + "and " * 60)
    policy = Scripted(tokens, [long, says(DONE)])
    episode = episode_of(task, policy, sandbox, AgentSettings(turn_tokens=40))
    assert episode.messages[2]["extra"]["cut"]
    assert "Your reply was cut" in episode.messages[3]["content"]
    assert episode.response_ids[:41] == [*long[:40], tokens.end_of_turn]
    assert episode.response_mask[:41] == [1] * 40 + [0]
    assert policy.seen[1][: len(episode.prompt_ids) + 41] == episode.prompt_ids + episode.response_ids[:41]
    # A whole reply as long as the budget is not cut, and is not closed twice.
    policy = Scripted(tokens, [says("ls"), says(DONE)])
    length = len(tokens.ids(says("ls")))
    episode = episode_of(task, policy, sandbox, AgentSettings(turn_tokens=length))
    assert not episode.messages[2]["extra"]["cut"]
    assert episode.response_ids[length - 1] == tokens.end_of_turn != episode.response_ids[length]
