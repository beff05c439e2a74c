"""``contextrl show`` of records: turns, outcome and diff on one page, whatever the texts hold."""

from __future__ import annotations

import json

import pytest
from page_reader import read
from typer.testing import CliRunner

from contextrl_verl.cli import app
from contextrl_verl.errors import ConfigError
from data_prep.report.episode import read_episode, write_episodes

COMMAND = "ls <script>alert(1)</script>"
PATCH = "diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-old <b>\n+new\n"


def record(**changed):
    """As contextrl_verl.agents.record writes it."""
    return {
        "trajectory_format": "mini-swe-agent-1.1", "instance_id": "ann__shapes-1", "repo": "ann/shapes",
        "resolved": True,
        "info": {"exit_status": "Submitted", "submission": PATCH, "model_stats": {"api_calls": 2}},
        "messages": [
            {"role": "system", "content": "You repair."},
            {"role": "user", "content": "The area of a box is wrong."},
            {"role": "assistant", "content": f"THOUGHT: I look.\n\n```bash\n{COMMAND}\n```",
             "extra": {"tokens": 1234, "seconds": 0.5, "cut": False, "actions": [{"command": COMMAND}]}},
            {"role": "user", "content": "<returncode>2</returncode>\n<output>\nno\x1b[31m such\n</output>",
             "extra": {"returncode": 2, "ended": "timeout", "seconds": 7.25, "tokens": 9}},
            {"role": "assistant", "content": "I have no command.", "extra": {"tokens": 5, "seconds": 0.1, "cut": True}},
            {"role": "exit", "content": PATCH, "extra": {}},
        ],
        "contextrl": {"ending": "submitted", "fault": "model", "detail": "", "reward": 1.0,
                      "verdict": {"resolved": True, "reason": "resolved", "detail": "", "seconds": 1.5, "dropped": {}},
                      "metrics": {"turns": 2.0, "seconds": 9.5, "model_tokens": 1239.0}},
        **changed,
    }  # fmt: skip


def save(folder, **records):
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in records.items():
        (folder / f"{name}.traj.json").write_text(one if isinstance(one, str) else json.dumps(one))
    return folder


def test_an_episode_is_shown_turn_by_turn(tmp_path):
    path = save(tmp_path / "in", one=record()) / "one.traj.json"
    done = CliRunner().invoke(app, ["show", str(path), "--out", str(tmp_path / "page")])
    assert done.exit_code == 0, done.output
    page, html = read(tmp_path / "page" / "index.html"), (tmp_path / "page" / "index.html").read_text()
    for said in ("THOUGHT: I look.", "ls <script>alert(1)</script>", "exit status 2", "ended by its limit: timeout",
                 "7.25 s", "1,234 tokens", "no command that could be carried out", "cut at its limit of tokens",
                 "submitted, 2 turns: resolved", "The area of a box is wrong.", "␛[31m such"):  # fmt: skip
        assert said in page.words, said
    assert "<script>" not in html
    assert '<span class="del">-old &lt;b&gt;\n</span><span class="add">+new\n</span>' in html
    assert '<span class="tag right">resolved</span>' in html


def test_a_folder_is_counted_and_what_is_no_record_is_told(tmp_path):
    lost = record(contextrl={"ending": "sandbox", "fault": "infrastructure", "verdict": None, "metrics": {}})
    del lost["resolved"]
    wrong = record(resolved=False)
    wrong["contextrl"]["verdict"] |= {"resolved": False, "reason": "wrong", "detail": "2 of 5 calls"}
    folder = save(tmp_path / "in/step1", a=record(), b=wrong)
    save(tmp_path / "in/step2", c=lost, d="{", e='{"messages": 3}')
    write_episodes(tmp_path / "in", tmp_path / "page", 10, 1)
    page = read(tmp_path / "page" / "index.html")
    summary = json.loads((tmp_path / "page" / "summary.json").read_text())
    assert (summary["episodes"], summary["resolved"], summary["shown"]) == (3, 1, 3)
    assert "2 of 5 files are no records. The first:" in page.words
    for said in ("not resolved", "no verdict", "wrong: 2 of 5 calls"):
        assert said in page.words
    assert read_episode(folder / "b.traj.json").status == "not resolved"


def test_a_record_of_mini_swe_agent_itself_is_read_too(tmp_path):
    record_of_theirs = {
        "info": {"exit_status": "LimitsExceeded", "submission": ""},
        "messages": [{"role": "user", "content": "issue"}, {"role": "assistant", "content": "```bash\nls\n```"}],
    }
    episode = read_episode(save(tmp_path, theirs=record_of_theirs) / "theirs.traj.json")
    assert (episode.title, episode.status, episode.ending, len(episode.turns)) == (
        "theirs",
        "no verdict",
        "LimitsExceeded",
        1,
    )


@pytest.mark.parametrize(("name", "text"), [("none", None), ("json", "{"), ("list", "[]"), ("text", '"x"')])
def test_what_is_no_record_is_a_sentence(tmp_path, name, text):
    folder = save(tmp_path / "in", **({} if text is None else {name: text}))
    with pytest.raises(ConfigError, match="Fix: "):
        write_episodes(folder, tmp_path / "page", 5, 1)
