"""What an agent did, turn by turn: each command or tool call that was carried out, with what came back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from data_prep.trajectories.run import AgentRun
from data_prep.trajectories.tool_calls import Calls, marked_calls, trimmed

_RETURN_CODE = re.compile(r"\s*<returncode>\s*(-?\d+)\s*</returncode>")
_NOT_RUN = re.compile(r"\s*(?:Please always provide EXACTLY ONE action|Tool call error:|Your previous response)")
_HEAD = re.compile(r"<output_head>\n?(.*?)</output_head>", re.S)
_TAIL = re.compile(r"<output_tail>\n?(.*?)</output_tail>", re.S)
_CLIPPED = re.compile(
    r"<response clipped>|\[\.\.\. .{0,40}(?:omitted|truncated|left out)|Observation was too long", re.I
)


@dataclass(frozen=True)
class Output:
    """What came back.

    Attributes:
        code: return code; None where the format has none.
        head: the output's text, or its beginning if it was cut.
        tail: the end of a cut output.
        cut: whether something is missing between the two.
    """

    code: int | None
    head: str
    tail: str = ""
    cut: bool = False


@dataclass(frozen=True)
class Action:
    """One thing done.

    Attributes:
        turn: index of the agent's turn.
        name: ``bash``, or the tool's name.
        script: text of the command; empty for tools.
        arguments: of a tool.
        output: what came back for this action alone; None where several actions share a turn or nothing came back.
    """

    turn: int
    name: str
    script: str
    output: Output | None
    arguments: dict[str, str] = field(default_factory=dict)


def actions_of(run: AgentRun, wanted: Callable[[str], bool] | None = None) -> Iterator[Action]:
    """The actions in order, without those the agent's harness refused.

    Args:
        wanted: asked with the text of each agent's turn; turns it refuses are passed over.
    """
    messages = run.messages
    for turn, message in enumerate(messages):
        if message.role != "assistant" or (wanted is not None and not wanted(message.content)):
            continue
        calls = list(_calls(message.content))
        if not calls:
            continue
        replies = []
        for later in messages[turn + 1 :]:
            if later.role == "assistant":
                break
            replies.append(later.content)
        if not replies or _NOT_RUN.match(replies[0]):
            continue
        shared = len(replies) < len(calls)
        for index, (name, script, arguments) in enumerate(calls):
            output = None if shared else output_of(replies[index])
            yield Action(turn, name, script, output, arguments)


def _calls(text: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    calls = Calls()
    marked_calls(text, calls)
    regions = calls.regions if calls.tools or calls.named else calls.regions[-1:]
    found = [(region.start, "bash", trimmed(region.text), {}) for region in regions]
    found += [(start, name, "", arguments) for start, name, arguments in calls.tools]
    for _, name, script, arguments in sorted(found, key=lambda call: call[0]):
        yield name, script, arguments


def output_of(reply: str) -> Output:
    """The parts of an observation of mini-swe-agent, SWE-agent or any other harness."""
    match = _RETURN_CODE.match(reply)
    if match is None:
        text = reply.removeprefix("OBSERVATION:\n")
        clip = _CLIPPED.search(text)
        return Output(None, text[: clip.start()] if clip else text, cut=clip is not None)
    code = int(match[1])
    start = reply.find("<output>\n", match.end())
    if start >= 0:
        end = reply.rfind("</output>")
        return Output(code, reply[start + 9 : end if end > start else len(reply)])
    head, tail = _HEAD.search(reply), _TAIL.search(reply)
    if head is None:
        return Output(code, reply[match.end() :].lstrip("\n"), cut=True)
    return Output(code, head[1], tail[1] if tail else "", cut=True)
