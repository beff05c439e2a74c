"""Progress that is a bar on a terminal, and a plain log where standard output goes to a file."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

# Steps; where there are few, each is told.
EVERY, FEW = 10, 20


class StageProgress(Progress):
    """Bars with a note after ``more`` columns; without a terminal lines for stages, notes and every tenth step."""

    def __init__(self, console: Console, *more: ProgressColumn) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), *more)
        columns += (TextColumn("{task.fields[note]}"), TimeElapsedColumn())
        super().__init__(*columns, console=console, disable=not console.is_terminal)
        self._told: dict[TaskID, Any] = {}

    def add_task(self, description: str, *arguments: Any, note: str = "", **keywords: Any) -> TaskID:
        """As rich's, with ``note`` as a field."""
        task = super().add_task(description, *arguments, note=note, **keywords)
        self._tell(task)
        return task

    def update(self, task_id: TaskID, **keywords: Any) -> None:
        """As rich's."""
        super().update(task_id, **keywords)
        self._tell(task_id)

    def _tell(self, number: TaskID) -> None:
        if self.console.is_terminal:
            return
        task = self._tasks[number]
        done, total, note = int(task.completed), task.total, task.fields["note"]
        # Steps are told by their number, all else by its note.
        every, state = (EVERY if (total or 0) > FEW else 1), done or note
        if state != self._told.get(number) and (done % every == 0 or done == total):
            self._told[number] = state
            step = f" {done}/{total:g}" if done and total is not None else ""
            line = f"{task.elapsed or 0:6.0f} s  {task.description}{step}{'  ' if note else ''}{note}"
            self.console.file.write(line.rstrip() + "\n")
            self.console.file.flush()
