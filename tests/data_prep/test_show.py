"""What of a run is a context."""

import pytest

from data_prep.trajectories.run import PATCH_MASKED, AgentRun, Message
from data_prep.trajectories.show import shown

ISSUE = "Reader.load loses the limit.\nIt should not."


def fence(thought, command):
    return ("assistant", f"THOUGHT: {thought}\n\n```bash\n{command}\n```\nThat is all.")


TURNS = [
    ("system", "You are an agent."),
    ("user", f"<pr_description>\n{ISSUE}\n</pr_description>\nNever edit tests."),
    fence("I look first.", "cat base.py"),
    ("user", "def load(): pass"),
    ("assistant", "I think:\n```python\nload(3)\n```\n<function=bash>\n<parameter=command>ls</parameter>\n</function>"),
    ("user", "base.py"),
    fence("I edit.", f"cat > base.py <<'EOF'\n{PATCH_MASKED}\nEOF"),
    ("user", "done"),
    fence("The fix works because of the limit.", "pytest"),
    ("user", "1 passed"),
    ("assistant", "In short: load keeps the limit now."),
]


def run_of(turns, issue=ISSUE):
    messages = tuple(Message(role=role, content=content) for role, content in turns)
    return AgentRun(instance_id="a__b-1", repository="a/b", issue=issue, messages=messages, source="test")


def texts(found):
    return [message.content for message in found.messages]


def test_all_shows_everything_but_what_the_harness_says():
    run = run_of(TURNS)
    found = shown(run, run.messages)
    assert texts(found) == [ISSUE, *(content for _, content in TURNS[2:])]
    assert found.messages[0].role == "user"
    assert (found.issue, found.edit) == (0, 5)


def test_observations_come_with_their_commands_and_no_words():
    run = run_of(TURNS)
    found = shown(run, run.messages, "observations")
    calls = [text for text in texts(found) if "```" in text or "<function" in text]
    assert calls == [
        "```bash\ncat base.py\n```",
        "<function=bash>\n<parameter=command>ls</parameter>\n</function>",
        f"```bash\ncat > base.py <<'EOF'\n{PATCH_MASKED}\nEOF\n```",
        "```bash\npytest\n```",
    ]
    assert [text for text in texts(found) if text not in calls] == [
        ISSUE,
        "def load(): pass",
        "base.py",
        "done",
        "1 passed",
    ]
    assert texts(found)[found.edit] == calls[2]


def test_reasoning_is_what_the_agent_said_and_did():
    run = run_of(TURNS)
    found = shown(run, run.messages, "reasoning")
    assert texts(found) == [ISSUE, *(content for role, content in TURNS if role == "assistant")]
    assert PATCH_MASKED in texts(found)[found.edit]


def test_the_summary_is_what_the_agent_says_after_its_last_edit():
    run = run_of(TURNS)
    found = shown(run, run.messages, hide_summary=True)
    assert texts(found)[:-3] == texts(shown(run, run.messages))[:-4]
    assert texts(found)[-3:] == ["done", "```bash\npytest\n```", "1 passed"]
    untouched = [Message(role=turn.role, content=turn.content.replace(PATCH_MASKED, "x")) for turn in run.messages]
    assert shown(run, untouched, hide_summary=True) == shown(run, untouched)


def test_what_the_agent_quotes_before_it_edits_is_no_edit():
    quoted = ("assistant", f"I might write:\n```python\n{PATCH_MASKED}\n```\n```bash\nls\n```")
    run = run_of([*TURNS[:2], quoted, ("user", "base.py"), *TURNS[2:], quoted])
    found = shown(run, run.messages, hide_summary=True)
    assert "cat > base.py" in texts(found)[found.edit]
    assert texts(found)[-1] == "```bash\nls\n```"
    only = run_of([*TURNS[:2], quoted])
    assert shown(only, only.messages).edit == 1


@pytest.mark.parametrize("show", ["all", "observations", "reasoning"])
def test_the_issue_goes_on_request(show):
    run = run_of(TURNS)
    found = shown(run, run.messages, show, hide_issue=True)
    assert found.issue is None
    assert texts(found) == texts(shown(run, run.messages, show))[1:]
    assert not any("loses the limit" in text for text in texts(found))


def test_a_masked_issue_stays_masked_and_an_unmarked_one_is_the_whole_turn():
    run = run_of(TURNS)
    masked = [*run.messages]
    masked[1] = Message(role="user", content=masked[1].content.replace("It should not.", PATCH_MASKED))
    assert texts(shown(run, masked))[0] == f"Reader.load loses the limit.\n{PATCH_MASKED}"
    for other in ("", "stated elsewhere"):
        whole = run_of(TURNS, other)
        assert texts(shown(whole, whole.messages))[0] == TURNS[1][1]
