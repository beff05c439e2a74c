"""Turns of chat messages as plain text: parts joined, tool calls written out, roles reduced to system, user, assistant.

A call of a shell tool is written as the fenced ``bash`` block that text-based agents write themselves, any other call
in the tagged form of SWE-smith's conversations (``<function=name>`` with one ``<parameter=...>`` each), and what a tool
returns is a turn of the user, so that later steps need to know two ways of calling, not one a format. What cannot be
read is refused, but for pictures and the like, which leave a mark.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from data_prep.trajectories.readers.records import UnusableError, expect, loads, without_nul
from data_prep.trajectories.run import Message

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "tool", "function", "environment", "observation", "exit"), "user"),
    **dict.fromkeys(("assistant", "agent", "ai", "gpt", "model"), "assistant"),
}
_SHELL_TOOLS = frozenset(
    "bash execute_bash shell terminal run_command execute_command bash_command exec exec_command shell_command "
    "container.exec local_shell".split()
)
_COMMAND_NAMES = ("command", "cmd", "keystrokes", "code")
_MULTILINE = {"old_str", "new_str", "file_text", "old_string", "new_string", "content", "insert_text", "patch"}
# Parts of a content that are no text: they leave a mark.
_MARKED = frozenset(
    "image image_url input_image audio input_audio file input_file document redacted_thinking tool_reference".split()
)
# Items of OpenAI's Responses API that call a tool, and that hold what it returned.
CALLS = ("function_call", "custom_tool_call", "local_shell_call")
RETURNS = tuple(f"{call}_output" for call in CALLS)

# What stands around the issue in the first turn of the user, by harness.
_ISSUES = (
    ("<pr_description>", "</pr_description>"),
    ("<issue_description>", "</issue_description>"),
    ("<problem_statement>", "</problem_statement>"),
    ("<github_issue>", "</github_issue>"),
    ("<issue>", "</issue>"),
    ("ISSUE:\n", "\nINSTRUCTIONS:"),
    ("Please solve this issue:", "\n\nYou can execute"),
)
_INTRODUCTION = "Consider the following PR description:"


def plain_turns(messages: object) -> tuple[Message, ...]:
    """The turns of a list of chat messages; raises UnusableError where it is no such list or no agent speaks in it."""
    if messages is None or messages == []:
        raise UnusableError("no messages", "the list of messages is missing or empty")
    numbered = enumerate(expect(messages, list, "messages"))
    turns = tuple(turn for index, message in numbered for turn in _turns(message, f"message {index}"))
    if not any(turn.role == "assistant" and turn.content.strip() for turn in turns):
        raise UnusableError("no messages", f"none of the {len(turns)} turns is an agent's")
    return turns


def _turns(message: object, where: str) -> Iterator[Message]:
    """A message as a turn; what tools returned, where several share a message, as a turn each."""
    message = expect(message, dict, where)
    called = message.get("object") == "response"
    if called:
        message = {"role": "assistant", "content": expect(message.get("output"), list, f"{where}: output")}
    elif message.get("type") in RETURNS:
        message = {"role": "tool", "content": message.get("output")}
    role = _ROLES.get(str(message.get("role")))
    if role is None:
        raise UnusableError("wrong types", f"{where}: role is {str(message.get('role'))[:40]!r}")
    content, texts = message.get("content"), []
    calls = expect(message.get("tool_calls") or [], list, f"{where}: tool_calls")
    calls = [_call_text(call, where) for call in [*calls, *filter(None, [message.get("function_call")])]]
    called = called or bool(calls)
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "tool_result":
            if any(map(str.strip, texts)):
                yield Message(role=role, content=without_nul("\n".join(texts)))
            texts = []
            yield Message(role="user", content=without_nul(text_of(part.get("content"), where)))
        elif kind == "tool_use" or kind in CALLS:
            texts.append(_call_text(part, where))
            called = True
        else:
            texts.append(text_of([part] if isinstance(part, dict) else part, where))
    if isinstance(content, list) and content and not texts and not calls:
        return  # nothing but results
    thought = message.get("reasoning_content") or message.get("thought")
    if role == "assistant" and isinstance(thought, str) and not any(map(str.strip, texts)):
        texts = [thought]
    texts = [*filter(str.strip, texts), *calls] if called else texts
    yield Message(role=role, content=without_nul(("\n\n" if called else "\n").join(texts)))


def text_of(content: object, where: str) -> str:
    """Text of a content field: a string, nothing, or a list of parts; raises UnusableError for a part that is none."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for part in expect(content, list, f"{where}: content"):
        if not isinstance(part, str):
            part = _part_text(expect(part, dict, f"{where}: a part of its content"), where)
        texts.append(part)
    return "\n".join(texts)


def _part_text(part: dict[str, Any], where: str) -> str:
    kind = expect(part.get("type", "text"), str, f"{where}: a type")
    text = next((part[key] for key in ("text", "thinking", "refusal") if isinstance(part.get(key), str)), None)
    if text is not None:
        return text
    if kind in ("message", "reasoning"):  # items of the Responses API; a reasoning may be encrypted
        return text_of(part.get("content") or part.get("summary"), where)
    if kind in _MARKED:
        return f"[{kind}]"
    raise UnusableError("unknown content block", f"{where}: a part of type {kind[:40]!r}; leave it out, or as text")


def _call_text(call: object, where: str) -> str:
    call = expect(call, dict, f"{where}: a tool call")
    call = call["function"] if isinstance(call.get("function"), dict) else call
    name = call.get("name") or call.get("function_name")
    arguments = call.get("arguments", call.get("input"))
    if call.get("type") == "local_shell_call":
        name, arguments = "local_shell", call.get("action")
    elif call.get("type") == "custom_tool_call":  # its text is no JSON
        arguments = {"patch" if name == "apply_patch" else "input": arguments}
    if isinstance(arguments, str):
        try:
            arguments = loads(arguments.encode())
        except UnusableError:
            return f"<function={name}>\n{arguments}\n</function>"  # no JSON, as models write
    if not isinstance(arguments, dict):
        arguments = {} if arguments is None else {"value": arguments}
    if str(name).lower() in _SHELL_TOOLS:
        commands = (_command_line(arguments.get(key)) for key in _COMMAND_NAMES)
        if (command := next((one for one in commands if one is not None), None)) is not None:
            return f"```bash\n{command}\n```"
    lines = [f"<function={name}>"]
    for key, value in arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text = f"\n{text}\n" if key in _MULTILINE else text
        lines.append(f"<parameter={key}>{text}</parameter>")
    return "\n".join([*lines, "</function>"])


def _command_line(command: object) -> str | None:
    """A command of a shell tool, also one given as a list of words, such as ``["bash", "-lc", "ls"]``."""
    if isinstance(command, str):
        return command
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        return None
    shell = command[0].rsplit("/", 1)[-1] in ("bash", "sh", "zsh") and command[1:2] in (["-lc"], ["-c"])
    return command[2] if shell and len(command) == 3 else shlex.join(command)


def issue_of(turns: tuple[Message, ...], stated: object = None) -> str:
    """The issue: what the record states, else the marked part of the first user turn that has one, else empty."""
    if isinstance(stated, str) and stated.strip():
        return without_nul(stated).strip()
    for turn in takewhile(lambda turn: turn.role != "assistant", turns):
        for opening, closing in _ISSUES if turn.role == "user" else ():
            _, found, rest = turn.content.partition(opening)
            text, closed, _ = rest.partition(closing)
            if found and closed:
                return text.strip().removeprefix(_INTRODUCTION).strip()
    return ""
