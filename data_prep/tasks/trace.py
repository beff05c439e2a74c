"""A run as numbered steps, and as a text that fits a budget without losing given lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from data_prep.trajectories.actions import actions_of
from data_prep.trajectories.run import AgentRun

# Characters of a step's command, of its output, and of the thought before it; ever less until the text fits.
_SIZES = ((4000, 6000, 1500), (2000, 2500, 700), (1000, 1000, 300), (500, 400, 0), (240, 160, 0), (120, 80, 0))


@dataclass(frozen=True)
class Step:
    """One command with what came back.

    Attributes:
        number: from 1.
        thought: what the agent said before the command.
        command: as sent to the shell.
        code: its exit code.
        output: its output; without the middle where ``cut``.
        cut: whether the harness left out a part of the output.
    """

    number: int
    thought: str
    command: str
    code: int
    output: str
    cut: bool

    @property
    def lines(self) -> list[str]:
        return self.output.split("\n")

    @property
    def line(self) -> str:
        """The command's first line."""
        return self.command.strip().split("\n")[0].strip()


def steps_of(run: AgentRun) -> list[Step]:
    """The commands that were carried out, one a turn, with their exit codes; the submission is not a step."""
    steps: list[Step] = []
    for action in actions_of(run):
        if action.name != "bash" or action.output is None or action.output.code is None:
            continue
        if "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT" in action.script:
            continue
        said = run.messages[action.turn].content
        thought = said.partition("```")[0].removeprefix("THOUGHT:").strip()
        output = action.output.head + (f"\n[...]\n{action.output.tail}" if action.output.cut else "")
        steps.append(
            Step(len(steps) + 1, thought, action.script, action.output.code, output.strip("\n"), action.output.cut)
        )
    return steps


def render(
    steps: list[Step], issue: str, evidence: dict[int, tuple[str, ...]], fits: Callable[[str], bool]
) -> str | None:
    """The steps as text, with long parts elided as far as needed; None when even the shortest form does not fit.

    Args:
        evidence: lines of a step's output or command that must stay, by the step's number.
        fits: whether a text is within the budget.
    """
    for command, output, thought in _SIZES:
        parts = [f"Issue:\n{elided(issue, output, ())}"] if issue else []
        for step in steps:
            kept = evidence.get(step.number, ())
            said = f"{elided(step.thought, thought, ())}\n" if thought and step.thought else ""
            shown = elided(step.output, output, kept)
            parts.append(
                f"=== step {step.number} ===\n{said}$ {elided(step.command.strip(), command, kept)}\n"
                f"(exit code {step.code})\n{shown}".rstrip("\n")
            )
        text = "\n\n".join(parts)
        if fits(text):
            return text
    return None


def elided(text: str, limit: int, keep: Iterable[str]) -> str:
    """``text`` with the lines of its middle left out if it is longer than ``limit``; lines in ``keep`` stay."""
    if len(text) <= limit:
        return text
    lines = text.split("\n")
    wanted = set(keep)
    head = _fitting(lines, limit // 2)
    tail = _fitting(lines[head:][::-1], limit // 2)
    shown: list[str] = []
    missing = 0
    for index, line in enumerate(lines):
        if index < max(head, 1) or index >= len(lines) - tail or line in wanted:
            if missing:
                shown.append(f"[... {missing} lines left out ...]")
                missing = 0
            # A single line may be longer than the whole limit.
            long = len(line) > max(limit, 80) and line not in wanted
            shown.append(f"{line[: max(limit, 80)]} [...]" if long else line)
        else:
            missing += 1
    if missing:
        shown.append(f"[... {missing} lines left out ...]")
    return "\n".join(shown)


def _fitting(lines: list[str], limit: int) -> int:
    count = used = 0
    for line in lines:
        used += len(line) + 1
        if used > limit:
            break
        count += 1
    return count
