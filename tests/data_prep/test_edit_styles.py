"""Every way in which agents write edits: masked with all that tells of the patch, or the run is dropped."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from made_runs import made_run, write_runs
from test_edits import NEW, OLD, SHELL_EDITS, TOOL_CALLS

from data_prep.trajectories.actions import actions_of
from data_prep.trajectories.masking import mask_run, unmaskable
from data_prep.trajectories.passes import plan_scan, scan_part
from data_prep.trajectories.prepare import PrepareSettings
from data_prep.trajectories.run import PATCH_MASKED, AgentRun, Message

FILE = "pkg/core/base.py"
HUNK = f"""@@ -10,4 +10,4 @@ class Reader(Base):
 def load(self, limit):
-    {OLD}
+    {NEW}
     return timeout"""
HEADER = f"diff --git a/{FILE} b/{FILE}\nindex 1a2b3c4..5d6e7f8 100644\n"
PATCH = f"{HEADER}--- a/{FILE}\n+++ b/{FILE}\n{HUNK}\n"
VIEW = f"    10\tdef load(self, limit):\n    11\t    {OLD}\n    12\t    return timeout"
BLOCK = f"<<<<<<< SEARCH\n    {OLD}\n=======\n    {NEW}\n>>>>>>> REPLACE"
REPLACED = f"to_replace='''    {OLD}''', new_content='''    {NEW}'''"


def call(tool, **arguments):
    fields = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in arguments.items())
    return f"I edit now.\n\n<function={tool}>\n{fields}</function>"


def invoke(tool, **arguments):
    fields = "".join(f'<parameter name="{name}">{value}</parameter>\n' for name, value in arguments.items())
    return f'I edit now.\n\n<invoke name="{tool}">\n{fields}</invoke>'


def fenced(text):
    return f"I edit now.\n\n```bash\n{text}\n```"


STYLES = {
    **{name: fenced(text) for name, text in SHELL_EDITS.items()},
    **{name: "I edit now: " + json.dumps(fields) for name, fields in TOOL_CALLS.items()},
    "nested json": json.dumps({"name": "editor", "arguments": json.dumps(TOOL_CALLS["json"])}),
    "SWE-agent 1.x edit(search, replace)": call("edit", search=f"    {OLD}", replace=f"    {NEW}"),
    "SWE-agent 1.x edit of lines": call("edit", start_line=11, end_line=11, replacement_text=f"    {NEW}"),
    "SWE-agent 1.x edit(text)": call("edit", text=f"def load(self, limit):\n    {NEW}"),
    "SWE-agent 1.x insert(text, line)": call("insert", text=f"    {NEW}", line=10),
    "SWE-agent 1.x edit as a command": fenced(f"edit '    {OLD}' '    {NEW}'"),
    "SWE-agent 1.x edit of the window": f"```\nedit\ndef load(self, limit):\n    {NEW}\nend_of_edit\n```",
    "Codex shell": call("shell", command=json.dumps(["bash", "-lc", f"sed -i 's/{OLD}/{NEW}/' {FILE}"])),
    "Codex shell without a shell": call("shell", command=json.dumps(["sed", "-i", f"s/{OLD}/{NEW}/", FILE])),
    "Codex shell as JSON": json.dumps({"command": ["bash", "-lc", f"sed -i 's/{OLD}/{NEW}/' {FILE}"], "workdir": "/"}),
    "Codex apply_patch": call(
        "shell",
        command=json.dumps(
            ["apply_patch", f"*** Begin Patch\n*** Update File: {FILE}\n@@\n-    {OLD}\n+    {NEW}\n*** End Patch"]
        ),
    ),
    "Aider in a fence": f"The fix:\n\n{FILE}\n```python\n{BLOCK}\n```\nGood.",
    "Aider without a fence": f"The fix:\n\n{FILE}\n{BLOCK}\n\nGood.",
    "Aider, the name in the fence": f"The fix:\n\n```\n{FILE}\n{BLOCK}\n```",
    "Aider, no name": f"The fix:\n\n```python\n{BLOCK}\n```",
    "Aider, never closed": f"{FILE}\n<<<<<<< SEARCH\n    {OLD}\n=======\n    {NEW}",
    "Cline replace_in_file": f"<replace_in_file>\n<path>{FILE}</path>\n<diff>\n{BLOCK}\n</diff>\n</replace_in_file>",
    "Cline replace_in_file, other signs": (
        f"<replace_in_file>\n<path>{FILE}</path>\n<diff>\n------- SEARCH\n    {OLD}\n=======\n    {NEW}\n"
        "+++++++ REPLACE\n</diff>\n</replace_in_file>"
    ),
    "Cline replace_in_file as a call": call("replace_in_file", path=FILE, diff=BLOCK),
    "Cline write_to_file": f"<write_to_file>\n<path>{FILE}</path>\n<content>\n    {NEW}\n</content>\n</write_to_file>",
    "Cline execute_command": f"<execute_command><command>sed -i 's/{OLD}/{NEW}/' {FILE}</command></execute_command>",
    "Roo apply_diff": (
        f"<apply_diff>\n<path>{FILE}</path>\n<diff>\n<<<<<<< SEARCH\n:start_line:11\n-------\n    {OLD}\n"
        f"=======\n    {NEW}\n>>>>>>> REPLACE\n</diff>\n</apply_diff>"
    ),
    "Roo search_and_replace": (
        f"<search_and_replace>\n<path>{FILE}</path>\n<search>{OLD}</search>\n<replace>{NEW}</replace>\n"
        "</search_and_replace>"
    ),
    "OpenHands edit_file_by_replace": call(
        "edit_file_by_replace", file_name=FILE, to_replace=f"    {OLD}", new_content=f"    {NEW}"
    ),
    "OpenHands notebook": f"<execute_ipython>\nedit_file_by_replace('{FILE}', {REPLACED})\n</execute_ipython>",
    "OpenHands notebook as a call": call("execute_ipython_cell", code=f"edit_file_by_replace('{FILE}', {REPLACED})"),
    "OpenHands notebook that writes": (
        f"<execute_ipython>\ns = open('{FILE}').read().replace('{OLD}', '{NEW}')\nopen('{FILE}', 'w').write(s)\n"
        "</execute_ipython>"
    ),
    "OpenHands shell": f"<execute_bash>\nsed -i 's/{OLD}/{NEW}/' {FILE}\n</execute_bash>",
    "Claude Code Edit": invoke("Edit", file_path=f"/testbed/{FILE}", old_string=OLD, new_string=NEW),
    "Claude Code MultiEdit": invoke(
        "MultiEdit", file_path=FILE, edits=json.dumps([{"old_string": OLD, "new_string": NEW}])
    ),
    "Claude Code Write": invoke("Write", file_path=FILE, content=f"def load(self, limit):\n    {NEW}"),
    "two calls in a turn": fenced("ls pkg") + "\n\n" + call("str_replace_editor", path=FILE, old_str=OLD, new_str=NEW),
    "a command quoted above a call": fenced("git status")
    + "\n"
    + invoke("Write", file_path=FILE, content=f"    {NEW}"),
    "Hermes": "```bash\nls\n```\n<tool_call>\n"
    + json.dumps({"name": "x", "arguments": TOOL_CALLS["json"]})
    + "</tool_call>",
    "opencode edit": call("edit", filePath=FILE, oldString=OLD, newString=NEW),
    "str_replace_based_edit_tool": invoke(
        "str_replace_based_edit_tool", command="str_replace", path=FILE, old_str=OLD, new_str=NEW
    ),
    "a diff in prose": f"This patch fixes it:\n\n{PATCH}\nIt adds retries.",
    "a diff in a fence": f"This patch fixes it:\n\n```diff\n{PATCH}```\nIt adds retries.",
    "a diff in an XML tag": f"<patch>\n{PATCH}</patch>",
}
# Nobody can know these.
UNKNOWN = {
    "a tool that is not known": call("refactor", where=FILE, what=OLD, into=NEW),
    "a program that is not known": fenced(f"mend {FILE} --from '{OLD}' --to '{NEW}'"),
    "nothing that writes": fenced("git status"),
}


SHOWN = f"<function=open>\n<parameter=path>{FILE}</parameter>\n</function>"


def run_of(edit, opening=SHOWN, issue="Loading is flaky", last=""):
    """The agent looks, edits, prints its diff; what it says last may hold anything."""
    turns = [("system", "You are an agent."), ("user", issue), ("assistant", f"I look.\n\n{opening}"), ("user", VIEW)]
    turns += [("assistant", edit), ("user", "done"), ("assistant", fenced("git diff")), ("user", PATCH)]
    turns += [("assistant", last), ("user", "")]
    messages = [Message(role=role, content=content) for role, content in turns]
    return AgentRun(instance_id="a__b-1", repository="a/b", issue=issue, messages=messages, patch=PATCH, source="test")


def signs_of_the_answer(messages):
    """What shows of the patch: all but its old lines; those too in what the agent says."""
    text = "\n".join(message.content for message in messages)
    said = "\n".join(message.content for message in messages if message.role == "assistant")
    signs = ["index 1a2b3c4", "@@ -10", "class Reader(Base)", "retries=3", f"-    {OLD}"]
    return [sign for sign in signs if sign in text] + [OLD] * (OLD in said)


@pytest.mark.parametrize("opening", [SHOWN, ""])
@pytest.mark.parametrize("name", STYLES)
def test_a_known_style_is_masked(name, opening):
    run = run_of(STYLES[name], opening)
    assert unmaskable(run) is None
    masked = mask_run(run)
    assert signs_of_the_answer(masked.messages) == []
    assert masked.left == []
    assert masked.messages[3] == run.messages[3], "the view before the edit stays"
    assert PATCH_MASKED in masked.messages[4].content


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_run_with_an_unknown_style_is_dropped(name):
    run = run_of(UNKNOWN[name])
    assert unmaskable(run) == "no recognised write of a patched file"
    assert unmaskable(run.model_copy(update={"patch": ""})) is None
    # A diff that the agent quotes is taken for a write; what the unknown call says is then hidden by its lines.
    quoting = run_of(UNKNOWN[name], last=f"What I changed:\n{PATCH}\nBye.")
    assert unmaskable(quoting) is None
    assert signs_of_the_answer(mask_run(quoting).messages) == []


def test_the_scan_drops_and_counts_it(tmp_path):
    known, unknown = made_run(0), made_run(1)
    unknown["messages"][6]["content"] = fenced("mend lib/alpha.py --line 3")
    source = write_runs(tmp_path / "runs.jsonl", [known, unknown])
    (payload,) = plan_scan(source, asdict(PrepareSettings()))
    stage = scan_part(payload, tmp_path / "part.parquet").stage("patch")
    assert (stage.left, dict(stage.dropped)) == (1, {"no recognised write of a patched file": 1})


def test_an_edit_of_another_file_is_no_write_of_the_patched_one():
    # Here it cannot be told which files are meant.
    unsure = {"sed within find", "sed never closed", "sed in a loop", "patch in a file"}
    for name in [name for name in STYLES if "base.py" in STYLES[name]]:
        run = run_of(STYLES[name].replace(FILE, "app/other.py").replace("base.py", "other.py"), "")
        assert (unmaskable(run) is None) == (name in unsure), name


@pytest.mark.parametrize(
    "issue", [PATCH, f"Try this:\n```diff\n{HUNK}\n```\nThanks", f"> {PATCH}".replace("\n", "\n> ")]
)
def test_a_diff_in_the_issue_goes_whole(issue):
    run = run_of(STYLES["sed"], issue=f"It is slow.\n{issue}\nPlease fix it.")
    masked = mask_run(run)
    assert signs_of_the_answer(masked.messages) == []
    assert f"-    {OLD}" not in masked.messages[1].content
    assert masked.messages[1].content.startswith("It is slow.\n")
    assert masked.messages[1].content.endswith("Please fix it.")


def test_other_diffs_stay_where_nothing_was_written():
    other = PATCH.replace("core/base", "core/other").replace("-10,4 +10,4", "-3,4 +3,4").replace("1a2b3c4..", "0..")
    other = other.replace(NEW, "timeout = 4").replace("class Reader(Base)", "class Other")
    run = run_of(STYLES["sed"])
    seen = (*run.messages[:2], *run_of(fenced("git log -p -1")).messages[4:5], Message(role="user", content=other))
    longer = run.model_copy(update={"messages": (*seen, *run.messages[2:])})
    assert mask_run(longer).messages[3].content == other
    history = longer.model_copy(
        update={
            "messages": tuple(
                message.model_copy(update={"content": message.content.replace("core/other", "core/base")})
                for message in longer.messages
            )
        }
    )
    assert mask_run(history).messages[3].content.strip() == PATCH_MASKED


def test_the_rest_of_a_diff_that_a_harness_cut_goes():
    head, tail = PATCH[: PATCH.index("-    timeout")], PATCH[PATCH.index("-    timeout") - 9 :]
    cut = (
        f"<returncode>0</returncode>\n<output_head>\n{head}\n</output_head>\n<elided_chars>\n9 characters elided\n"
        f"</elided_chars>\n<output_tail>\n{tail}\n</output_tail>"
    )
    run = run_of(STYLES["sed"])
    messages = [*run.messages[:7], Message(role="user", content=cut), *run.messages[8:]]
    shown = mask_run(run.model_copy(update={"messages": tuple(messages)})).messages[7].content
    assert signs_of_the_answer([Message(role="user", content=shown)]) == []
    assert OLD not in shown
    assert shown.count("<output_tail>") == shown.count("</output_tail>") == 1


PRINTED = {
    "numbered": "".join(f"{number:6}\t{line}\n" for number, line in enumerate(PATCH.split("\n"), 1)),
    "indented": PATCH.replace("\n", "\n    "),
    "json": json.dumps({"output": PATCH, "code": 0}),
    "a hunk in a log": f"Applying the patch\n{HUNK}\nDone.",
    "headings in one line": " ".join(PATCH.split("\n")[1:5]),
}


@pytest.mark.parametrize("form", PRINTED)
def test_printed_diffs_in_other_forms(form):
    run = run_of(STYLES["sed"])
    messages = (*run.messages[:7], Message(role="user", content=PRINTED[form]), *run.messages[8:])
    shown = mask_run(run.model_copy(update={"messages": messages})).messages[7]
    assert signs_of_the_answer([shown]) == []
    assert ("Done." in shown.content) == (form == "a hunk in a log")


def test_a_fence_inside_an_argument_is_no_command():
    readme = call("create", path="README.md", file_text="Try:\n```bash\nrm -rf build\n```\nDone.")
    actions = [action for action in actions_of(run_of(f"{fenced('ls')}\n{readme}")) if action.turn == 4]
    assert [(action.name, action.script) for action in actions] == [("bash", "ls"), ("create", "")]
    assert actions[1].arguments["file_text"].count("```") == 2


def test_actions_know_commands_that_are_lists():
    run = run_of(STYLES["Codex shell"])
    assert [action.script for action in actions_of(run) if action.turn == 4] == [f"sed -i 's/{OLD}/{NEW}/' {FILE}"]
    run = run_of(STYLES["OpenHands notebook as a call"])
    (action,) = [action for action in actions_of(run) if action.turn == 4]
    assert (action.name, list(action.arguments)) == ("execute_ipython_cell", ["code"])


DRAFTS = {
    "other numbers": ("    timeout = read(limit, retries=2)", True),
    "one more argument": ("+    timeout = read(limit, 1, retries=3)", True),
    "in quotes": ('It must be "timeout = read(limit, retry=3)" here.', True),
    "as JSON": ('{"text": "x = 1\\\\n    timeout = read(limit, tries=3)\\\\ny = 2"}', True),
    "as an old line": (f"    {OLD}", False),
    "nearer to the old line": ("    timeout = read(limit,)", False),
    "far from either": ("    timeout = reader.get_timeout() + limit / 3", False),
    "a name in quotes": ("The name `timeout_read_limit_retries` is long.", False),
}


@pytest.mark.parametrize("name", DRAFTS)
def test_drafts(name):
    text, is_draft = DRAFTS[name]
    run = run_of(STYLES["sed"])
    messages = [
        *run.messages[:2],
        Message(role="assistant", content=f"I think:\n{text}\nLet me see."),
        *run.messages[3:],
    ]
    masked = mask_run(run.model_copy(update={"messages": tuple(messages)}))
    assert masked.drafts == is_draft
    said = masked.messages[2].content
    assert said.startswith("I think:\n")
    assert said.endswith("\nLet me see.")
    assert (PATCH_MASKED in said) == is_draft
    printed = [*run.messages[:3], Message(role="user", content=text), *run.messages[4:]]
    assert mask_run(run.model_copy(update={"messages": tuple(printed)})).drafts == 0, "only the agent makes drafts"
