"""The model card: a Jinja template, and what a run's resolved configuration says. No path of this machine gets in."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contextrl_verl import __version__
from contextrl_verl.arms import ARMS, MEANING
from contextrl_verl.errors import ConfigError

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
        ConfigError: no such file, or no configuration of verl's trainer.
    """
    from omegaconf import OmegaConf

    try:
        config = OmegaConf.load(path)
    except OSError:
        raise ConfigError(f"--config {path}: there is no such file. Fix: name the job's resolved yaml.") from None
    except Exception as error:
        raise ConfigError(f"--config {path} is no yaml: {str(error)[:200]}. Fix: name another.") from None
    if not OmegaConf.is_dict(config) or "trainer" not in config or "actor_rollout_ref" not in config:
        raise ConfigError(f"--config {path} is no configuration of verl's trainer. Fix: name the job's resolved yaml.")
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
    objective = str(_select(config, "contextrl.objective")) if _select(config, "contextrl.pairs.per_batch") else "none"
    return next((arm for arm, used in ARMS.items() if used == objective), "grpo") if objective != "none" else "grpo"


def _hub_name(model: str) -> str:
    """``owner/name`` if the text is a name on the hub, else an empty string: a folder of this machine is nobody's."""
    return model if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not Path(model).exists() else ""


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
        arm, base_model: override what the configuration tells.
        licence: Hugging Face's id of the licence; empty leaves it open.
        best: one sentence on how the step was chosen.
    """
    base = base_model or str(_select(config, "actor_rollout_ref.model.path") or "")
    hub, arm = _hub_name(base), arm or ("" if config is None else _arm_of(config))
    of = {
        start: {k: v for k, v in sorted(metrics.items()) if k.startswith(start)}
        for start in ("val-", "actor/contextrl/")
    }
    return {
        "step": step,
        "total_steps": _select(config, "trainer.total_training_steps"),
        "arm": arm,
        "arm_text": MEANING.get(arm, ""),
        "base_model": hub or Path(base).name,
        "hub_base": hub,
        "model_type": model_type,
        "licence": licence,
        "best": best,
        "config": {key: value for key in _SHOWN if (value := _select(config, key)) is not None},
        "data": data_files(config),
        "validation": of["val-"],
        "training": of["actor/contextrl/"],
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
