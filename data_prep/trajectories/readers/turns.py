"""Turns of any agent as plain text: parts joined, tool calls written out, roles reduced to system, user and assistant.

A call of a shell tool is written as the fenced ``bash`` block that text-based agents write themselves; any other call
in the tagged form of SWE-smith's conversations (``<function=name>`` with one ``<parameter=...>`` each). What a tool
returns is a turn of the user, as in text-based runs. So later steps need to know two ways of calling, not one a format.
"""

from __future__ import annotations

import json
from typing import Any

from data_prep.trajectories.readers.json_text import without_surrogates
from data_prep.trajectories.readers.types import UnusableError
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
    turns = tuple(_turn(message, f"message {index}") for index, message in enumerate(_list(messages, "messages")))
    if not any(turn.role == "assistant" and turn.content.strip() for turn in turns):
        raise UnusableError("no messages", f"none of the {len(turns)} turns is an agent's")
    return turns


def as_object(value: object, where: str) -> dict[str, Any]:
    """The value as a JSON object; raises UnusableError."""
    if not isinstance(value, dict):
        raise UnusableError("wrong types", f"{where} is {type(value).__name__}, not an object")
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise UnusableError("wrong types", f"{where} is {type(value).__name__}, not a list")
    return value


def _turn(message: object, where: str) -> Message:
    message = as_object(message, where)
    if message.get("object") == "response":  # one answer of OpenAI's Responses API, as mini-swe-agent stores it
        return Message(role="assistant", content=_response_text(message.get("output"), where))
    if message.get("type") == "function_call_output":
        return Message(role="user", content=_text_of(message.get("output"), where))
    role = message.get("role")
    plain = _ROLES.get(role) if isinstance(role, str) else None
    if plain is None:
        raise UnusableError("wrong types", f"{where}: role is {str(role)[:40]!r}")
    content = _text_of(message.get("content"), where)
    if plain == "assistant":
        if not content.strip():
            thought = message.get("reasoning_content") or message.get("thought")
            content = thought if isinstance(thought, str) else content
        if calls := message.get("tool_calls"):
            parts = [content] if content.strip() else []
            for call in _list(calls, f"{where}: tool_calls"):
                call = as_object(call, f"{where}: a tool call")
                inner = call.get("function")
                inner = inner if isinstance(inner, dict) else call
                parts.append(_call_text(inner.get("name"), inner.get("arguments")))
            content = "\n\n".join(parts)
    return Message(role=plain, content=content)


def _text_of(content: object, where: str) -> str:
    """Text of a content field: a string, nothing, or a list of parts; a part that is not text leaves a mark."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for part in _list(content, f"{where}: content"):
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part, dict) and isinstance(part.get("type"), str):
            texts.append(f"[{part['type'][:20]}]")
        else:
            raise UnusableError("wrong types", f"{where}: a part of its content is {type(part).__name__}")
    return "\n".join(texts)


def _call_text(name: object, arguments: object) -> str:
    if isinstance(arguments, str):
        try:
            arguments = without_surrogates(json.loads(arguments, strict=False))
        except (ValueError, RecursionError):
            return f"<function={name}>\n{arguments}\n</function>"  # no JSON, as models write
    if not isinstance(arguments, dict):
        arguments = {} if arguments is None else {"value": arguments}
    if isinstance(name, str) and name.lower() in _SHELL_TOOLS:
        for key in _COMMAND_NAMES:
            if isinstance(arguments.get(key), str):
                return f"```bash\n{arguments[key]}\n```"
    lines = [f"<function={name}>"]
    for key, value in arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines.append(
            f"<parameter={key}>\n{text}\n</parameter>" if key in _MULTILINE else f"<parameter={key}>{text}</parameter>"
        )
    return "\n".join([*lines, "</function>"])


def _response_text(output: object, where: str) -> str:
    parts: list[str] = []
    for item in _list(output, f"{where}: output"):
        item = as_object(item, f"{where}: an output item")
        if item.get("type") == "function_call":
            parts.append(_call_text(item.get("name"), item.get("arguments")))
        elif item.get("type") in ("message", "reasoning"):
            parts.append(_text_of(item.get("content") or item.get("summary"), where))
    return "\n\n".join(part for part in parts if part.strip())


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
