"""Turns of any agent as plain text: parts joined, tool calls written out, roles reduced to system, user and assistant.

A call of a shell tool is written as the fenced ``bash`` block that text-based agents write themselves; any other call
in the tagged form of SWE-smith's conversations (``<function=name>`` with one ``<parameter=...>`` each). What a tool
returns is a turn of the user, as in text-based runs. So later steps need to know two ways of calling, not one a format.
"""

from __future__ import annotations

import json
from typing import Any

from data_prep.trajectories.readers.records import UnusableError, expect, loads
from data_prep.trajectories.run import Message

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "tool", "function", "environment", "observation", "exit"), "user"),
    **dict.fromkeys(("assistant", "agent", "ai", "gpt", "model"), "assistant"),
}
_SHELL_TOOLS = {"bash", "execute_bash", "shell", "terminal", "run_command", "execute_command", "bash_command", "exec"}
_COMMAND_NAMES = ("command", "cmd", "keystrokes", "code")
_MULTILINE = {"old_str", "new_str", "file_text", "old_string", "new_string", "content", "insert_text", "patch"}

# What stands around the issue in the first turn of the user, by harness.
_ISSUES = (
    ("<pr_description>", "</pr_description>"),
    ("<issue_description>", "</issue_description>"),
    ("<problem_statement>", "</problem_statement>"),
    ("<issue>", "</issue>"),
    ("ISSUE:\n", "\nINSTRUCTIONS:"),
    ("Please solve this issue:", "\n\nYou can execute"),
)
_INTRODUCTION = "Consider the following PR description:"


def plain_turns(messages: object) -> tuple[Message, ...]:
    """The turns of a list of chat messages; raises UnusableError where it is no such list or no agent speaks in it."""
    if messages is None or messages == []:
        raise UnusableError("no messages", "the list of messages is missing or empty")
    turns = tuple(
        _turn(message, f"message {index}") for index, message in enumerate(expect(messages, list, "messages"))
    )
    if not any(turn.role == "assistant" and turn.content.strip() for turn in turns):
        raise UnusableError("no messages", f"none of the {len(turns)} turns is an agent's")
    return turns


def _turn(message: object, where: str) -> Message:
    message = expect(message, dict, where)
    if message.get("object") == "response":
        message = _from_response(message.get("output"), where)
    elif message.get("type") == "function_call_output":
        message = {"role": "tool", "content": message.get("output")}
    role = _ROLES.get(str(message.get("role")))
    if role is None:
        raise UnusableError("wrong types", f"{where}: role is {str(message.get('role'))[:40]!r}")
    content = _text_of(message.get("content"), where)
    if role == "assistant":
        thought = message.get("reasoning_content") or message.get("thought")
        if not content.strip() and isinstance(thought, str):
            content = thought
        if calls := expect(message.get("tool_calls") or [], list, f"{where}: tool_calls"):
            parts = [content] if content.strip() else []
            content = "\n\n".join([*parts, *(_call_text(call, where) for call in calls)])
    return Message(role=role, content=content)


def _from_response(output: object, where: str) -> dict[str, Any]:
    """One answer of OpenAI's Responses API, as mini-swe-agent stores it, as a chat message."""
    items = [expect(item, dict, f"{where}: an output item") for item in expect(output, list, f"{where}: output")]
    said = [item for item in items if item.get("type") in ("message", "reasoning")]
    texts = [_text_of(item.get("content") or item.get("summary"), where) for item in said]
    calls = [item for item in items if item.get("type") == "function_call"]
    return {"role": "assistant", "content": "\n\n".join(filter(str.strip, texts)), "tool_calls": calls}


def _text_of(content: object, where: str) -> str:
    """Text of a content field: a string, nothing, or a list of parts; a part that is not text leaves a mark."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for part in expect(content, list, f"{where}: content"):
        if not isinstance(part, str):
            part = expect(part, dict, f"{where}: a part of its content")
            text = part.get("text")
            part = text if isinstance(text, str) else f"[{expect(part.get('type'), str, f'{where}: a type')[:20]}]"
        texts.append(part)
    return "\n".join(texts)


def _call_text(call: object, where: str) -> str:
    call = expect(call, dict, f"{where}: a tool call")
    call = call["function"] if isinstance(call.get("function"), dict) else call
    name, arguments = call.get("name") or call.get("function_name"), call.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = loads(arguments.encode())
        except UnusableError:
            return f"<function={name}>\n{arguments}\n</function>"  # no JSON, as models write
    if not isinstance(arguments, dict):
        arguments = {} if arguments is None else {"value": arguments}
    if str(name).lower() in _SHELL_TOOLS:
        for key in _COMMAND_NAMES:
            if isinstance(arguments.get(key), str):
                return f"```bash\n{arguments[key]}\n```"
    lines = [f"<function={name}>"]
    for key, value in arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text = f"\n{text}\n" if key in _MULTILINE else text
        lines.append(f"<parameter={key}>{text}</parameter>")
    return "\n".join([*lines, "</function>"])


def issue_of(turns: tuple[Message, ...], stated: object = None) -> str:
    """The issue: what the record states, else the marked part of the first user turn that has one, else empty."""
    if isinstance(stated, str) and stated.strip():
        return stated.strip()
    for turn in turns:
        if turn.role == "assistant":
            break
        for opening, closing in _ISSUES if turn.role == "user" else ():
            _, found, rest = turn.content.partition(opening)
            text, closed, _ = rest.partition(closing)
            if found and closed:
                return text.strip().removeprefix(_INTRODUCTION).strip()
    return ""
