"""The model card: a Jinja template and the facts that fill it. No path of this machine gets into it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contextrl_verl import __version__
from contextrl_verl.checkpoint.run_config import SHOWN, arm_of, data_files, hub_name, select

ARMS = {
    "contextrl": "GRPO + context awareness: lambda times the contrastive selection loss next to GRPO, in one step",
    "grpo": "GRPO alone",
    "da_rl": "GRPO with the pairs as ordinary tasks, rewarded 1 for the right selection and 0 otherwise",
    "da_sft": "SFT on the selections, then GRPO",
    "da_qca": "GRPO with the pairs as ordinary question-context-answer examples",
}


def card_facts(
    *,
    step: int,
    config: Any | None,
    metrics: Mapping[str, float],
    model_type: str,
    arm: str = "",
    base_model: str = "",
    licence: str = "",
    best: str = "",
) -> dict[str, Any]:
    """Everything the template and the manifest say.

    Args:
        step: of the checkpoint.
        config: resolved configuration, or None where it is not known.
        metrics: what the log has of this step.
        model_type: of the Hugging Face configuration.
        arm: overrides what the configuration tells.
        base_model: overrides the configuration's model path.
        licence: Hugging Face's id of the licence; empty leaves it open.
        best: one sentence on how the step was chosen.
    """
    base = base_model or str(select(config, "actor_rollout_ref.model.path") or "") if config else base_model
    arm = arm or (arm_of(config) if config else "")
    shown = {key: value for key in SHOWN if (value := select(config, key)) is not None} if config else {}
    return {
        "step": step,
        "total_steps": select(config, "trainer.total_training_steps") if config else None,
        "arm": arm,
        "arm_text": ARMS.get(arm, ""),
        "base_model": Path(base).name if base and not hub_name(base) else base,
        "hub_base": hub_name(base),
        "model_type": model_type,
        "licence": licence,
        "best": best,
        "config": shown,
        "data": data_files(config) if config else [],
        "validation": {key: value for key, value in sorted(metrics.items()) if key.startswith("val-")},
        "training": {key: value for key, value in sorted(metrics.items()) if key.startswith("actor/contextrl/")},
        "versions": {name: _version(name) for name in ("contextrl-verl", "verl", "transformers", "torch")},
    }


def render_card(facts: Mapping[str, Any], folder: Path) -> str:
    """README.md of the exported ``folder``."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("contextrl_verl.checkpoint", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # A bar would end a table's cell.
    environment.filters["cell"] = lambda value: str(value).replace("|", "\\|")
    return environment.get_template("card.md.jinja").render(**facts, adapter=(folder / "lora_adapter").is_dir())


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return __version__ if name == "contextrl-verl" else "not installed"
