"""A run as numbered steps, and as a text that fits a budget without losing given lines."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, groupby

from data_prep.trajectories.actions import actions_of
from data_prep.trajectories.run import AgentRun

# Characters of a step's command, of its output, and of the thought before it; ever less until the text fits.
_SIZES = ((4000, 6000, 1500), (2000, 2500, 700), (1000, 1000, 300), (500, 400, 0), (240, 160, 0), (120, 80, 0))


@dataclass(frozen=True)
class Step:
    """One command with its exit code and output, and the thought before it; numbers are from 1.

    ``cut`` says whether the harness left out the middle of the output.
    """

    number: int
    thought: str
    command: str
    code: int
    output: str
    cut: bool

    @property
    def lines(self) -> list[str]:
        """Of the output."""
        return self.output.split("\n")

    @property
    def line(self) -> str:
        """The command's first line; ``several`` says whether there are more."""
        return self.command.strip().split("\n")[0].strip()

    @property
    def several(self) -> bool:
        return "\n" in self.command.strip()


def steps_of(run: AgentRun) -> list[Step]:
    """The commands that were carried out, one a turn, with their exit codes; the submission is not a step."""
    steps: list[Step] = []
    for action in actions_of(run):
        found = action.output
        if action.name != "bash" or found is None or found.code is None:
            continue
        if "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT" in action.script:
            continue
        thought = run.messages[action.turn].content.partition("```")[0].removeprefix("THOUGHT:").strip()
        output = found.head + (f"\n[...]\n{found.tail}" if found.cut else "")
        steps.append(Step(len(steps) + 1, thought, action.script, found.code, output.strip("\n"), found.cut))
    return steps


def renderings(steps: list[Step], issue: str, evidence: dict[int, tuple[str, ...]]) -> Iterator[str]:
    """The steps as text, with long parts elided, ever shorter; ``evidence``, lines of a step's output or command by the
    step's number, stays.
    """
    for command, output, thought in _SIZES:
        parts = [f"Issue:\n{elided(issue, output)}"] if issue else []
        for step in steps:
            kept = evidence.get(step.number, ())
            said = f"{elided(step.thought, thought)}\n" if thought and step.thought else ""
            ran, shown = elided(step.command.strip(), command, kept), elided(step.output, output, kept)
            parts.append(f"=== step {step.number} ===\n{said}$ {ran}\n(exit code {step.code})\n{shown}".rstrip("\n"))
        yield "\n\n".join(parts)


def elided(text: str, limit: int, keep: Iterable[str] = ()) -> str:
    """``text`` with the lines of its middle left out if it is longer than ``limit``; lines in ``keep`` stay."""
    if len(text) <= limit:
        return text
    lines, wanted = text.split("\n"), set(keep)
    head = _fitting(lines, limit // 2)
    tail = len(lines) - _fitting(lines[head:][::-1], limit // 2)
    # A single line may be longer than the whole limit.
    longest = max(limit, 80)
    shown: list[str] = []
    for stays, group in groupby(
        enumerate(lines), lambda line: line[0] < max(head, 1) or line[0] >= tail or line[1] in wanted
    ):
        found = [line for _, line in group]
        if stays:
            shown += [f"{x[:longest]} [...]" if len(x) > longest and x not in wanted else x for x in found]
        else:
            shown.append(f"[... {len(found)} lines left out ...]")
    return "\n".join(shown)


def _fitting(lines: list[str], limit: int) -> int:
    """How many of the first lines have no more characters, with their ends."""
    return bisect_right(list(accumulate(len(line) + 1 for line in lines)), limit)
