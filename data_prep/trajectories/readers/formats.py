"""The formats of runs: how to know a record, and how to bring it into the form that all of them share.

mini-swe-agent, versions 1 and 2: plain chat turns, then tool calls, answers of the Responses API and a last turn of the
role ``exit``. ATIF, the Agent Trajectory Interchange Format: turns are ``steps``; it has no place for task and patch,
which are looked for at the top, in ``extra`` and in the names of file and folders; steps of subagents stored elsewhere
are not read. SWE-agent ``.traj``: ``history``, or ``trajectory`` with one entry a step. What is stored as events is in
:mod:`.events`: OpenHands, Claude Code, Codex. The splits tool, xml and ticks of SWE-bench/SWE-smith-trajectories and
other tables of its columns, such as SWE-Gym's. nebius: turns under ``trajectory``, of its SWE-agent and OpenHands sets.
R2E-Gym: ``trajectory_steps``. Kwai-Klear's 66k table, ids and ``messages`` alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from data_prep.trajectories.readers import events
from data_prep.trajectories.readers.records import UnusableError, expect, loads, without_nul
from data_prep.trajectories.readers.turns import issue_of, plain_turns
from data_prep.trajectories.run import AgentRun

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
# Names of a run's own patch, and where else it may stand; the last may also be the reference, if another is there.
_PATCHES = ("model_patch", "git_patch", "pred_patch", "generated_patch", "output_patch", "patch")
_OUTCOMES = ("resolved", "target", "reward")
_RESULTS = ("test_result", "report")
# Diffs that are not the run's.
_OTHERS = re.compile(r"test|gold|ref|oracle|truth|expect|bug|^(?:instance|ds|task)$", re.I)
_DIFF = re.compile(r"\s*(?:diff --git |--- \S+\s+\+\+\+ )")
_DEMONSTRATION = "Here is a demonstration of how to correctly accomplish this task."


class Format(NamedTuple):
    """One format: whether a record is of it, by a mark of its own; the record in the common form, see :func:`make_run`,
    or UnusableError."""

    sniff: Callable[[Record], bool]
    common: Callable[[Record], Record]


def make_run(record: Record, format: str, names: tuple[str, ...]) -> AgentRun:
    """The run of a record in the common form; raises UnusableError.

    That form has ``messages`` (list of chat messages) and what is known of ``patch`` (text), ``resolved`` (true, false,
    1 or 0), ``trajectory_format``, and the task: ``instance_id``, ``repo``, ``base_commit``, ``problem_statement`` or
    one of their other names. ``names`` are the file's name without endings, then its folders, the nearest first; an
    instance id may be there.
    """

    def first(*keys: str) -> Any:
        return next((record[key] for key in keys if record.get(key) is not None), None)

    instance = _instance(record, names, first("repo", "repository"), first("base_commit", "commit"))
    turns = plain_turns(record.get("messages"))
    patch = _patch_of(record)
    return AgentRun(
        **instance,
        issue=issue_of(turns, first("problem_statement", "issue")),
        messages=turns,
        patch=patch,
        outcome=_outcome_of(record),
        source=str(record.get("trajectory_format") or format),
        patch_origin="submitted" if patch.strip() else "none",
    )


def _patch_of(record: Record) -> str:
    """The run's patch, empty where there is none; raises UnusableError for a diff under a name that is not known."""
    results = record.get("test_result")
    for holder in (results if isinstance(results, dict) else {}, record):
        for name in _PATCHES:
            if holder.get(name) is not None:
                return without_nul(expect(holder[name], str, "the patch"))
    nested = [(f"{key}.{name}", text) for key, value in record.items() if isinstance(value, dict)
              for name, text in value.items() if not _OTHERS.search(str(key))]  # fmt: skip
    for name, text in [*record.items(), *nested]:
        if isinstance(text, str) and _DIFF.match(text) and not _OTHERS.search(str(name).split(".")[-1]):
            raise UnusableError("patch under an unknown name", f"{str(name)[:60]} is a diff; call it model_patch")
    return ""


