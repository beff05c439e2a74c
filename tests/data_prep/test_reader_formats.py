"""What the formats of agent runs have to say: calls, results, patches, outcomes, sessions; what is refused."""

from __future__ import annotations

import json

import pytest
from event_records import ALL_MAKERS, claude_code_lines, codex_lines, openhands
from reader_checks import COMPRESSIONS, ENDINGS, only_reject, runs_of
from run_records import ISSUE, PATCH, SOURCE, klear, mini_v1, swe_smith, write_lines

from data_prep.trajectories.readers import open_source, parse_record
from data_prep.trajectories.readers.files import file_spans, span_records
from data_prep.trajectories.readers.records import Location

# Ids and turns alone.
WITHOUT_PATCH = ("klear", "claude_code", "codex")
OUTCOMES = {
    **dict.fromkeys(("mini_v1", "atif", "openhands", "nebius_openhands", "r2e_gym"), "resolved"),
    **dict.fromkeys(("swe_smith", "openhands_sdk", "nebius"), "unresolved"),
}


@pytest.mark.parametrize("maker", ALL_MAKERS)
def test_every_format_comes_out_in_the_same_form(tmp_path, maker):
    (run,) = runs_of(write_lines(tmp_path / "a.jsonl", [ALL_MAKERS[maker](7)]))
    assert run.repository == "owner/name"
    assert run.issue == f"{ISSUE} (7)"
    assert {turn.role for turn in run.messages} <= {"system", "user", "assistant"}
    assert run.patch == ("" if maker in WITHOUT_PATCH else PATCH)
    assert run.patch_origin == ("none" if maker in WITHOUT_PATCH else "submitted")
    assert run.outcome == OUTCOMES.get(maker, "unknown")
    look = next(turn for turn in run.messages if turn.role == "assistant")
    # R2E-Gym's agent writes its calls as text in a form of its own
    command = "```bash\n{}\n```" if maker != "r2e_gym" else "<parameter=command>{}</parameter>"
    assert command.format("cat pkg/calc.py") in look.content
    assert any(SOURCE.strip() in turn.content for turn in run.messages if turn.role == "user")
    assert not any("demonstration" in turn.content for turn in run.messages)


@pytest.mark.parametrize(
    ("maker", "roles", "calls"),
    [
        ("openhands", "suauaua", ["<parameter=old_str>\n + 1\n</parameter>", "Done."]),
        ("openhands_sdk", "suauu", ["<function=file_editor>\n<parameter=command>view</parameter>"]),
        ("blocks", "suauuu", ["Where is it?", "<function=str_replace_editor>\n<parameter=old_str>\n + 1\n"]),
        ("claude_code", "uauu", ["<function=Edit>\n<parameter=file_path>/testbed/pkg/calc.py</parameter>"]),
        (
            "codex",
            "uuauau",
            ["<function=apply_patch>\n<parameter=patch>\n*** Begin Patch\n*** Update File: pkg/calc.py"],
        ),
    ],
)
def test_calls_and_results_of_one_answer_stay_together(tmp_path, maker, roles, calls):
    (run,) = runs_of(write_lines(tmp_path / "a.jsonl", [ALL_MAKERS[maker](1)]))
    assert "".join(turn.role[0] for turn in run.messages) == roles
    said = "\n".join(turn.content for turn in run.messages if turn.role == "assistant")
    assert all(text in said for text in ["I look.", *calls])


def test_an_exit_code_is_told_once_in_the_agent_s_words(tmp_path):
    record = openhands(1)
    (run,) = runs_of(write_lines(tmp_path / "a.jsonl", [record]))
    assert run.messages[3].content == f"{SOURCE}\n[The command completed with exit code 0.]"
    record["history"][5]["content"] += "[Command finished with exit code 0]"
    (run,) = runs_of(write_lines(tmp_path / "a.jsonl", [record]))
    assert run.messages[3].content.count("exit code") == 1
    assert (
        "Exit code: 0\n" in runs_of(write_lines(tmp_path / "a.jsonl", [ALL_MAKERS["codex"](1)]))[0].messages[3].content
    )


@pytest.mark.parametrize("lines", [claude_code_lines(3), codex_lines(3)])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_session_is_one_run_for_all_its_lines(tmp_path, lines, compression):
    path = write_lines(tmp_path / f"owner__name-9.jsonl{ENDINGS[compression]}", lines, compression)
    (found,) = open_source(path)
    assert found.location == Location(path.name)
    assert found.run.instance_id in ("owner__name-9", "owner__name-3")
    assert found.run.issue == f"{ISSUE} (3)"
    spans = list(file_spans(path, path.name, 100))
    assert len(spans) == 1
    (raw,) = span_records(path, spans[0], 1 << 20)
    assert parse_record(raw) == found.run
    assert only_reject(path, max_record_bytes=500).reason == "too large"


def test_the_edits_of_a_session_are_replayed_or_its_patch_is_unknown(tmp_path):
    fixed = "-        return value + value + 1\n+        return value + value\n"
    (run,) = runs_of(write_lines(tmp_path / "a.jsonl", [ALL_MAKERS["claude_code"](1)]), replay=True)
    assert run.patch_origin == "replayed"
    assert fixed in run.patch
    lines = claude_code_lines()
    lines[4]["message"]["content"][0].update(name="Read", input={"file_path": "/testbed/pkg/calc.py"})
    shown = "".join(f"{number:6}→{line}\n" for number, line in enumerate(SOURCE.splitlines(), 1))
    lines[6]["message"]["content"][0]["content"] = shown
    (run,) = runs_of(write_lines(tmp_path / "owner__name-9.jsonl", lines), replay=True)
    assert fixed in run.patch
    lines[5]["message"]["content"][0].update(name="Rewrite")
    (run,) = runs_of(write_lines(tmp_path / "owner__name-9.jsonl", lines), replay=True)
    assert run.patch == ""
    (run,) = runs_of(write_lines(tmp_path / "a.jsonl", codex_lines()), replay=True)
    assert run.patch == ""  # it applied a patch, whose lines have no numbers


