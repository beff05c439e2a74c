"""What of a run makes a context: all of it, or only what it printed or what its agent said; the issue and the agent's
closing words can be left out.

The system prompt and what a harness writes around the issue never show: they are the same in all its runs, name the
harness, and would take a good part of the budget.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from data_prep.trajectories.run import PATCH_MASKED, AgentRun, Message

# ``observations`` holds the commands, too: without them nobody could tell what was printed.
Show = Literal["all", "observations", "reasoning"]

_SHELLS = ("", "bash", "sh", "shell", "zsh", "console", "mswea_bash_command")
_BLOCK = re.compile(
    r"^[ \t]*```[ \t]*(?P<language>[\w+-]*)[^\n`]*\n.*?(?:^[ \t]*```[ \t]*$|\Z)"
    r"|<(?P<tag>function|invoke|function_calls|tool_call|execute_\w+)\b.*?(?:</(?P=tag)>|\Z)",
    re.M | re.S,
)


class Shown(NamedTuple):
    """The turns that show, and which of them are the issue and the first edit, None if there is no such turn."""

    messages: list[Message]
    issue: int | None
    edit: int | None


def shown(
    run: AgentRun, masked: Sequence[Message], show: Show = "all", hide_issue: bool = False, hide_summary: bool = False
) -> Shown:
    """What shows of a run whose turns, ``masked``, are as many as its own.

    With ``hide_summary`` the agent's words after its last edit are left out, its commands and their output are not. A
    turn of which nothing is left is left out.
    """
    masked_in = [
        index for index, turn in enumerate(masked) if turn.role == "assistant" and PATCH_MASKED in turn.content
    ]
    # What an agent quotes before it edits is masked, too.
    edits = [index for index in masked_in if PATCH_MASKED in _calls(masked[index].content)] or masked_in
    first = next((index for index, turn in enumerate(masked) if turn.role == "assistant"), len(masked))
    turns: list[Message] = []
    issue = edit = None
    if not hide_issue and (text := _issue(run, masked[:first])):
        issue = 0
        turns.append(Message(role="user", content=text))
    for index, turn in enumerate(masked[first:], first):
        text = turn.content
        if turn.role == "system" or (turn.role == "user" and show == "reasoning"):
            continue
        if turn.role == "assistant" and (show == "observations" or (hide_summary and edits and index > edits[-1])):
            text = _calls(text)
        if edits and index == edits[0]:
            edit = len(turns)
        if text.strip():
            turns.append(Message(role=turn.role, content=text))
    return Shown(turns, issue, edit if edit is None or edit < len(turns) else None)


def _calls(text: str) -> str:
    """The commands and calls of tools in a turn, as they stand there."""
    return "\n".join(block[0] for block in _BLOCK.finditer(text) if block["tag"] or block["language"] in _SHELLS)


def _issue(run: AgentRun, opening: Sequence[Message]) -> str:
    """The issue in the opening turns, as masked; the whole first turn of the user where it is not found in one."""
    asked = [
        (own.content, turn.content) for own, turn in zip(run.messages, opening, strict=False) if turn.role == "user"
    ]
    for own, text in asked:
        before, found, after = own.partition(run.issue) if run.issue else (own, "", "")
        if found and text.startswith(before) and text.endswith(after) and len(before) + len(after) <= len(text):
            return text[len(before) : len(text) - len(after)]
    return asked[0][1] if asked else ""
