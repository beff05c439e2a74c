"""A first, simple pairing rule: two runs that edited the same file for different issues; which one made this patch?

What it hides: the added lines of both patches, the title of the issue, the turn that shows the issue, the submission.
What it leaves: the lines a patch removes, a line the agent wrote in another form than the submitted one, names of other
files. A reader can use those; that they do not give the answer away by themselves is for an audit to show.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from unidiff import PatchSet
from unidiff.errors import UnidiffParseError

from data_prep.trajectories.mini_swe_agent import SUBMIT_MARKER, AgentRun, Message

QUERY = (
    "Two coding agents worked on two different issues of the same repository and both edited {file}. "
    "Below are parts of their runs. Which run produced this patch?"
)
PATCH_MASK = "<PATCH_MASKED>"
ISSUE_MASK = "<ISSUE_MASKED>"
MIN_MASKED_CHARS = 8
MIN_CONTEXT_CHARS = 300

# Room set aside for one marker and the line breaks around it, and the least of a turn that is worth showing.
_MARKER_ROOM = 48
_LEAST_OF_A_TURN = 60


@dataclass(frozen=True)
class _Candidate:
    """A run that can be paired: what it edited, what it added, and the turns that may be shown."""

    run: AgentRun
    files: frozenset[str]
    added: frozenset[str]
    turns: tuple[Message, ...]


def simple_pairs(
    runs: Iterable[AgentRun],
    max_chars_per_context: int,
    seed: int = 0,
    *,
    max_chars_answer: int = 1500,
    max_couples_per_run: int = 4,
    split: str = "train",
) -> tuple[list[dict], Counter]:
    """Pair runs; return the pairs and what became of every run and of every couple.

    A couple is two runs of one repository that edited the same file (tests and new files aside). A kept couple gives
    two pairs: each patch in turn is the answer. In the counts, `runs` = `runs: usable` + every `run dropped: ...`, and
    `couples` = `couples: kept` + every `couple dropped: ...`. The order of `runs` makes no difference.
    """
    if max_chars_per_context < MIN_CONTEXT_CHARS:
        raise ValueError(f"max_chars_per_context is {max_chars_per_context}; use at least {MIN_CONTEXT_CHARS}")
    if max_chars_answer < 2 * _MARKER_ROOM:
        raise ValueError(f"max_chars_answer is {max_chars_answer}; use at least {2 * _MARKER_ROOM}")
    counts: Counter = Counter()
    couples = _couples(_candidates(runs, counts))
    random.Random(seed).shuffle(couples)
    pairs: list[dict] = []
    uses: Counter = Counter()
    for first, second, file in couples:
        counts["couples"] += 1
        reason = _why_not(first, second, uses, max_couples_per_run)
        if reason is None:
            built, reason = _build(first, second, file, max_chars_per_context, max_chars_answer)
        if reason is not None:
            counts[f"couple dropped: {reason}"] += 1
            continue
        counts["couples: kept"] += 1
        uses.update((id(first), id(second)))
        for direction, pair in enumerate(built):
            ordered = (first, second) if direction == 0 else (second, first)
            names = [candidate.run.instance_id for candidate in ordered]
            pairs.append(
                {
                    "pair_id": f"trajectory-{len(pairs) // 2:05d}-{direction}-{names[0]}",
                    "domain": "trajectory",
                    **pair,
                    "provenance": {
                        "rule": "data_prep.trajectories.simple_pairs",
                        "seed": seed,
                        "file": file,
                        "supporting_run": names[0],
                        "confounding_run": names[1],
                    },
                    "split": split,
                }
            )
    return pairs, counts


def _candidates(runs: Iterable[AgentRun], counts: Counter) -> list[_Candidate]:
    found = []
    for run in runs:
        counts["runs"] += 1
        candidate = _candidate(run)
        if isinstance(candidate, str):
            counts[f"run dropped: {candidate}"] += 1
        else:
            counts["runs: usable"] += 1
            found.append(candidate)
    return sorted(found, key=lambda item: (item.run.instance_id, item.run.patch))


def _candidate(run: AgentRun) -> _Candidate | str:
    """The run ready for pairing, or why it cannot be paired."""
    if not run.patch.strip():
        return "no patch"
    try:
        patch = PatchSet(run.patch)
    except UnidiffParseError:
        return "patch cannot be parsed"
    files = frozenset(part.path for part in patch if not part.is_added_file and not is_test_file(part.path))
    if not files:
        return "no existing file edited besides tests"
    turns = _turns(run.messages)
    if not turns:
        return "no turn between the issue and the submission"
    lines = (line.value.strip() for part in patch for hunk in part for line in hunk if line.is_added)
    return _Candidate(run, files, frozenset(line for line in lines if len(line) >= MIN_MASKED_CHARS), turns)


def is_test_file(path: str) -> bool:
    """Whether a path is a test by its name or folder (`django/test/` is a library, so only a top-level `test/` is)."""
    pure = PurePosixPath(path)
    return (
        "tests" in pure.parts[:-1]
        or pure.parts[0] == "test"
        or pure.name.startswith("test_")
        or pure.stem.endswith("_test")
        or pure.name in ("tests.py", "conftest.py")
    )


def _turns(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The turns after the issue and before the submission, without the system prompt."""
    start = next((index + 1 for index, message in enumerate(messages) if message.role == "user"), len(messages))
    end = next(
        (
            index
            for index, message in enumerate(messages)
            if index >= start and message.role == "assistant" and SUBMIT_MARKER in message.content
        ),
        len(messages),
    )
    return tuple(message for message in messages[start:end] if message.role != "system")


