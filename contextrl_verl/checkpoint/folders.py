"""verl's folders of checkpoints: ``<run>/global_step_N/actor`` and ``<run>/latest_checkpointed_iteration.txt``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from contextrl_verl.errors import ConfigError

_STEP = re.compile(r"global_step_(\d+)")
TRACKER = "latest_checkpointed_iteration.txt"


@dataclass(frozen=True)
class Checkpoints:
    """What a path names: the run's folder, its steps, and the one step if the path names one."""

    root: Path
    steps: dict[int, Path]
    named: int | None = None

    @property
    def latest(self) -> int:
        """The step that verl would resume from; without verl's note, the last one."""
        tracker = self.root / TRACKER
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
        if (found := _STEP.fullmatch(child.name)) and child.is_dir() and not child.is_symlink() and actor(child)
    }
    named = int(match[1]) if match else None
    if not steps or (named is not None and named not in steps):
        raise ConfigError(
            f"{path} holds no checkpoint of verl's FSDP actor (global_step_N/actor/fsdp_config.json). "
            "Fix: name the folder of trainer.default_local_dir, or one global_step_N in it."
        )
    return Checkpoints(root, steps, named)


def actor(step: Path) -> Path | None:
    """The actor's folder of a step, if it is complete enough to be read."""
    folder = step / "actor"
    return folder if (folder / "fsdp_config.json").is_file() and (folder / "huggingface").is_dir() else None


def size(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
