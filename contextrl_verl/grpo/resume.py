"""What a job would resume from, looked at before Ray starts."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from typing import Any

from contextrl_verl.errors import ConfigError
from contextrl_verl.grpo.batch_plan import BatchPlan
from contextrl_verl.settings import RunView, Settings

STATE = "contextrl_plan"
_ANEW = "trainer.resume_mode=disable, or another trainer.default_local_dir, to start anew"


def check_resume(settings: Settings, plan: BatchPlan) -> None:
    """Raises ConfigError if verl would resume from a checkpoint that this job cannot go on from.

    That is one whose data loader knows nothing of our plan (written without this package: verl would go on at a
    position that means other rows), or one at or behind the plan's last step (the job would end without training).
    """
    folder, key = _folder(settings.run)
    if folder is None:
        return
    step = int(folder.rstrip("/").split("global_step_")[-1])
    if step >= plan.steps:
        raise ConfigError(
            f"{key} leads to {folder}, at step {step}, and this job ends after {plan.steps} steps: nothing would be "
            f"trained. Fix: more contextrl.epochs or trainer.total_training_steps, or {_ANEW}."
        )
    data = os.path.join(folder, "data.pt")
    if not os.path.exists(data):
        return
    state = _load(data)
    if state is not None and not any(STATE in found for found in _mappings(state)):
        raise ConfigError(
            f"{key} leads to {folder}, which a job without contextrl wrote: its data loader's position would mean "
            "other rows here, and steps would be skipped. Fix: to train on from its weights, contextrl export them or "
            f"merge them with verl's model merger and name the result as actor_rollout_ref.model.path; {_ANEW}."
        )


def _folder(run: RunView) -> tuple[str | None, str]:
    """The checkpoint that verl would load, and the key that leads there."""
    from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

    if run.resume_mode == "resume_path":
        folder = run.resume_from_path
        if not folder or "global_step_" not in folder or not os.path.isdir(folder):
            raise ConfigError(
                f"trainer.resume_mode is 'resume_path' and trainer.resume_from_path is {folder!r}, which is no folder "
                "of a checkpoint. Fix: a folder global_step_N, or trainer.resume_mode=auto."
            )
        return folder, "trainer.resume_from_path"
    if run.resume_mode == "auto" and run.default_local_dir:
        with contextlib.redirect_stdout(io.StringIO()):  # verl will say it again
            return find_latest_ckpt_path(os.path.abspath(run.default_local_dir)), "trainer.default_local_dir"
    return None, ""


def _load(path: str) -> Any:
    """The loader's state; None if it holds more than plain values, which are not unpickled here."""
    import pickle

    import torch

    try:
        return torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError):
        return None


def _mappings(value: Any) -> Iterator[Mapping]:
    if isinstance(value, Mapping):
        yield value
        for inner in value.values():
            yield from _mappings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _mappings(inner)