def test_a_session_that_was_cut_off_or_holds_subagents_is_refused(tmp_path):
    path = write_lines(tmp_path / "owner__name-9.jsonl", claude_code_lines())
    path.write_bytes(path.read_bytes()[:-30])
    assert only_reject(path).reason in ("truncated", "not JSON")
    lines = claude_code_lines()
    lines[4]["isSidechain"] = True
    assert only_reject(write_lines(path, lines)).reason == "turns of subagents"
    assert only_reject(write_lines(tmp_path / "a.jsonl", claude_code_lines())).reason == "no instance id"


def test_an_array_holds_runs_or_is_one(tmp_path):
    path = tmp_path / "owner__name-9.json"
    path.write_text(json.dumps([mini_v1(1), klear(2), openhands(3)], indent=1))
    found = list(open_source(path))
    assert [located.location for located in found] == [Location(path.name, n) for n in range(3)]
    assert [located.run.source for located in found] == ["mini-swe-agent-1", "klear", "openhands"]
    for turns_or_events in (mini_v1()["messages"], openhands()["history"]):
        path.write_text(json.dumps(turns_or_events))
        (run,) = runs_of(path)
        assert (run.instance_id, run.issue) == ("owner__name-9", f"{ISSUE} (1)")
    path.write_text(json.dumps([mini_v1(1), 3]))
    assert only_reject(path).reason == "unknown format"
    assert only_reject(path, max_record_bytes=100).reason == "too large"


@pytest.mark.parametrize("name", ["model_patch", "git_patch", "pred_patch", "generated_patch", "output_patch"])
def test_a_patch_under_other_names_wins_over_a_reference(tmp_path, name):
    record = {**klear(1), name: PATCH, "test_patch": "diff --git a/t b/t\n"}
    assert runs_of(write_lines(tmp_path / "a.jsonl", [record]))[0].patch == PATCH
    record = {**swe_smith(1), "patch": "the reference", name: PATCH}
    assert runs_of(write_lines(tmp_path / "a.jsonl", [record]))[0].patch == PATCH
    record = {**swe_smith(1), "patch": "the reference", name: ""}
    assert runs_of(write_lines(tmp_path / "a.jsonl", [record]))[0].patch == ""
    record = {**swe_smith(1), "patch": "the reference", "test_result": {"git_patch": PATCH}}
    assert runs_of(write_lines(tmp_path / "a.jsonl", [record]))[0].patch == PATCH


@pytest.mark.parametrize("fields", [{"my_diff": PATCH}, {"outputs": {"final": PATCH}}])
def test_a_patch_under_an_unknown_name_is_refused(tmp_path, fields):
    reject = only_reject(write_lines(tmp_path / "a.jsonl", [{**klear(1), **fields}]))
    assert reject.reason == "patch under an unknown name"
    assert next(iter(fields)) in reject.detail
    for key in ("gold_diff", "test_diff", "instance"):
        record = {**klear(1), key: PATCH if key != "instance" else {"fix": PATCH}}
        assert runs_of(write_lines(tmp_path / "a.jsonl", [record]))[0].patch == ""


@pytest.mark.parametrize(
    ("stated", "outcome"),
    [(1, "resolved"), (0, "unresolved"), (1.0, "resolved"), (True, "resolved"), (0.5, "unknown"), ("yes", "unknown")],
)
def test_what_counts_as_a_truth_value(tmp_path, stated, outcome):
    for record in ({"resolved": stated}, {"resolved": None, "report": {"resolved": stated}}):
        record = {**swe_smith(1), **record}
        assert runs_of(write_lines(tmp_path / "a.jsonl", [record]))[0].outcome == outcome


@pytest.mark.parametrize(
    "unknown",
    [
        {"role": "assistant", "content": [{"type": "server_tool_use", "name": "web", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "search_result", "source": "s"}]}]},
        {"object": "response", "output": [{"type": "web_search_call", "action": {}}]},
    ],
)
def test_content_that_is_not_known_is_refused(tmp_path, unknown):
    record = mini_v1()
    record["messages"].insert(3, unknown)
    reject = only_reject(write_lines(tmp_path / "a.jsonl", [record]))
    assert reject.reason == "unknown content block"
    assert "message 3" in reject.detail
    record["messages"][3] = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}
    assert runs_of(write_lines(tmp_path / "a.jsonl", [record]))[0].messages[3].content == "[image_url]"


@pytest.mark.parametrize("event", [{"action": "fly", "args": {}}, {"kind": "FlightEvent", "source": "agent"}])
def test_events_that_are_not_known_are_refused(tmp_path, event):
    record = openhands()
    record["history"].append({"source": "agent", **event})
    assert only_reject(write_lines(tmp_path / "a.jsonl", [record])).reason == "unknown content block"
    lines = codex_lines()
    lines.append({"type": "response_item", "payload": {"type": "flight", **event}})
    assert only_reject(write_lines(tmp_path / "a.jsonl", lines)).reason == "unknown content block"
