"""What a reply asks for, and what the model is told."""

from __future__ import annotations

import pytest

from contextrl_verl.agents.protocol import SUBMIT, TEMPLATES, commands_in, is_submission, wording_of
from contextrl_verl.agents.settings import AgentSettings
from contextrl_verl.errors import ConfigError
from contextrl_verl.sandbox.box import Finished
from data_prep.trajectories.actions import Output, output_of

HEREDOC = "cat <<'EOF' > a.md\ntext with ``` in a line\nEOF"


@pytest.mark.parametrize(
    ("reply", "commands"),
    [
        ("THOUGHT: look\n\n```bash\nls -l\n```", ["ls -l"]),
        ("```bash  \r\nls\r\n```\r\n", ["ls\r"]),
        ("```bash\nls\n```\nand then\n```bash\npwd\n```", ["ls", "pwd"]),
        (f"```bash\n{HEREDOC}\n```", [HEREDOC]),
        ("```bash\nsed -i 1d a\n\nls\n```\ntrailing", ["sed -i 1d a\n\nls"]),
        ("no command at all", []),
        ("```python\nprint(1)\n```", []),
        ("```bash\n```", []),
        ("```bash\n  \n```", []),
        ("```bashful\nls\n```", []),
        ("cut in the middle\n```bash\nls", []),
        ("in a line ```bash ls```", []),
        ("<think>\n```bash\nrm -r .\n```\n</think>\n```bash\nls\n```", ["ls"]),
    ],
)
def test_commands_are_closed_blocks_of_the_fence(reply, commands):
    assert commands_in(reply, "bash") == commands
    assert commands_in(reply.replace("```bash", "```mswea_bash_command"), "mswea_bash_command") == commands


@pytest.mark.parametrize(
    ("output", "submits"),
    [
        (f"{SUBMIT}\n", True),
        (f"\n {SUBMIT} \ndiff --git a/x b/x", True),
        (f"a.py: {SUBMIT}\n", False),
        (f"first\n{SUBMIT}\n", False),
        ("", False),
    ],
)
def test_the_first_line_of_an_output_submits(output, submits):
    assert is_submission(output) is submits


def test_the_first_messages_name_fence_budget_and_how_to_submit():
    settings = AgentSettings(fence="mswea_bash_command", turns=7, limits={"seconds": 12})
    system, user = wording_of(settings).start("It is <b>wrong</b> & slow.")
    assert "```mswea_bash_command\n" in system["content"]
    assert "\nIt is <b>wrong</b> & slow.\n</pr_description>" in user["content"]
    assert f"```mswea_bash_command\necho {SUBMIT}\n```" in user["content"]
    assert "12 seconds" in user["content"]
    assert "7 replies" in user["content"]
    assert "/testbed" in user["content"]


@pytest.mark.parametrize("output", ["", "one line", "two\nlines\n", "<output>\nodd\n</output>\n"])
def test_what_came_back_is_read_again_by_the_pair_pipeline(output):
    text = wording_of(AgentSettings()).observation(Finished(3, output, "", 0.1))
    ended = output if output.endswith("\n") or not output else output + "\n"
    assert text == f"<returncode>3</returncode>\n<output>\n{ended}</output>"
    assert output_of(text) == Output(3, ended)


def test_of_a_long_output_the_two_ends_are_shown():
    settings = AgentSettings(output_head=4, output_tail=3)
    text = wording_of(settings).observation(Finished(0, "abcdefghij", "", 0.1))
    assert output_of(text) == Output(0, "abcd\n", "hij\n", cut=True)
    assert "3 characters elided" in text
    assert "abcdefg" in wording_of(settings).observation(Finished(0, "abcdefg", "", 0.1))
    assert output_of(wording_of(AgentSettings(output_head=4, output_tail=0)).observation(
        Finished(0, "abcdefghij", "", 0.1)
    )).tail == "\n"  # fmt: skip


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        ("timeout", "after 7 seconds"),
        ("memory", "memory"),
        ("processes", "processes"),
        ("output", "output"),
        ("x", "x"),
    ],
)
def test_a_command_that_was_ended_says_why(ended, told):
    text = wording_of(AgentSettings()).observation(Finished(137, "so far\n", ended, 7.2))
    warning = text.partition("<warning>")[2].partition("</warning>")[0]
    assert told in warning
    assert output_of(text) == Output(137, "so far\n")


def test_a_wrong_format_is_counted_as_not_carried_out_by_the_pair_pipeline():
    wording = wording_of(AgentSettings())
    assert wording.wrong_format(2, cut=False).startswith("Please always provide EXACTLY ONE action")
    assert "found 2 actions" in wording.wrong_format(2, cut=False)
    assert "cut" not in wording.wrong_format(0, cut=False)
    assert "Your reply was cut" in wording.wrong_format(0, cut=True)


def test_own_templates_stand_for_ours_by_name(tmp_path):
    (tmp_path / "system.jinja").write_text("")
    (tmp_path / "issue.jinja").write_text("Mend: {{ issue }}\n")
    wording = wording_of(AgentSettings(templates=str(tmp_path)))
    assert wording.start("it") == [{"role": "user", "content": "Mend: it"}]
    assert wording.observation(Finished(0, "", "", 0.0)).startswith("<returncode>0")


@pytest.mark.parametrize("text", ["{{ nothing }}", "{% if %}", "{{ issue + 1 }}"])
def test_a_template_that_does_not_work_is_refused_at_once(tmp_path, text):
    (tmp_path / "issue.jinja").write_text(text)
    with pytest.raises(ConfigError, match=r"contextrl.agent.templates is .* its issue.jinja does not work.*Fix: "):
        wording_of(AgentSettings(templates=str(tmp_path)))


def test_a_missing_folder_of_templates_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"contextrl.agent.templates is .*no such folder.*Fix: .*issue.jinja"):
        wording_of(AgentSettings(templates=str(tmp_path / "none")))


def test_every_template_of_ours_is_used():
    assert {path.name for path in TEMPLATES.iterdir()} == {
        "system.jinja", "issue.jinja", "observation.jinja", "format_error.jinja"
    }  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"turns": 0},
        {"seconds": 0},
        {"seconds": float("inf")},
        {"fence": "ba sh"},
        {"max_infrastructure_share": 1.5},
        {"limits": {"seconds": 0}},
        {"limits": {"secs": 3}},
        {"nothing": 1},
    ],
)
def test_settings_have_bounds_and_no_unknown_keys(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AgentSettings.model_validate(wrong)
