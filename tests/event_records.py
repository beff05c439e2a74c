"""The story of run_records in further public formats: events, sessions, content blocks and tables of other columns."""

from __future__ import annotations

import json
from typing import Any

from run_records import ISSUE, MAKERS, PATCH, SOURCE, tool_call, turns


def openhands(number: int = 1) -> dict[str, Any]:
    """A line of OpenHands' output.jsonl: events of the runtime, the reference beside the run's patch."""
    by_agent = {"source": "agent", "timestamp": "2025-01-01T00:00:00"}
    return {
        "instance_id": f"owner__name-{number}",
        "instruction": turns(number)[1]["content"],
        "instance": {"repo": "owner/name", "base_commit": "c0ffee", "patch": "the reference", "test_patch": PATCH},
        "test_result": {"git_patch": PATCH},
        "report": {"resolved": True},
        "history": [
            {**by_agent, "action": "system", "args": {"content": "You are an agent.", "tools": []}},
            {"source": "user", "action": "message", "args": {"content": turns(number)[1]["content"]}},
            {"source": "environment", "action": "change_agent_state", "args": {"agent_state": "running"}},
            {"source": "agent", "observation": "agent_state_changed", "content": "", "extras": {}},
            {**by_agent, "action": "run", "args": {"command": "cat pkg/calc.py", "thought": "I look.", "cwd": ""}},
            {**by_agent, "observation": "run", "content": SOURCE, "extras": {"metadata": {"exit_code": 0}}},
            {
                **by_agent,
                "action": "edit",
                "args": {"path": "/testbed/pkg/calc.py", "command": "str_replace", "thought": "", "old_str": " + 1",
                         "new_str": "", "file_text": None, "insert_line": None, "start": 1},
            },
            {**by_agent, "observation": "edit", "content": "The file has been edited.", "extras": {}},
            {**by_agent, "action": "finish", "args": {"final_thought": "Done.", "outputs": {}}},
        ],
    }  # fmt: skip


def openhands_sdk(number: int = 1) -> dict[str, Any]:
    """The same by OpenHands' SDK: two calls of one answer, and their results."""

    def call(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"id": "c", "name": tool, "arguments": json.dumps(arguments), "origin": "completion"}

    prompt = {"role": "user", "content": [{"type": "text", "text": turns(number)[1]["content"]}]}
    seen = {"content": [{"type": "text", "text": SOURCE}], "kind": "TerminalObservation"}
    return {
        "instance_id": f"owner__name-{number}",
        "test_result": {"git_patch": PATCH, "report": {"resolved": False}},
        "history": [
            {"kind": "SystemPromptEvent", "source": "agent", "system_prompt": {"type": "text", "text": "Work."}},
            {"kind": "MessageEvent", "source": "user", "llm_message": prompt},
            {"kind": "ConversationStateUpdateEvent", "key": "agent_status", "value": "running"},
            {
                "kind": "ActionEvent",
                "thought": [{"type": "text", "text": "I look."}],
                "tool_name": "terminal",
                "action": {"kind": "TerminalAction", "command": "cat pkg/calc.py"},
                "tool_call": call("terminal", {"command": "cat pkg/calc.py"}),
            },
            {
                "kind": "ActionEvent",
                "thought": [],
                "tool_name": "file_editor",
                "action": {"kind": "FileEditorAction", "command": "view", "path": "/testbed/pkg"},
            },
            {"kind": "ObservationEvent", "source": "environment", "observation": seen, "tool_name": "terminal"},
            {"kind": "AgentErrorEvent", "source": "agent", "error": "No such folder.", "tool_name": "file_editor"},
        ],
    }


def nebius(number: int = 1) -> dict[str, Any]:
    """A row of nebius' SWE-agent set."""
    plain = [
        {"role": "system", "system_prompt": "SETTING: a shell.", "text": None},
        {"role": "user", "system_prompt": None, "text": f"ISSUE:\n{ISSUE} ({number})\n\nINSTRUCTIONS:\nGo on."},
        {"role": "ai", "system_prompt": None, "text": "I look.\n```bash\ncat pkg/calc.py\n```"},
        {"role": "user", "system_prompt": None, "text": SOURCE},
    ]
    return {
        "instance_id": f"owner__name-{number}",
        "model_name": "m",
        "target": False,
        "trajectory": [{**turn, "mask": False, "cutoff_date": "01.01.2023"} for turn in plain],
        "exit_status": "submitted",
        "generated_patch": PATCH,
        "eval_logs": "1 failed",
    }


def nebius_openhands(number: int = 1) -> dict[str, Any]:
    """A row of nebius' OpenHands set: chat messages as JSON text, an outcome that is a number."""
    said = {"role": "assistant", "content": None, "tool_calls": [tool_call("cat pkg/calc.py")]}
    messages = [*turns(number)[:2], said, {"role": "tool", "content": SOURCE, "tool_call_id": "call_1"}]
    return {
        "trajectory_id": f"chatcmpl-{number}",
        "instance_id": f"owner__name-{number}",
        "repo": "owner/name",
        "trajectory": json.dumps(messages),
        "model_patch": PATCH,
        "resolved": 1,
    }


