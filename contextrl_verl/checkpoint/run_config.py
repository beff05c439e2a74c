"""What a run's resolved configuration says about the model: arm, base, hyper-parameters, data with digests."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from contextrl_verl.arms import ARMS
from contextrl_verl.errors import ConfigError

# Shown in the card where the configuration has them.
SHOWN = (
    "contextrl.objective",
    "contextrl.loss.coef",
    "contextrl.loss.clip",
    "contextrl.loss.clip_mode",
    "contextrl.pairs.per_batch",
    "contextrl.seed",
    "algorithm.adv_estimator",
    "data.train_batch_size",
    "data.max_prompt_length",
    "data.max_response_length",
    "actor_rollout_ref.actor.optim.lr",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.loss_agg_mode",
    "actor_rollout_ref.actor.use_kl_loss",
    "actor_rollout_ref.actor.kl_loss_coef",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.temperature",
    "trainer.nnodes",
    "trainer.n_gpus_per_node",
)
DATA = ("data.train_files", "data.val_files", "contextrl.pairs.train_files", "contextrl.pairs.val_files")


def read_config(path: Path) -> Any:
    """The yaml of ``--cfg job --resolve``, of recipes/slurm, or Hydra's own ``.hydra/config.yaml``.

    Raises:
        ConfigError: no such file, or no configuration of verl's trainer.
    """
    from omegaconf import OmegaConf

    try:
        config = OmegaConf.load(path)
    except OSError:
        raise ConfigError(f"--config {path}: there is no such file. Fix: name the job's resolved yaml.") from None
    except Exception as error:
        raise ConfigError(
            f"--config {path} is no yaml: {' '.join(str(error).split())[:200]}. Fix: name another."
        ) from None
    if not OmegaConf.is_dict(config) or "trainer" not in config or "actor_rollout_ref" not in config:
        raise ConfigError(f"--config {path} is no configuration of verl's trainer. Fix: name the job's resolved yaml.")
    return config


def select(config: Any, key: str) -> Any:
    """A value, or None where the key is absent or an interpolation leads nowhere."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return None


def arm_of(config: Any) -> str:
    """The arm as the recipes name it, as far as the configuration tells: da_sft's second stage is grpo."""
    if select(config, "contextrl") is None or not select(config, "contextrl.pairs.per_batch"):
        return "grpo"
    objective = str(select(config, "contextrl.objective"))
    return next((arm for arm, used in ARMS.items() if used == objective and used != "none"), "grpo")


def hub_name(model: str) -> str:
    """``owner/name`` if the text is a name on the hub, else an empty string: a folder of this machine is nobody's."""
    return model if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not Path(model).exists() else ""


def data_files(config: Any) -> list[dict[str, Any]]:
    """Key, name, bytes and SHA-256 of every data file; a file that is gone has neither bytes nor digest."""
    rows = []
    for key in DATA:
        value = select(config, key)
        for name in [value] if isinstance(value, str) else list(value or []):
            path = Path(str(name))
            row = {"key": key, "name": path.name, "bytes": None, "sha256": None}
            if path.is_file():
                with path.open("rb") as stream:
                    digest = hashlib.sha256()
                    while block := stream.read(1 << 20):
                        digest.update(block)
                row |= {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
            rows.append(row)
    return rows
