"""verl's own model merger, unchanged, on one checkpoint of the actor; the result appears complete or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from contextrl_verl.errors import ConfigError

# Its presence says that a folder was made here and may be replaced.
MANIFEST = "contextrl_export.json"


def check_target(out: Path, root: Path, force: bool) -> None:
    """Refuse targets that would cost somebody's files.

    Raises:
        ConfigError: ``out`` has files and ``force`` is off or they are not an export's, or it lies in the checkpoints.
    """
    target, root = out.resolve(), root.resolve()
    if target == root or root in target.parents or target in root.parents:
        raise ConfigError(f"--out {out} and the checkpoints in {root} lie in each other. Fix: a folder of its own.")
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir() or not (target / MANIFEST).is_file():
        raise ConfigError(
            f"--out {out} is there and was not made by contextrl export, so it is not replaced, --force or not. "
            "Fix: name another folder."
        )
    if not force:
        raise ConfigError(f"--out {out} holds an export already. Fix: --force replaces it; or name another folder.")


def merge(actor: Path, out: Path, finish: Callable[[Path], None]) -> None:
    """Merge the FSDP shards in ``actor`` to Hugging Face format in ``out``.

    verl writes bfloat16. ``finish`` gets the folder under its temporary name and adds its own files.

    Raises:
        ConfigError: the merger failed; its last lines are in the message.
    """
    scratch = out.with_name(f".{out.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    try:
        done = subprocess.run(
            [*command, "--local_dir", str(actor), "--target_dir", str(scratch)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if done.returncode != 0:
            told = "\n".join(done.stdout.splitlines()[-8:])
            raise ConfigError(
                f"verl's model merger stopped with exit status {done.returncode} on {actor}. Its last lines:\n{told}\n"
                "Fix: what they name; a checkpoint that was cut short cannot be merged, an earlier one can."
            )
        finish(scratch)
        if out.exists():
            # check_target has allowed it.
            shutil.rmtree(out)
        scratch.replace(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def model_type(actor: Path) -> str:
    """``model_type`` of the saved Hugging Face configuration, e.g. qwen2."""
    return json.loads((actor / "huggingface" / "config.json").read_text()).get("model_type", "unknown")