def r2e_gym(number: int = 1) -> dict[str, Any]:
    """A trajectory of R2E-Gym's agent on a task of SWE-bench."""
    look = "<function=execute_bash>\n<parameter=command>cat pkg/calc.py</parameter>\n</function>"
    return {
        "trajectory_steps": [
            {"step_idx": 0, "thought": "I look.", "action": look, "observation": SOURCE, "done": False, "info": {}},
            {"step_idx": 1, "thought": "Done.", "action": "", "observation": "", "done": True, "info": {}},
        ],
        "problem_statement": f"{ISSUE} ({number})",
        "docker_image": "registry/sweb.eval.x86_64.owner_1776_name:latest",
        "ds": {"instance_id": f"owner__name-{number}", "repo": "owner/name", "base_commit": "c0ffee", "patch": "diff"},
        "exit_reason": "agent",
        "output_patch": PATCH,
        "reward": 1.0,
    }


def blocks(number: int = 1) -> dict[str, Any]:
    """A row whose turns are content blocks of Anthropic's API."""
    use = {"type": "tool_use", "id": "t1", "name": "bash", "input": {"command": "cat pkg/calc.py"}}
    edit = {"old_str": " + 1", "new_str": "", "command": "str_replace", "path": "/testbed/pkg/calc.py"}
    returned = [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": SOURCE}]}]
    returned.append({"type": "tool_result", "tool_use_id": "t2", "content": "The file has been edited."})
    return {
        "instance_id": f"owner__name-{number}",
        "pred_patch": PATCH,
        "messages": [
            *turns(number)[:2],
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Where is it?", "signature": "s"},
                    {"type": "text", "text": "I look."},
                    use,
                    {"type": "tool_use", "id": "t2", "name": "str_replace_editor", "input": edit},
                ],
            },
            {"role": "user", "content": [*returned, {"type": "text", "text": "Go on."}]},
        ],
    }


def claude_code_lines(number: int = 1) -> list[dict[str, Any]]:
    """The lines of a session of Claude Code: an answer of three lines, results of two."""
    of = {"sessionId": "3f1c", "cwd": "/testbed", "isSidechain": False, "userType": "external", "version": "2.0.0"}

    def said(role: str, content: Any) -> dict[str, Any]:
        return {**of, "type": role, "uuid": "u", "message": {"role": role, "content": content}}

    edit = {"file_path": "/testbed/pkg/calc.py", "old_string": " + 1", "new_string": ""}
    return [
        {"type": "summary", "summary": "A number too many", "leafUuid": "u"},
        {"type": "file-history-snapshot", "messageId": "u", "snapshot": {}},
        said("user", f"{ISSUE} ({number})"),
        said("assistant", [{"type": "text", "text": "I look."}]),
        said("assistant", [{"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "cat pkg/calc.py"}}]),
        said("assistant", [{"type": "tool_use", "id": "t2", "name": "Edit", "input": edit}]),
        said("user", [{"type": "tool_result", "tool_use_id": "t1", "content": SOURCE}]),
        said("user", [{"type": "tool_result", "tool_use_id": "t2", "content": "The file has been updated."}]),
        {**of, "type": "system", "subtype": "turn_duration", "uuid": "u"},
    ]


def codex_lines(number: int = 1) -> list[dict[str, Any]]:
    """The lines of a session of Codex: calls and outputs, with what they say twice as events."""

    def item(payload: dict[str, Any]) -> dict[str, Any]:
        return {"timestamp": "2025-01-01T00:00:00Z", "type": "response_item", "payload": payload}

    def spoken(role: str, text: str) -> dict[str, Any]:
        return item({"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]})

    look = json.dumps({"command": ["bash", "-lc", "cat pkg/calc.py"], "workdir": "/testbed"})
    patch = "*** Begin Patch\n*** Update File: pkg/calc.py\n-a\n+b\n*** End Patch"
    git = {"commit_hash": "c0ffee", "branch": "main", "repository_url": "https://github.com/owner/name.git"}
    output = json.dumps({"output": SOURCE, "metadata": {"exit_code": 0, "duration_seconds": 0.1}})
    return [
        {"type": "session_meta", "payload": {"id": f"owner__name-{number}", "cwd": "/testbed", "git": git}},
        spoken("user", "<environment_context>\n</environment_context>"),
        spoken("user", f"{ISSUE} ({number})"),
        {"type": "event_msg", "payload": {"type": "user_message", "message": "said twice"}},
        {"type": "turn_context", "payload": {"cwd": "/testbed", "model": "m"}},
        item({"type": "reasoning", "summary": [{"type": "summary_text", "text": "I look."}], "content": None}),
        item({"type": "function_call", "name": "shell", "arguments": look, "call_id": "c1"}),
        item({"type": "function_call_output", "call_id": "c1", "output": output}),
        item({"type": "reasoning", "summary": [], "encrypted_content": "zz"}),
        item({"type": "custom_tool_call", "name": "apply_patch", "input": patch, "call_id": "c2"}),
        item({"type": "custom_tool_call_output", "call_id": "c2", "output": "Success."}),
    ]


ALL_MAKERS = {
    **MAKERS,
    "openhands": openhands,
    "openhands_sdk": openhands_sdk,
    "nebius": nebius,
    "nebius_openhands": nebius_openhands,
    "r2e_gym": r2e_gym,
    "blocks": blocks,
    "claude_code": lambda number: {"session": claude_code_lines(number), "instance_id": f"owner__name-{number}"},
    "codex": lambda number: {"session": codex_lines(number)},
}
