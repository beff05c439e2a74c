"""A model's name for fingerprints: a folder may hold another model tomorrow."""

from __future__ import annotations

import os
from pathlib import Path

from data_prep.common.pipeline import describe_inputs, fingerprint


def model_name(kind: str, model: str) -> str:
    """``kind:model``; for a folder with a digest of its files' names, sizes and times of change."""
    folder = Path(model)
    if not folder.is_dir():
        return f"{kind}:{model}"
    files = sorted(Path(at) / name for at, _, names in os.walk(folder) for name in names)
    return f"{kind}:{model}@{fingerprint(describe_inputs(files))}"
