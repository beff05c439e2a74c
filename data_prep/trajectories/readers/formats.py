"""The formats of runs: how to know a record, and how to bring it into the form that all of them share.

mini-swe-agent, versions 1 and 2: plain chat turns, then tool calls, answers of the Responses API and a last turn of the
role ``exit``. ATIF, the Agent Trajectory Interchange Format: turns are ``steps``; it has no place for task and patch,
which are looked for at the top, in ``extra`` and in the names of file and folders; steps of subagents stored elsewhere
are not read. SWE-agent ``.traj``: ``history``, or ``trajectory`` with one entry a step. The splits tool, xml and ticks
of SWE-bench/SWE-smith-trajectories and other tables of its columns. Kwai-Klear's 66k table, ids and ``messages`` alone.

Turns become plain text: parts joined, tool calls written out, roles reduced to system, user and assistant. A call of a
shell tool is written as the fenced ``bash`` block that text-based agents write themselves, any other call in the tagged
form of SWE-smith's conversations (``<function=name>`` with one ``<parameter=...>`` each), and what a tool returns is a
turn of the user, so that later steps need to know two ways of calling, not one a format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Any, NamedTuple

from data_prep.trajectories.readers.records import UnusableError, expect, loads, without_nul
from data_prep.trajectories.run import AgentRun, Message

Record = dict[str, Any]
# Neither part holds two underscores in a row, so that names of folders with settings in them are not taken for ids.
_INSTANCE = re.compile(
    r"(?:instance_)?(?P<owner>[A-Za-z0-9][A-Za-z0-9-]*)__(?P<name>(?:[A-Za-z0-9.-]|_(?!_))+?)(?:"
    r"\.(?P<commit>[0-9a-f]{7,40})\..+"  # SWE-smith: owner__name.commit8.kind__hash
    r"|-(?P<long>[0-9a-f]{40})(?:-v[\w.]*)?"  # SWE-bench Pro: instance_owner__name-commit40, with a version behind
    r"|-i?\d+)"  # SWE-bench, SWE-Gym, SWE-rebench: owner__name-number; SWE-agent's own issues: -i and a number
)
# Trial folders of evaluation harnesses put a random word behind the task's name.
_TRIAL = re.compile(r"__[A-Za-z0-9]{6,8}$")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_TABLE = {"instance_id", "messages"}
_DEMONSTRATION = "Here is a demonstration of how to correctly accomplish this task."

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


class Format(NamedTuple):
    """One format: whether a record is of it, by a mark of its own; the record in the common form, see :func:`make_run`,
    or UnusableError."""

    sniff: Callable[[Record], bool]
    common: Callable[[Record], Record]


def make_run(record: Record, format: str, names: tuple[str, ...]) -> AgentRun:
    """The run of a record in the common form; raises UnusableError.

    That form has ``messages`` (list of chat messages) and what is known of ``patch`` (text), ``resolved`` (counts only
    if it is a bool), ``trajectory_format``, and the task: ``instance_id``, ``repo``, ``base_commit``,
    ``problem_statement`` or one of their other names. ``names`` are the file's name without endings, then its folders,
    the nearest first; an instance id may be there.
    """

    def first(*keys: str) -> Any:
        return next((record[key] for key in keys if record.get(key) is not None), None)

    instance = _instance(record, names, first("repo", "repository"), first("base_commit", "commit"))
    turns = plain_turns(record.get("messages"))
    patch = without_nul(expect(record.get("patch") or "", str, "the patch"))
    resolved = record.get("resolved")
    return AgentRun(
        **instance,
        issue=issue_of(turns, first("problem_statement", "issue")),
        messages=turns,
        patch=patch,
        outcome="unknown" if not isinstance(resolved, bool) else "resolved" if resolved else "unresolved",
        source=str(record.get("trajectory_format") or format),
        patch_origin="submitted" if patch.strip() else "none",
    )


def _instance(record: Record, names: Iterable[str], repository: object, commit: object) -> dict[str, str]:
    """The id is the first text of the record, then of the names of file and folders, in a known spelling. A stated
    commit wins over the id's; a stated repository serves where no id is in a known spelling."""
    stated = (record.get(key) for key in ("instance_id", "task_id", "task_name", "trajectory_id", "session_id"))
    said = [text.strip() for text in stated if isinstance(text, str) and text.strip()]
    base = commit if isinstance(commit, str) else ""
    for text in (*said, *names):
        for spelling in (text, _TRIAL.sub("", text)):
            if found := _INSTANCE.fullmatch(spelling):
                base = base or found["commit"] or found["long"] or ""
                return {"instance_id": spelling, "repository": f"{found['owner']}/{found['name']}", "commit": base}
    if not said:
        raise UnusableError("no instance id", "neither the record nor its file says its task; add a field instance_id")
    if isinstance(repository, str) and _REPOSITORY.fullmatch(repository):
        return {"instance_id": said[0], "repository": repository, "commit": base}
    raise UnusableError(
        "no repository",
        f"instance id {said[0][:80]!r}; spell it owner__name-number or owner__name.commit.rest, or add a field repo",
    )


