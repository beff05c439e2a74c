"""What a run left: folders of checkpoints, ``global_step_N/actor``, and the metrics of verl's ``file`` logger, a line
each, ``{"step": 3, "data": {"val-core/...": 0.5}}``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from contextrl_verl.errors import ConfigError

History = dict[int, dict[str, float]]
_STEP = re.compile(r"global_step_(\d+)")
_TRACKER = "latest_checkpointed_iteration.txt"


@dataclass(frozen=True)
class Checkpoints:
    """What a path names: the run's folder, its steps, and the one step if the path names one."""

    root: Path
    steps: dict[int, Path]
    named: int | None = None

    @property
    def latest(self) -> int:
        """The step that verl would resume from; without verl's note, the last one."""
        tracker = self.root / _TRACKER
        noted = tracker.read_text().strip() if tracker.is_file() else ""
        return int(noted) if noted.isdigit() and int(noted) in self.steps else max(self.steps)


def find_checkpoints(path: Path) -> Checkpoints:
    """Read a folder of checkpoints, one of its ``global_step_N``, or that one's ``actor``.

    Raises:
        ConfigError: there is no complete checkpoint of an actor.
    """
    folder = path.resolve()
    if folder.name == "actor" and _STEP.fullmatch(folder.parent.name):
        folder = folder.parent
    match = _STEP.fullmatch(folder.name)
    root = folder.parent if match else folder
    # A link may lead anywhere; pruning must stay inside of root.
    steps = {
        int(found[1]): child
        for child in (sorted(root.iterdir()) if root.is_dir() else [])
        if (found := _STEP.fullmatch(child.name)) and child.is_dir() and not child.is_symlink() and _complete(child)
    }
    named = int(match[1]) if match else None
    if not steps or (named is not None and named not in steps):
        raise ConfigError(
            f"{path} holds no checkpoint of verl's FSDP actor (global_step_N/actor/fsdp_config.json). "
            "Fix: name the folder of trainer.default_local_dir, or one global_step_N in it."
        )
    return Checkpoints(root, steps, named)


def _complete(step: Path) -> bool:
    return (step / "actor" / "fsdp_config.json").is_file() and (step / "actor" / "huggingface").is_dir()


def megabytes(folder: Path) -> float:
    """Size of all files below."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink()) / 1e6


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


def values_at(history: History, steps: Collection[int], metric: str) -> dict[int, float]:
    """Finite values of a metric at some steps.

    Raises:
        ConfigError: the metric is unknown, or no step has a finite value of it.
    """
    known = sorted({name for values in history.values() for name in values})
    if metric not in known:
        near = get_close_matches(metric, known, n=3, cutoff=0.4) or [name for name in known if name.startswith("val-")]
        raise ConfigError(
            f"--best {metric}: the run's log has no such metric"
            + (f"; near it: {', '.join(near)}" if near else "")
            + ". Fix: one of the log's names, or --metrics FILE if the log lies elsewhere."
        )
    found = {step: history.get(step, {}).get(metric, math.nan) for step in sorted(steps)}
    values = {step: value for step, value in found.items() if math.isfinite(value)}
    if not values:
        logged = [step for step in sorted(history) if metric in history[step]]
        raise ConfigError(
            f"--best {metric}: it was logged at steps {logged}, and the checkpoints are of steps {sorted(steps)}. "
            "Fix: trainer.test_freq = trainer.save_freq in the next run; for this one name a global_step_N."
        )
    return values


def rank(values: Mapping[int, float], mode: str) -> list[int]:
    """Steps by value, the best (``mode``: max or min) first; of equals the earlier one."""
    sign = 1 if mode == "min" else -1
    return sorted(values, key=lambda step: (sign * values[step], step))
