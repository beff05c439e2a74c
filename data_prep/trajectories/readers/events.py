"""Formats that store a run as events: OpenHands, and the session files of Claude Code and Codex.

OpenHands: events under ``history``, ``events`` or ``trajectory``, with ``action`` and ``observation`` (V0, also in
pairs) or with ``kind`` (its SDK). Sessions: one event a line, which :mod:`.files` hands over as ``session``; one of
Claude Code with turns of subagents is refused, of Codex the encrypted reasoning is not read. Events that say nothing to
or by the agent are passed over; one of a kind that is not known is refused. Sessions hold no patch and name no task:
a table of tasks or the replay gives the one, and the name of the file or of its folder the other.

Events become chat messages whose content is a list of parts; neighbouring ones of the agent are one message, as they
were when a model wrote them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

from data_prep.trajectories.readers.records import UnusableError, expect, loads
from data_prep.trajectories.readers.turns import CALLS, RETURNS, text_of

Record = dict[str, Any]
# Who speaks, and the parts of what is said.
Said = tuple[str, list[Any]]

_EVENTS = ("history", "events", "trajectory")
# OpenHands: what an action calls, by its name; None is a message, the rest says nothing.
_ACTIONS = {
    "run": "execute_bash",
    "run_ipython": "execute_ipython_cell",
    "read": "read",
    "write": "write",
    "edit": "str_replace_editor",
    "browse": "browse",
    "browse_interactive": "browse_interactive",
    "call_tool_mcp": "call_tool_mcp",
    "delegate": "delegate",
    "task_tracking": "task_tracker",
    "message": None,
    "system": None,
    "think": None,
    "finish": None,
    "reject": None,
}
_SILENT_ACTIONS = frozenset(
    "null change_agent_state recall condensation condensation_request pause resume stop init loop_recovery".split()
)
_SILENT_OBSERVATIONS = frozenset("null agent_state_changed".split())
# Fields of an action that are settings, or are told apart from its arguments.
_SETTINGS = frozenset(
    """
    thought final_thought is_input is_static blocking hidden keep_prompt cwd confirmation_state security_risk timeout
    impl_source include_extra kernel_init_code wait_for_response task_completed image_urls file_urls
    """.split()
)
_SDK_SILENT = re.compile(r"Conversation(?:State|Error)\w*|Condensation(?:Request)?|Pause\w*|Token\w*|LLMCompletion\w*")
_CODEX_SILENT = frozenset("ghost_snapshot compaction compaction_summary other".split())
_REMOTE = re.compile(r"[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$")


def is_openhands(record: Record) -> bool:
    """Whether there is a list of OpenHands' events."""
    return any(_is_event_list(record.get(key)) for key in _EVENTS)


def _is_event_list(value: object) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    first = first[0] if isinstance(first, list) and first else first
    if not isinstance(first, dict) or "role" in first:
        return False
    return str(first.get("kind")).endswith("Event") or (
        bool({"action", "observation"} & first.keys()) and bool({"args", "extras", "source"} & first.keys())
    )


def openhands(record: Record) -> Record:
    """The record in the common form; ``instance`` holds the task with the reference, which is not the run's patch."""
    task = expect(record.get("instance") or {}, dict, "instance")
    known = {key: task.get(key) for key in ("instance_id", "repo", "base_commit", "problem_statement")}
    events = next((record[key] for key in _EVENTS if _is_event_list(record.get(key))), None)
    said = (one for event in _flat(expect(events, list, "history")) for one in _openhands_says(event))
    return {**known, **{k: v for k, v in record.items() if v is not None}, "messages": _messages(said)}


def _flat(events: list[Any]) -> Iterator[Record]:
    for number, event in enumerate(events):
        for one in event if isinstance(event, list) else [event]:
            yield expect(one, dict, f"event {number}")