def _with(record: Record, key: str) -> Record:
    """What the object under ``key`` says, and over it what the record itself does."""
    return {**expect(record.get(key) or {}, dict, key), **{k: v for k, v in record.items() if v is not None}}


def _is_mini(record: Record) -> bool:
    info, stated = record.get("info"), record.get("trajectory_format")
    if isinstance(stated, str):
        return stated.startswith("mini-swe-agent")
    return isinstance(info, dict) and "mini_version" in info and "messages" in record


def _mini(record: Record) -> Record:
    known = _with(record, "info")
    patch = known.get("submission")
    failed = str(known.get("exit_status", "")).lower() != "submitted"
    if failed and isinstance(patch, str) and "diff --git" not in patch and "--- " not in patch:
        patch = None  # a run that ended by an error keeps the error's text here
    return {**known, "patch": patch}


def _is_atif(record: Record) -> bool:
    return str(record.get("schema_version")).upper().startswith("ATIF")


def _atif(record: Record) -> Record:
    known = _with(record, "extra")
    steps = enumerate(expect(known.get("steps") or [], list, "steps"), 1)
    return {
        **known,
        "messages": [turn for index, step in steps for turn in _atif_turns(step, f"step {index}")],
        "patch": next(filter(None, map(known.get, ("patch", "submission", "model_patch", "final_diff"))), None),
        "trajectory_format": known.get("schema_version"),
    }


def _atif_turns(step: object, where: str) -> list[Record]:
    """What the step says, with its tool calls, and what they returned."""
    step = expect(step, dict, where)
    seen = expect(step.get("observation") or {}, dict, f"{where}: observation")
    results = expect(seen.get("results") or [], list, f"{where}: results")
    returned = [{"role": "tool", "content": expect(result, dict, where).get("content")} for result in results]
    return [{**step, "role": step.get("source"), "content": step.get("message")}, *returned]


def _is_swe_agent(record: Record) -> bool:
    return "trajectory" in record and ("history" in record or "info" in record)


def _swe_agent(record: Record) -> Record:
    known = _with(record, "info")
    history = record.get("history") or _from_steps(record.get("trajectory"))
    messages = [turn for turn in expect(history, list, "history") if not _is_demonstration(turn)]
    return {**known, "messages": messages, "patch": known.get("submission")}


def _is_demonstration(turn: object) -> bool:
    return isinstance(turn, dict) and (bool(turn.get("is_demo")) or str(turn.get("content")).startswith(_DEMONSTRATION))


def _from_steps(steps: object) -> list[Any]:
    """Turns from the steps: what the first step was asked, then each answer and what came back."""
    if not isinstance(steps, list):
        raise UnusableError("no messages", "neither history nor trajectory is a list")
    turns: list[Any] = []
    for step in steps:
        step = expect(step, dict, "a step")
        asked = step.get("query")
        if not turns and isinstance(asked, list):
            turns.extend(asked)
        said = {"role": "assistant", "content": step.get("response") or step.get("thought")}
        turns += [{**said, "tool_calls": step.get("tool_calls")}, {"role": "user", "content": step.get("observation")}]
    return turns


def _swe_smith(record: Record) -> Record:
    messages = record.get("messages")
    return {**record, "messages": loads(messages.encode("utf-8", "replace")) if isinstance(messages, str) else messages}


# In the order in which `auto` asks them: marks of their own first, tables known by their columns last.
FORMATS: dict[str, Format] = {
    "mini-swe-agent": Format(_is_mini, _mini),
    "atif": Format(_is_atif, _atif),
    "swe-agent": Format(_is_swe_agent, _swe_agent),
    "swe-smith": Format(
        lambda record: _TABLE <= record.keys() and bool({"patch", "resolved"} & record.keys()), _swe_smith
    ),
    "klear": Format(
        lambda record: _TABLE <= record.keys() and not {"info", "trajectory", "history", "steps"} & record.keys(),
        lambda record: {**record, "patch": None},
    ),
}


def plain_turns(messages: object) -> tuple[Message, ...]:
    """The turns of a list of chat messages; raises UnusableError where it is no such list or no agent speaks in it."""
    if messages is None or messages == []:
        raise UnusableError("no messages", "the list of messages is missing or empty")
    numbered = enumerate(expect(messages, list, "messages"))
    turns = tuple(_turn(message, f"message {index}") for index, message in numbered)
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
    return Message(role=role, content=without_nul(content))


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
    commands = (arguments[key] for key in _COMMAND_NAMES if isinstance(arguments.get(key), str))
    if str(name).lower() in _SHELL_TOOLS and (command := next(commands, None)) is not None:
        return f"```bash\n{command}\n```"
    lines = [f"<function={name}>"]
    for key, value in arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text = f"\n{text}\n" if key in _MULTILINE else text
        lines.append(f"<parameter={key}>{text}</parameter>")
    return "\n".join([*lines, "</function>"])


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
