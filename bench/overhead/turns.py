"""Two jobs of verl's trainer that take turns step by step, so that both meet the same machine.

verl's trainer has no place for that, but it validates between steps and outside their timer, and reading the one
validation row can wait. The turns go 0 1 1 0 0 1 1 0 ..., so that neither job is always the first of two.
This file is a job's ``data.custom_cls.path``; nothing of a step in training changes.
"""

from __future__ import annotations

import time
from pathlib import Path

from contextrl_verl.grpo.dataset import MixedTaskDataset

ORDER = (0, 1, 1, 0)


class Turns:
    """The side of job 0 or 1. Every finished step is a file in the shared ``folder``; ``stop`` there ends both."""

    def __init__(self, folder: str | Path, job: int, steps: int) -> None:
        self.folder, self.job, self.steps, self._made = Path(folder), int(job), int(steps), -1

    def next(self) -> None:
        """Says that this job's step is made (the first time: that it is ready), and waits for its next turn."""
        self._made += 1
        (self.folder / f"{self.job}-{self._made}").touch()
        while not self._may_go():
            if (self.folder / "stop").exists():
                raise RuntimeError("the other job stopped; its log says why")
            time.sleep(0.02)

    def _may_go(self) -> bool:
        # Both must be ready; after its last step a job waits too, and does not disturb the other's with its ending.
        made = [len(list(self.folder.glob(f"{job}-*"))) - 1 for job in (0, 1)]
        mine = self._made < self.steps and ORDER[sum(made) % 4] == self.job
        return min(made) >= 0 and (sum(made) >= 2 * self.steps or mine)


class TurnTakingDataset(MixedTaskDataset):
    """``MixedTaskDataset`` whose validation row is read when it is this job's turn (keys ``data.turns.*``)."""

    def __init__(self, data_files, tokenizer, config, *more, **keywords) -> None:
        super().__init__(data_files, tokenizer, config, *more, **keywords)
        self._turns = None if self.is_train else Turns(**config.turns)

    def __getitem__(self, item: int):
        if self._turns is not None:
            self._turns.next()
        return super().__getitem__(item)