def _openhands_says(event: Record) -> Iterator[Said]:
    if isinstance(event.get("kind"), str):
        yield from _sdk_says(event, event["kind"])
    elif "observation" in event:
        if (kind := str(event["observation"])) not in _SILENT_OBSERVATIONS:
            yield "user", [_observed(event, kind)]
    elif (action := str(event.get("action"))) not in _SILENT_ACTIONS:
        yield _acted(event, action)


def _observed(event: Record, kind: str) -> str:
    """What came back, with the exit code in the words in which the agent was told it."""
    extras = event.get("extras") if isinstance(event.get("extras"), dict) else {}
    metadata = extras.get("metadata") if isinstance(extras.get("metadata"), dict) else {}
    code = metadata.get("exit_code", extras.get("exit_code"))
    text = text_of(event.get("content"), f"observation {kind[:40]}")
    told = kind != "run" or not isinstance(code, int) or "exit code" in text[-200:]
    return text if told else f"{text}\n[The command completed with exit code {code}.]"


def _acted(event: Record, action: str) -> Said:
    if action not in _ACTIONS:
        raise UnusableError("unknown content block", f"an event with action {action[:40]!r}; leave it out")
    given = expect(event.get("args") or {}, dict, f"the arguments of {action}")
    name = _ACTIONS[action]
    said = [given.get(key) for key in ("thought", "final_thought", *(() if name else ("content",)))]
    said = [text.get("text") if isinstance(text, dict) else text for text in said]
    parts: list[Any] = [text for text in said if isinstance(text, str) and text.strip()]
    parts += [{"type": "image_url"} for _ in expect(given.get("image_urls") or [], list, "image_urls")]
    if name:
        arguments = {k: v for k, v in given.items() if k not in _SETTINGS and v not in (None, "", [], {})}
        parts.append({"type": "tool_use", "name": name, "input": arguments})
    by_agent = event.get("source") == "agent" and action != "system"
    return "assistant" if by_agent else "system" if action == "system" else "user", parts


def _sdk_says(event: Record, kind: str) -> Iterator[Said]:
    if kind == "SystemPromptEvent":
        prompt = event.get("system_prompt")
        yield "system", prompt if isinstance(prompt, list) else [prompt]
    elif kind == "MessageEvent":
        message = expect(event.get("llm_message"), dict, "llm_message")
        content = message.get("content")
        yield str(message.get("role")), content if isinstance(content, list) else [content]
    elif kind == "ActionEvent":
        call = expect(event.get("tool_call") or {}, dict, "tool_call")
        call = call["function"] if isinstance(call.get("function"), dict) else call
        action = expect(event.get("action") or {}, dict, "action")
        given = call.get("arguments", {key: value for key, value in action.items() if key != "kind"})
        thoughts = [event.get("reasoning_content") or "", *expect(event.get("thought") or [], list, "thought")]
        used = {"type": "tool_use", "name": event.get("tool_name") or call.get("name"), "input": given}
        yield "assistant", [*filter(None, thoughts), used]
    elif kind in ("ObservationEvent", "UserRejectObservation", "AgentErrorEvent", "CondensationSummaryEvent"):
        seen = event.get("observation")
        content = seen.get("content", seen.get("output")) if isinstance(seen, dict) else seen
        content = content or event.get("error") or event.get("rejection_reason") or event.get("summary")
        yield "user", [text_of(content, kind)]
    elif not _SDK_SILENT.fullmatch(kind):
        raise UnusableError("unknown content block", f"an event of kind {kind[:40]!r}; leave it out")


def is_claude_code(record: Record) -> bool:
    """Whether it is a session, but none of Codex."""
    return isinstance(record.get("session"), list) and not is_codex(record)


