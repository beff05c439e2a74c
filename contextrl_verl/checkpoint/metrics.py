"""What verl's ``file`` logger wrote: one line a step, ``{"step": 3, "data": {"val-core/...": 0.5}}``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from contextrl_verl.errors import ConfigError

History = dict[int, dict[str, float]]


def find_logs(root: Path) -> list[Path]:
    """The logs next to a run's folder of checkpoints, in the order they were written (``metrics.2`` before ``.10``)."""
    found = [file for folder in (root.parent, root) for file in folder.glob("metrics*.jsonl")]
    return sorted(set(found), key=lambda file: [int(n) for n in re.findall(r"\d+", file.name)])


def read_metrics(files: Iterable[Path]) -> History:
    """Numbers by step and name. A step that a resumed run did again has the later file's numbers.

    Raises:
        ConfigError: a file is missing or a line is not the logger's. A last line without its end is left out: the
            run was stopped while it wrote.
    """
    history: History = {}
    for file in files:
        if not file.is_file():
            raise ConfigError(f"--metrics {file}: there is no such file. Fix: name the jsonl of verl's file logger.")
        for number, line in enumerate(file.read_text().splitlines(keepends=True), start=1):
            try:
                record = json.loads(line)
                step, data = int(record["step"]), record["data"].items()
            except (ValueError, KeyError, TypeError, AttributeError):
                if not line.endswith("\n"):
                    continue
                raise ConfigError(
                    f'{file}: line {number} is not {{"step": ..., "data": {{...}}}}. Fix: name the jsonl of verl\'s '
                    "file logger (trainer.logger=[console,file])."
                ) from None
            values = {key: float(value) for key, value in data if isinstance(value, (int, float))}
            history[step] = {**history.get(step, {}), **values}
    return history


def best_step(history: History, steps: Collection[int], metric: str, mode: Literal["max", "min"]) -> int:
    """The checkpointed step with the best finite value; the earlier one of equals.

    Raises:
        ConfigError: the metric is unknown, or no checkpoint has a finite value of it.
    """
    known = sorted({name for values in history.values() for name in values})
    if metric not in known:
        near = get_close_matches(metric, known, n=3, cutoff=0.4) or [name for name in known if name.startswith("val-")]
        raise ConfigError(
            f"--best {metric}: the run's log has no such metric"
            + (f"; near it: {', '.join(near)}" if near else "")
            + ". Fix: one of the log's names, or --metrics FILE if the log lies elsewhere."
        )
    values = values_at(history, steps, metric)
    if not values:
        logged = [step for step in sorted(history) if metric in history[step]]
        raise ConfigError(
            f"--best {metric}: it was logged at steps {logged}, and the checkpoints are of steps {sorted(steps)}. "
            "Fix: trainer.test_freq = trainer.save_freq in the next run; for this one name a global_step_N."
        )
    sign = 1 if mode == "min" else -1
    return min(values, key=lambda step: (sign * values[step], step))


def values_at(history: History, steps: Collection[int], metric: str) -> dict[int, float]:
    """Finite values of a metric at some steps."""
    found = {step: history.get(step, {}).get(metric, math.nan) for step in sorted(steps)}
    return {step: value for step, value in found.items() if math.isfinite(value)}