def _outcome_of(record: Record) -> str:
    """What is 1 or true is resolved, 0 or false unresolved; a share of tests says nothing."""
    results = record.get("test_result")
    places = [record, *(place.get("report") for place in (record, results) if isinstance(place, dict))]
    found = (place[name] for place in places if isinstance(place, dict) for name in _OUTCOMES
             if isinstance(place.get(name), bool | int | float))  # fmt: skip
    return {1: "resolved", 0: "unresolved"}.get(next(found, -1), "unknown")


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
    return {**record, "messages": _unpacked(record.get("messages"))}


def _unpacked(turns: object) -> object:
    """Turns that a table may hold as JSON text."""
    return loads(turns.encode("utf-8", "replace")) if isinstance(turns, str) else turns


def _is_nebius(record: Record) -> bool:
    turns = record.get("trajectory")
    if isinstance(turns, str):
        return turns.startswith("[") and '"role"' in turns[:400]
    return isinstance(turns, list) and bool(turns) and isinstance(turns[0], dict) and "role" in turns[0]


def _nebius(record: Record) -> Record:
    turns = expect(_unpacked(record.get("trajectory")), list, "trajectory")
    return {**record, "messages": [_nebius_turn(turn) for turn in turns]}


def _nebius_turn(turn: object) -> object:
    """The SWE-agent set keeps what a turn says under ``text``, the first one's under ``system_prompt``."""
    if not isinstance(turn, dict) or turn.get("content") is not None or turn.get("tool_calls"):
        return turn
    return {**turn, "content": turn.get("text") if turn.get("text") is not None else turn.get("system_prompt")}


def _r2e_gym(record: Record) -> Record:
    """Steps hold neither prompt nor task; a commit of R2E-Gym's own tasks is that of the fix, so none is the base."""
    task = expect(record.get("ds") or {}, dict, "ds")
    steps = [expect(step, dict, "a step") for step in expect(record.get("trajectory_steps"), list, "trajectory_steps")]
    image = str(task.get("docker_image") or record.get("docker_image") or "").rpartition("/")[2]
    name, _, commit = image.partition(":")
    repo = task.get("repo") or f"r2e-gym/{task.get('repo_name') or name.removesuffix('_final')}"
    issue = record.get("problem_statement")
    turns = [{"role": "user", "content": issue}] if issue else []
    for step in steps:
        said = [{"type": "text", "text": step[key]} for key in ("thought", "action") if step.get(key)]
        turns += [{"role": "assistant", "content": said}, {"role": "user", "content": step.get("observation")}]
    instance = task.get("instance_id") or (f"{name}-{commit[:12]}" if commit else None)
    return {"instance_id": instance, "repo": repo, "base_commit": task.get("base_commit"), **record, "messages": turns}


# In the order in which `auto` asks them: marks of their own first, tables known by their columns last.
FORMATS: dict[str, Format] = {
    "mini-swe-agent": Format(_is_mini, _mini),
    "atif": Format(_is_atif, _atif),
    "claude-code": Format(events.is_claude_code, events.claude_code),
    "codex": Format(events.is_codex, events.codex),
    "openhands": Format(events.is_openhands, events.openhands),
    "swe-agent": Format(_is_swe_agent, _swe_agent),
    "nebius": Format(_is_nebius, _nebius),
    "r2e-gym": Format(lambda record: "trajectory_steps" in record, _r2e_gym),
    "swe-smith": Format(
        lambda record: "messages" in record and bool({*_PATCHES, *_OUTCOMES, *_RESULTS} & record.keys()), _swe_smith
    ),
    "klear": Format(
        lambda record: "messages" in record and not {"info", "trajectory", "history", "steps"} & record.keys(),
        _swe_smith,
    ),
}