def claude_code(record: Record) -> Record:
    """The session in the common form, all turns in the file's order; the first prompt is the issue."""
    lines = [expect(line, dict, "a line of the session") for line in expect(record.get("session"), list, "session")]
    lines = [line for line in lines if isinstance(line.get("message"), dict)]
    if any(line.get("isSidechain") for line in lines):
        raise UnusableError("turns of subagents", "the session holds what subagents did; leave those lines out")
    said = []
    for line in lines:
        content = line["message"].get("content")
        parts = content if isinstance(content, list) else [content]
        said.append((str(line["message"].get("role") or line.get("type")), parts))
    prompts = (text_of(parts, "a prompt") for role, parts in said if role == "user" and not _holds_result(parts))
    issue = next(filter(str.strip, prompts), "")
    return {"problem_statement": issue, **_named(record), "messages": _messages(said)}


def _named(record: Record) -> Record:
    """What somebody wrote beside a session: its task, its patch."""
    return {key: value for key, value in record.items() if key != "session" and value is not None}


def _holds_result(parts: list[Any]) -> bool:
    return any(isinstance(part, dict) and part.get("type") == "tool_result" for part in parts)


def is_codex(record: Record) -> bool:
    """Whether it is a session whose first line is Codex's."""
    lines = record.get("session")
    first = lines[0] if isinstance(lines, list) and lines else None
    return isinstance(first, dict) and first.get("type") == "session_meta"


def codex(record: Record) -> Record:
    """The session in the common form; the last prompt before the agent speaks is the issue, others are settings."""
    lines = [expect(line, dict, "a line of the session") for line in expect(record.get("session"), list, "session")]
    meta = next((line.get("payload") for line in lines if line.get("type") == "session_meta"), None)
    meta = expect(meta or {}, dict, "session_meta")
    git = expect(meta.get("git") or {}, dict, "git")
    items = [expect(line.get("payload"), dict, "payload") for line in lines if line.get("type") == "response_item"]
    messages = _messages(said for item in items for said in _codex_says(item))
    first = next((number for number, one in enumerate(messages) if one["role"] == "assistant"), len(messages))
    prompts = [text_of(one["content"], "a prompt") for one in messages[:first] if one["role"] == "user"]
    remote = _REMOTE.search(str(git.get("repository_url") or ""))
    return {
        "session_id": meta.get("id"),
        "repo": remote[1] if remote else None,
        "base_commit": git.get("commit_hash"),
        "problem_statement": prompts[-1] if prompts else "",
        **_named(record),
        "messages": messages,
    }


def _codex_says(item: Record) -> Iterator[Said]:
    kind = str(item.get("type"))
    if kind == "message":
        content = item.get("content")
        yield str(item.get("role")), content if isinstance(content, list) else [content]
    elif kind == "reasoning":
        if text := text_of(item.get("content") or item.get("summary"), "a reasoning").strip():
            yield "assistant", [text]
    elif kind in CALLS:
        yield "assistant", [item]
    elif kind in RETURNS:
        yield "user", [{"type": "tool_result", "content": _returned(item.get("output"))}]
    elif kind not in _CODEX_SILENT:
        raise UnusableError("unknown content block", f"an item of type {kind[:40]!r}; leave it out")


def _returned(output: object) -> object:
    """The text of an output, which older versions wrap as JSON with the exit code."""
    if isinstance(output, str) and output.startswith('{"output":'):
        try:
            output = loads(output.encode())
        except UnusableError:
            return output
    if not isinstance(output, dict):
        return output
    metadata = output.get("metadata") if isinstance(output.get("metadata"), dict) else {}
    code = f"Exit code: {metadata['exit_code']}\n" if "exit_code" in metadata else ""
    return code + text_of(output.get("output", output.get("content")), "an output")


def _messages(said: Iterable[Said]) -> list[Record]:
    """Chat messages; what the agent says in a row is one, what comes back is one each."""
    messages: list[Record] = []
    for role, group in groupby(said, itemgetter(0)):
        parts = [parts for _, parts in group]
        for content in [list(chain.from_iterable(parts))] if role == "assistant" else parts:
            messages.append({"role": role, "content": content})
    return messages
