"""``contextrl demo --agent``: tasks, episodes and a page, as a user sees them."""

from __future__ import annotations

import asyncio
import json

import pytest

from contextrl_verl.agents.task import Call, ForgeChecks, Outcome, Question, SweTask, TaskBase
from contextrl_verl.cli import app
from contextrl_verl.demo.agent import ByteTokens, Script, replies_for


def test_bytes_are_kept_as_they_are_and_only_added_to():
    tokens = ByteTokens()
    first = [{"role": "user", "content": "an issue <|end|> é"}]
    ids = asyncio.run(tokens.prompt(first))
    said, logprobs = asyncio.run(Script(["I look.", "again"]).generate(ids, 100))
    assert (tokens.text(said), said[-1], len(logprobs)) == ("I look.", tokens.end_of_turn, len(said))
    more = asyncio.run(tokens.user_turn([*first, {"role": "assistant", "content": "I look."}], ids + said, "output"))
    whole = [*first, {"role": "assistant", "content": "I look."}, {"role": "user", "content": "output"}]
    assert ids + said + more == asyncio.run(tokens.prompt(whole))
    assert len(asyncio.run(Script(["too long"]).generate(ids, 3))[0]) == 3


def test_a_script_needs_a_file_that_is_mended():
    checks = ForgeChecks(module="m", questions=[Question(call=Call((), "m.f()"), expected=Outcome("value", "1"))])
    task = SweTask(instance_id="i", repository="a/b", base=TaskBase(folder="x"), issue="i", checks=checks, reference="")
    with pytest.raises(ValueError, match="i: the script mends one file"):
        replies_for(task)


@pytest.mark.slow
def test_the_command_shows_an_episode_and_writes_a_page(tmp_path):
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, ["demo", "--agent", "--tasks", "2", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    for said in ("THOUGHT: I change the lines that are wrong.", "<returncode>0</returncode>", "reward 1"):
        assert said in done.output
    assert json.loads((tmp_path / "summary.json").read_text())["resolved"] == 2
    assert "THOUGHT" in (tmp_path / "page" / "index.html").read_text()
