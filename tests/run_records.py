"""Small valid records of every format of agent runs, made from one story, so that tests know what must come out."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

ISSUE = "Adding a number to itself gives one too many.\nIt should not."
PATCH = """diff --git a/pkg/calc.py b/pkg/calc.py
--- a/pkg/calc.py
+++ b/pkg/calc.py
@@ -1,5 +1,5 @@
 class Calc:
     def twice(self, value):
-        return value + value + 1
+        return value + value
 
     def half(self, value):
"""
SOURCE = """class Calc:
    def twice(self, value):
        return value + value + 1

    def half(self, value):
        return value / 2
"""
FIX = "sed -i '3s/ + 1//' pkg/calc.py"
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && git add -A && git diff --cached"


def said(command: str, thought: str = "THOUGHT: next.") -> dict[str, Any]:
    """A turn of a text-based agent."""
    return {"role": "assistant", "content": f"{thought}\n\n```bash\n{command}\n```"}


def came_back(output: str, code: int = 0) -> dict[str, Any]:
    """What mini-swe-agent shows the agent."""
    return {"role": "user", "content": f"<returncode>{code}</returncode>\n<output>\n{output}</output>"}


def turns(number: int = 1) -> list[dict[str, Any]]:
    """The run as plain chat: looks, edits, submits. Runs of different numbers differ in their text."""
    return [
        {"role": "system", "content": "You work in a shell."},
        {"role": "user", "content": f"<pr_description>\n{ISSUE} ({number})\n</pr_description>\nGo on."},
        said("cat pkg/calc.py", f"THOUGHT: I look, run {number}. é ✓"),
        came_back(SOURCE),
        said(FIX),
        came_back(""),
        said(SUBMIT),
    ]


def mini_v1(number: int = 1) -> dict[str, Any]:
    """mini-swe-agent 1."""
    return {
        "instance_id": f"owner__name-{number}",
        "trajectory_format": "mini-swe-agent-1",
        "resolved": True,
        "info": {"exit_status": "Submitted", "submission": PATCH, "mini_version": "1.15.0"},
        "messages": [*turns(number), {"role": "user", "content": PATCH}],
    }


def tool_call(command: str, call_id: str = "call_1") -> dict[str, Any]:
    """A call of the bash tool as chat completions store it."""
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": "bash", "arguments": json.dumps({"command": command})},
    }


def mini_v2(number: int = 1) -> dict[str, Any]:
    """mini-swe-agent 2: tool calls, extra fields, a last turn of the role exit."""
    plain = turns(number)
    return {
        "instance_id": f"owner__name-{number}",
        "trajectory_format": "mini-swe-agent-1.1",
        "info": {
            "exit_status": "Submitted",
            "submission": PATCH,
            "mini_version": "2.0.0",
            "config": {"agent": {"step_limit": 250}, "model": {"model_name": "m"}},
        },
        "messages": [
            *plain[:2],
            {
                "role": "assistant",
                "content": "I look.",
                "tool_calls": [tool_call("cat pkg/calc.py")],
                "extra": {"actions": [{"command": "cat pkg/calc.py"}], "cost": 0.1},
            },
            {
                "role": "tool",
                "tool_call_id": "call_1",
                "content": plain[3]["content"],
                "extra": {"raw_output": SOURCE, "returncode": 0},
            },
            {"role": "assistant", "content": None, "tool_calls": [tool_call(FIX)]},
            {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": plain[5]["content"]}]},
            {"role": "exit", "content": PATCH, "extra": {"exit_status": "Submitted", "submission": PATCH}},
        ],
    }


def mini_v2_responses(number: int = 1) -> dict[str, Any]:
    """mini-swe-agent 2 with the Responses API: turns without a role."""
    record = mini_v2(number)
    plain = turns(number)
    record["messages"] = [
        *plain[:2],
        {
            "object": "response",
            "output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "I look."}]},
                {
                    "type": "function_call",
                    "name": "bash",
                    "call_id": "c",
                    "arguments": json.dumps({"command": "cat pkg/calc.py"}),
                },
            ],
        },
        {"type": "function_call_output", "call_id": "c", "output": plain[3]["content"]},
        {"object": "response", "output": [{"type": "message", "content": [{"type": "output_text", "text": "Done."}]}]},
        {"role": "exit", "content": PATCH},
    ]
    return record


def klear(number: int = 1) -> dict[str, Any]:
    """A row of the 66k table: id and turns only."""
    return {"instance_id": f"owner__name.1fd5253{number % 10}.lm_rewrite__abc{number}", "messages": turns(number)}


def swe_smith(number: int = 1) -> dict[str, Any]:
    """A row of SWE-smith's trajectories: turns as JSON text, content partly as lists."""
    messages = turns(number)
    messages[3] = {"role": "user", "content": [{"type": "text", "text": messages[3]["content"]}], "agent": "main"}
    return {
        "messages": json.dumps(messages),
        "instance_id": f"owner__name.1fd52536.func_pm__abc{number}",
        "resolved": False,
        "model": "m",
        "traj_id": f"t{number}",
        "patch": PATCH,
    }


def swe_agent(number: int = 1) -> dict[str, Any]:
    """A SWE-agent document, with a demonstration at its head."""
    plain = turns(number)
    return {
        "instance_id": f"owner__name-{number}",
        "environment": "swe_main",
        "trajectory": [{"action": "cat pkg/calc.py", "observation": SOURCE, "response": "I look.", "thought": ""}],
        "history": [
            plain[0],
            {"role": "user", "content": "Here is a demonstration of how to do it.", "is_demo": True},
            plain[1],
            {"role": "assistant", "content": "I look.", "tool_calls": [tool_call("cat pkg/calc.py")]},
            {"role": "tool", "content": f"OBSERVATION:\n{SOURCE}", "tool_call_ids": ["call_1"]},
            {"role": "assistant", "content": "I submit.", "tool_calls": None},
        ],
        "info": {"exit_status": "submitted", "submission": PATCH, "model_stats": {"api_calls": 2}},
    }


def atif(number: int = 1) -> dict[str, Any]:
    """An ATIF document."""
    return {
        "schema_version": "ATIF-v1.6",
        "session_id": f"owner__name-{number}",
        "agent": {"name": "a", "version": "1"},
        "steps": [
            {"step_id": 1, "source": "system", "message": "You work in a shell."},
            {"step_id": 2, "source": "user", "message": turns(number)[1]["content"]},
            {
                "step_id": 3,
                "source": "agent",
                "message": "I look.",
                "tool_calls": [
                    {"tool_call_id": "c", "function_name": "bash", "arguments": {"command": "cat pkg/calc.py"}}
                ],
                "observation": {"results": [{"source_call_id": "c", "content": SOURCE}]},
            },
        ],
        "extra": {"patch": PATCH, "resolved": True},
    }


MAKERS = {
    "mini_v1": mini_v1,
    "mini_v2": mini_v2,
    "mini_v2_responses": mini_v2_responses,
    "klear": klear,
    "swe_smith": swe_smith,
    "swe_agent": swe_agent,
    "atif": atif,
}


def packed(data: bytes, compression: str) -> bytes:
    """The bytes as a compressed file holds them."""
    if compression == "gz":
        return gzip.compress(data, mtime=0)
    if compression == "xz":
        return lzma.compress(data)
    if compression == "zst":
        return zstandard.ZstdCompressor(write_checksum=True).compress(data)
    return data


def write_lines(path: Path, records: list[Any], compression: str = "none") -> Path:
    """One record a line."""
    data = b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)
    path.write_bytes(packed(data, compression))
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]], group: int = 2) -> Path:
    """A table."""
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path
