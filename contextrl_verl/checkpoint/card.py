"""The model card: a Jinja template, and what a run's resolved configuration says. No path of this machine gets in."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contextrl_verl.arms import ARMS, MEANING
from contextrl_verl.errors import ConfigError

# Its presence says that a folder was made here and may be replaced.
MANIFEST = "contextrl_export.json"
# Shown in the card where the configuration has them.
_SHOWN = (
    *("contextrl.objective", "contextrl.loss.coef", "contextrl.loss.clip", "contextrl.loss.clip_mode"),
    *("contextrl.pairs.per_batch", "contextrl.seed", "algorithm.adv_estimator"),
    *("data.train_batch_size", "data.max_prompt_length", "data.max_response_length"),
    *("actor_rollout_ref.actor.optim.lr", "actor_rollout_ref.actor.ppo_mini_batch_size"),
    *("actor_rollout_ref.actor.loss_agg_mode", "actor_rollout_ref.actor.use_kl_loss"),
    *("actor_rollout_ref.actor.kl_loss_coef", "actor_rollout_ref.rollout.n", "actor_rollout_ref.rollout.temperature"),
    *("trainer.nnodes", "trainer.n_gpus_per_node"),
)
_DATA = ("data.train_files", "data.val_files", "contextrl.pairs.train_files", "contextrl.pairs.val_files")


def read_config(path: Path) -> Any:
    """The yaml of ``--cfg job --resolve``, of recipes/slurm, or Hydra's own ``.hydra/config.yaml``.

    Raises:
        ConfigError: no configuration of verl's trainer.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        config = OmegaConf.load(path)
    except (OmegaConfBaseException, YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {str(error)[:200]}. Fix: name the job's resolved yaml.") from None
    if not {"trainer", "actor_rollout_ref"} <= set(config):
        raise ConfigError(
            f"{path} is no configuration of verl's trainer: it has {sorted(map(str, config))}. Fix: name the job's "
            "resolved yaml; a RECIPE of recipes/slurm must hand all arguments to one python -m verl.trainer.main_ppo."
        )
    return config


def _select(config: Any, key: str) -> Any:
    """A value, or None where the key is absent or an interpolation leads nowhere."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return None if config is None else OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return None


def _arm_of(config: Any) -> str:
    """The arm as the recipes name it, as far as the configuration tells: da_sft's second stage is grpo."""
    objective = _select(config, "contextrl.objective") if _select(config, "contextrl.pairs.per_batch") else "none"
    return next((arm for arm, used in ARMS.items() if used == objective != "none"), "grpo")


def data_files(config: Any) -> list[dict[str, Any]]:
    """Key, name, bytes and SHA-256 of every data file; a file that is gone has neither bytes nor digest."""
    rows = []
    for key in _DATA:
        value = _select(config, key)
        for path in map(Path, [value] if isinstance(value, str) else map(str, value or ())):
            row = {"key": key, "name": path.name, "bytes": None, "sha256": None}
            if path.is_file():
                digest = hashlib.sha256()
                with path.open("rb") as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
                row |= {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
            rows.append(row)
    return rows


def write_card(
    folder: Path, *, step: int, config: Any | None, metrics: Mapping[str, float], arm: str, base: str, licence: str,
    best: str,
) -> None:  # fmt: skip
    """Write README.md of an exported model to its folder, and what it says to the manifest.

    Args:
        metrics: what the log has of this step.
        arm, base: of the run and its model; empty takes what the configuration tells.
        best: how the step was chosen.
    """
    import jinja2

    base = base or str(_select(config, "actor_rollout_ref.model.path") or "")
    arm = arm or ("" if config is None else _arm_of(config))
    # A name on the hub; a folder of this machine is nobody's.
    hub = base if re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not Path(base).exists() else ""
    # The validation's first.
    shown = [*sorted(name for name in metrics if name.startswith("val-"))]
    shown += sorted(name for name in metrics if name.startswith("actor/contextrl/"))
    packages = ("contextrl-verl", "verl", "transformers", "torch")
    facts = {
        "step": step,
        "total_steps": _select(config, "trainer.total_training_steps"),
        "arm": arm,
        "arm_text": MEANING.get(arm, ""),
        "base_model": hub or Path(base).name,
        "hub_base": hub,
        "model_type": json.loads((folder / "config.json").read_text()).get("model_type", "unknown"),
        "licence": licence,
        "best": best,
        "config": {key: value for key in _SHOWN if (value := _select(config, key)) is not None},
        "data": data_files(config),
        "metrics": {name: metrics[name] for name in shown},
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("contextrl_verl.checkpoint", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # A bar would end a table's cell.
    environment.filters["cell"] = lambda value: str(value).replace("|", "\\|")
    card = environment.get_template("card.md.jinja").render(**facts, adapter=(folder / "lora_adapter").is_dir())
    (folder / "README.md").write_text(card)
    (folder / MANIFEST).write_text(json.dumps(facts, indent=2, default=str) + "\n")
