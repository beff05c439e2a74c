"""The yaml block ``contextrl``: names, types and defaults, checked where they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contextrl_verl.errors import ConfigError
from contextrl_verl.prompting import Orders, PromptConfig

Objective = Literal["context_awareness", "selection_reward", "none"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class PairSettings(_Strict):
    """``contextrl.pairs``: files of contrastive pairs and how many go into a batch."""

    train_files: list[str] = Field(default_factory=list)
    val_files: list[str] = Field(default_factory=list)
    per_batch: int = Field(default=0, ge=0)
    orders: Orders = "random"


class LossSettings(_Strict):
    """``contextrl.loss``: lambda, c, clip mode and lambda's schedule over trainer steps."""

    coef: float = Field(default=0.005, ge=0)
    clip: float = Field(default=5.0, gt=0)
    clip_mode: Literal["two_sided", "one_sided"] = "two_sided"
    schedule: Literal["constant", "linear_warmup"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)


class RunView(BaseModel):
    """``contextrl.run``: what the rest of the job's config says, by interpolation; never set by hand."""

    model_config = ConfigDict(extra="allow")
    train_files: Any = None
    val_files: Any = None
    train_batch_size: int | None = None
    gen_batch_size: int | None = None
    shuffle: bool = False
    max_prompt_length: int = 1024
    rollout_n: int = 1
    ppo_epochs: int = 1
    default_agent_loop: str = "single_turn_agent"
    total_epochs: int = 1
    total_training_steps: int | None = None


class Settings(_Strict):
    """The whole block."""

    objective: Objective = "context_awareness"
    seed: int = 1
    epochs: int = Field(default=1, ge=1)
    shuffle: bool = True
    pairs: PairSettings = Field(default_factory=PairSettings)
    prompt: dict[str, Any] = Field(default_factory=dict)
    loss: LossSettings = Field(default_factory=LossSettings)
    run: RunView = Field(default_factory=RunView)

    @property
    def prompt_config(self) -> PromptConfig:
        return PromptConfig.from_mapping(self.prompt)

    @property
    def uses_pairs(self) -> bool:
        return self.objective != "none"


def parse_settings(block: Any) -> Settings:
    """Read the block from a mapping or an OmegaConf node.

    Raises:
        ConfigError: names the key, its value and what is allowed.
    """
    if block is None:
        raise ConfigError(
            "the config has no block 'contextrl'. Fix: start from --config-path=pkg://contextrl_verl.config "
            "--config-name=contextrl_trainer, or add the block to your own yaml (README, 'In an existing run')."
        )
    if not isinstance(block, Mapping):
        from omegaconf import OmegaConf

        block = OmegaConf.to_container(block, resolve=True)
    try:
        return Settings.model_validate(dict(block))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["contextrl", *(str(part) for part in first["loc"])])
        raise ConfigError(f"{key} is {first['input']!r}: {first['msg']}. Fix: correct the value of {key}.") from None
