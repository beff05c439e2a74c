"""Turns of any agent as plain text: parts joined, tool calls written out, roles reduced to system, user and assistant.

A call of a shell tool is written as the fenced ``bash`` block that text-based agents write themselves; any other call
in the tagged form of SWE-smith's conversations (``<function=name>`` with one ``<parameter=...>`` each). What a tool
returns is a turn of the user, as in text-based runs. So later steps need to know two ways of calling, not one a format.
"""

from __future__ import annotations

import json
from typing import Any

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
    if not isinstance(messages, list):
        raise UnusableError("wrong types", f"messages is {type(messages).__name__}, not a list")
    turns = tuple(_turn(message, index) for index, message in enumerate(messages))
    return checked(turns)


def checked(turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """The turns, unless no agent says anything in them."""
    if not any(turn.role == "assistant" and turn.content.strip() for turn in turns):
        raise UnusableError("no messages", f"none of the {len(turns)} turns is an agent's")
    return turns


def _turn(message: object, index: int) -> Message:
    if not isinstance(message, dict):
        raise UnusableError("wrong types", f"message {index} is {type(message).__name__}, not an object")
    if message.get("object") == "response":  # one answer of OpenAI's Responses API, as mini-swe-agent stores it
        return Message(role="assistant", content=_response_text(message.get("output"), index))
    if message.get("type") == "function_call_output":
        return Message(role="user", content=text_of(message.get("output"), f"message {index}"))
    role = message.get("role")
    plain = _ROLES.get(role) if isinstance(role, str) else None
    if plain is None:
        raise UnusableError("wrong types", f"message {index}: role is {str(role)[:40]!r}")
    content = text_of(message.get("content"), f"message {index}")
    if plain == "assistant":
        if not content.strip():
            thought = message.get("reasoning_content") or message.get("thought")
            content = thought if isinstance(thought, str) else content
        content = with_calls(content, message.get("tool_calls"), f"message {index}")
    return Message(role=plain, content=content)


def text_of(content: object, where: str) -> str:
    """Text of a content field: a string, nothing, or a list of parts; a part that is not text leaves a mark."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if not isinstance(content, list):
        raise UnusableError("wrong types", f"{where}: content is {type(content).__name__}")
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif isinstance(part, dict) and isinstance(part.get("type"), str):
            texts.append(f"[{part['type'][:20]}]")
        else:
            raise UnusableError("wrong types", f"{where}: a part of its content is {type(part).__name__}")
    return "\n".join(texts)


def with_calls(content: str, calls: object, where: str) -> str:
    """The text with tool calls written below it."""
    if not calls:
        return content
    if not isinstance(calls, list):
        raise UnusableError("wrong types", f"{where}: tool_calls is {type(calls).__name__}")
    parts = [content] if content.strip() else []
    for call in calls:
        if not isinstance(call, dict):
            raise UnusableError("wrong types", f"{where}: a tool call is {type(call).__name__}")
        inner = call.get("function")
        inner = inner if isinstance(inner, dict) else call
        parts.append(call_text(inner.get("name"), inner.get("arguments")))
    return "\n\n".join(parts)


def call_text(name: object, arguments: object) -> str:
    """One tool call as text."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments, strict=False)
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


def _response_text(output: object, index: int) -> str:
    if not isinstance(output, list):
        raise UnusableError("wrong types", f"message {index}: output is {type(output).__name__}")
    parts: list[str] = []
    for item in output:
        if not isinstance(item, dict):
            raise UnusableError("wrong types", f"message {index}: an output item is {type(item).__name__}")
        kind: Any = item.get("type")
        if kind == "function_call":
            parts.append(call_text(item.get("name"), item.get("arguments")))
        elif kind in ("message", "reasoning"):
            parts.append(text_of(item.get("content") or item.get("summary"), f"message {index}"))
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


def patch_of(value: object, where: str) -> str:
    """A patch field: text or nothing."""
    if value is None or isinstance(value, str):
        return value or ""
    raise UnusableError("wrong types", f"{where} is {type(value).__name__}, not text")
