"""What a run left: folders of checkpoints, ``global_step_N/actor``, and the metrics of verl's ``file`` logger, a line
each, ``{"step": 3, "data": {"val-core/...": 0.5}}``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from contextrl_verl.errors import ConfigError

History = dict[int, dict[str, float]]
_STEP = re.compile(r"global_step_(\d+)")


class Checkpoints(NamedTuple):
    """What a path names: the run's folder, its steps, and the one step if the path names one."""

    root: Path
    steps: dict[int, Path]
    named: int | None = None

    @property
    def latest(self) -> int:
        """The step that verl would resume from; without verl's note, the last one."""
        tracker = self.root / "latest_checkpointed_iteration.txt"
        noted = tracker.read_text().strip() if tracker.is_file() else ""
        return int(noted) if noted.isdigit() and int(noted) in self.steps else max(self.steps)


def find_checkpoints(path: Path) -> Checkpoints:
    """Read a folder of checkpoints, one of its ``global_step_N``, or that one's ``actor``.

    Raises:
        ConfigError: there is no complete checkpoint of an actor.
    """
    folder = path.resolve()
    folder = folder.parent if folder.name == "actor" else folder
    match = _STEP.fullmatch(folder.name)
    root, named = (folder.parent, int(match[1])) if match else (folder, None)
    configs = sorted(root.glob("global_step_*/actor/fsdp_config.json"))
    complete = [config.parents[1] for config in configs if (config.parent / "huggingface").is_dir()]
    # A link may lead anywhere; pruning must stay inside of root.
    steps = {
        int(found[1]): step for step in complete if (found := _STEP.fullmatch(step.name)) and not step.is_symlink()
    }
    if not steps or (named is not None and named not in steps):
        raise ConfigError(
            f"{path} holds no checkpoint of verl's FSDP actor (global_step_N/actor/fsdp_config.json). "
            "Fix: name the folder of trainer.default_local_dir, or one global_step_N in it."
        )
    return Checkpoints(root, steps, named)


def megabytes(folder: Path) -> float:
    """Size of all files below."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink()) / 1e6


def find_logs(root: Path) -> list[Path]:
    """The logs next to a run's folder of checkpoints, in the order they were written (``metrics.2`` before ``.10``)."""
    found = {file for folder in (root.parent, root) for file in folder.glob("metrics*.jsonl")}
    return sorted(found, key=lambda file: [int(number) for number in re.findall(r"\d+", file.name)])


def read_metrics(files: Iterable[Path]) -> History:
    """Numbers by step and name. A step that a resumed run did again has the later file's numbers.

    Raises:
        ConfigError: a line is not the logger's. A last line without its end is left out: the run was stopped while it
            wrote.
    """
    history: History = {}
    for file in files:
        for number, line in enumerate(file.read_text().splitlines(keepends=True), start=1):
            try:
                record = json.loads(line)
                values = {key: float(value) for key, value in record["data"].items() if isinstance(value, int | float)}
                history.setdefault(int(record["step"]), {}).update(values)
            except (ValueError, KeyError, TypeError, AttributeError):
                if line.endswith("\n"):
                    raise ConfigError(
                        f'{file}: line {number} is not {{"step": ..., "data": {{...}}}}. Fix: name a jsonl of verl\'s '
                        "file logger (trainer.logger=[console,file])."
                    ) from None
    return history


def values_at(history: History, steps: Collection[int], metric: str) -> dict[int, float]:
    """Finite values of a metric at some steps; raises ConfigError if there are none."""
    logged = {step: values[metric] for step, values in sorted(history.items()) if metric in values}
    found = {step: value for step, value in logged.items() if step in steps and math.isfinite(value)}
    if found:
        return found
    if logged:
        raise ConfigError(
            f"--best {metric}: it was logged at steps {list(logged)}, and the checkpoints are of steps "
            f"{sorted(steps)}. Fix: trainer.test_freq = trainer.save_freq in the next run; for this one name a "
            "global_step_N."
        )
    near = get_close_matches(metric, {name for values in history.values() for name in values}, n=3, cutoff=0.4)
    raise ConfigError(
        f"--best {metric}: the run's log has no such metric; near it: {', '.join(near) or 'none'}. "
        "Fix: one of the log's names, or --metrics FILE if the log lies elsewhere."
    )
