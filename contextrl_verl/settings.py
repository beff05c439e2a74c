"""The yaml block ``contextrl``: names, types and defaults, checked where they are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.prompting import Orders, PromptConfig

Objective = Literal["context_awareness", "selection_reward", "question_answering", "none"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class PairSettings(_Strict):
    """``contextrl.pairs``: files of contrastive pairs and how many go into a batch."""

    train_files: list[str] = Field(default_factory=list)
    val_files: list[str] = Field(default_factory=list)
    per_batch: int = Field(default=0, ge=0)
    orders: Orders = "random"
    val_by: Literal["choice", "reply"] = "choice"

    @field_validator("train_files", "val_files", mode="before")
    @classmethod
    def _one_file(cls, value: Any) -> Any:
        # As data.train_files: one path or a list of them.
        return [value] if isinstance(value, str) else value


class LossSettings(_Strict):
    """``contextrl.loss``: lambda, c, clip mode, margins, weight of the labels' mass, lambda's schedule over steps."""

    coef: float = Field(default=0.005, ge=0)
    clip: float = Field(default=5.0, gt=0)
    clip_mode: Literal["two_sided", "one_sided"] = "two_sided"
    margin: Literal["each", "averaged"] = "each"
    mass_coef: float = Field(default=0.0, ge=0)
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
    apply_chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
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
    prompt: PromptConfig = Field(default_factory=PromptConfig)
    loss: LossSettings = Field(default_factory=LossSettings)
    run: RunView = Field(default_factory=RunView)

    @property
    def prompt_config(self) -> PromptConfig:
        """The prompt of pairs; the chat template's arguments are those of the ordinary rows unless it has its own."""
        return replace(
            self.prompt,
            chat_template_kwargs={**self.run.apply_chat_template_kwargs, **self.prompt.chat_template_kwargs},
        )

    @property
    def averages_margins(self) -> bool:
        """Whether a row of the batch holds a pair in all rotations of its contexts."""
        return self.objective == "context_awareness" and self.loss.margin == "averaged"

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
    if not isinstance(block, dict):
        from omegaconf import OmegaConf

        block = OmegaConf.to_container(block, resolve=True) if OmegaConf.is_config(block) else block
    try:
        return Settings.model_validate(block)
    except ValidationError as error:
        # One paragraph a key; of a list, its first bad item.
        first = {problem["loc"][:2]: problem for problem in reversed(error.errors())}
        raise ConfigError(*map(_readable, reversed(first.values()))) from None


def _readable(problem: Mapping[str, Any]) -> str:
    own = problem.get("ctx", {}).get("error")
    if isinstance(own, ConfigError):
        return str(own)
    path = [str(part) for part in problem["loc"]]
    key = ".".join(["contextrl", *path])
    value = repr(problem["input"])
    value = value if len(value) <= 120 else value[:120] + "..."
    message = re.sub(r" or (an )?instance of \w+", "", problem["msg"])
    fix = f"correct the value of {key}"
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        *parents, wrong = path
        fields: Any = Settings.model_fields
        for parent in parents:
            inner = fields[parent].annotation
            fields = getattr(inner, "model_fields", None) or inner.__dataclass_fields__
        near = get_close_matches(wrong, fields, n=1)
        fix = f"rename it to {near[0]}" if near else "remove it"
        return (
            f"{key} is {value}, and there is no such key; {'.'.join(['contextrl', *parents])} knows "
            f"{', '.join(fields)}. Fix: {fix}."
        )
    if problem["type"] == "string_type" and isinstance(problem["input"], bool):
        fix = "put quotes around it; yaml reads yes, no, on and off without quotes as true and false"
    if path and path[0] == "run":
        fix = "correct the key of the job that contextrl_verl/config/contextrl_base.yaml reads it from"
    return f"{key} is {value}: {message}. Fix: {fix}."