def _couples(candidates: list[_Candidate]) -> list[tuple[_Candidate, _Candidate, str]]:
    """Every two runs of one repository with an edited file in common, once, with the first such file by name."""
    by_file: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, candidate in enumerate(candidates):
        for file in candidate.files:
            by_file[candidate.run.repository, file].append(index)
    shared: dict[tuple[int, int], str] = {}
    for (_, file), members in sorted(by_file.items()):
        for couple in itertools.combinations(members, 2):
            shared.setdefault(couple, file)
    return [(candidates[one], candidates[two], file) for (one, two), file in sorted(shared.items())]


def _why_not(first: _Candidate, second: _Candidate, uses: Counter, most: int) -> str | None:
    if first.run.instance_id == second.run.instance_id:
        return "same issue"
    if first.run.patch.strip() == second.run.patch.strip():
        return "same patch"
    if max(uses[id(first)], uses[id(second)]) >= most:
        return "a run is in enough couples"
    return None


def _build(
    first: _Candidate, second: _Candidate, file: str, context_chars: int, answer_chars: int
) -> tuple[list[dict], str | None]:
    """The couple's two pairs, or why there are none."""
    hidden = sorted(first.added | second.added, key=lambda line: (-len(line), line))
    contexts = []
    for candidate in (first, second):
        masked = _masked(candidate.turns, hidden, (first.run, second.run))
        context = shorten(masked, file, context_chars)
        if not context:
            return [], "a run never names the file outside what is hidden"
        contexts.append({"kind": "messages", "messages": context})
    answers = [cut(candidate.run.patch, answer_chars) for candidate in (first, second)]
    if answers[0] == answers[1] or contexts[0] == contexts[1]:
        return [], "the two look the same once shortened"
    query = QUERY.format(file=file)
    return [
        {
            "query": query,
            "answer": answers[direction],
            "supporting": contexts[direction],
            "confounders": [contexts[1 - direction]],
        }
        for direction in (0, 1)
    ], None


def _masked(turns: tuple[Message, ...], hidden: list[str], runs: tuple[AgentRun, ...]) -> list[Message]:
    titles = [title for run in runs if len(title := run.issue.split("\n", 1)[0].strip()) >= MIN_MASKED_CHARS]
    masked = []
    for turn in turns:
        text = turn.content
        for line in hidden:
            text = text.replace(line, PATCH_MASK)
        for title in titles:
            text = text.replace(title, ISSUE_MASK)
        masked.append(Message(role=turn.role, content=text))
    return masked


def elision(count: int) -> str:
    """The mark that stands where text was left out."""
    return f"[... {count:,} characters left out ...]"


def cut(text: str, room: int) -> str:
    """The text in at most `room` characters: its first two thirds and its end, with a mark for what is gone between."""
    if len(text) <= room:
        return text
    shown = room - len(elision(len(text))) - 2
    if shown <= 0:
        raise ValueError(f"no room for a mark in {room} characters; use at least {_MARKER_ROOM}")
    head = shown * 2 // 3
    tail = shown - head
    return f"{text[:head]}\n{elision(len(text) - shown)}\n{text[len(text) - tail :]}"


def shorten(turns: list[Message], file: str, room: int) -> list[dict]:
    """The run in at most `room` characters: turns that name the file, the agent's own first; marks for the rest.

    Empty when the run is too long and no turn names the file.
    """
    if sum(len(turn.content) for turn in turns) <= room and any(file in turn.content for turn in turns):
        return [{"role": turn.role, "content": turn.content} for turn in turns]
    naming = [index for index, turn in enumerate(turns) if file in turn.content]
    naming.sort(key=lambda index: (turns[index].role != "assistant", index))
    most, left = max(room // 3, _LEAST_OF_A_TURN + _MARKER_ROOM), room - _MARKER_ROOM
    kept: dict[int, str] = {}
    for index in naming:
        share = min(most, left - _MARKER_ROOM)
        if share < _LEAST_OF_A_TURN + _MARKER_ROOM:
            break
        kept[index] = cut(turns[index].content, share)
        left -= len(kept[index]) + _MARKER_ROOM
    return _with_marks(turns, kept)


def _with_marks(turns: list[Message], kept: dict[int, str]) -> list[dict]:
    """The kept turns in order; a run of turns left out becomes a mark in front of the next one, or after the last."""
    shown: list[dict] = []
    gone = 0
    for index, turn in enumerate(turns):
        if index not in kept:
            gone += len(turn.content)
            continue
        mark = f"{elision(gone)}\n" if gone else ""
        shown.append({"role": turn.role, "content": mark + kept[index]})
        gone = 0
    if gone and shown:
        shown[-1]["content"] += f"\n{elision(gone)}"
    return shown
