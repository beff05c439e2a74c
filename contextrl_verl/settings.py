"""The yaml block ``contextrl``: names, types and defaults, checked where they are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from contextrl_verl.agents.settings import AgentSettings
from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.prompting import Orders, PromptConfig

Objective = Literal["context_awareness", "selection_reward", "question_answering", "none"]


def listed(value: Any) -> list[str]:
    """A key of one path or several as a list."""
    return [value] if isinstance(value, str) else [str(each) for each in value or ()]


# As data.train_files: one name or a list of them.
Names = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class PairSettings(_Strict):
    """``contextrl.pairs``: files of contrastive pairs and how many go into a batch."""

    train_files: Names = Field(default_factory=list)
    val_files: Names = Field(default_factory=list)
    per_batch: int = Field(default=0, ge=0)
    orders: Orders = "random"
    val_by: Literal["choice", "reply"] = "choice"


class LossSettings(_Strict):
    """``contextrl.loss``: lambda, c, clip mode, margins, weight of the labels' mass, lambda's schedule over steps."""

    coef: float = Field(default=0.005, ge=0)
    clip: float = Field(default=5.0, gt=0)
    clip_mode: Literal["two_sided", "one_sided"] = "two_sided"
    margin: Literal["each", "averaged"] = "each"
    mass_coef: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "linear_warmup"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)


class RunView(_Strict):
    """``contextrl.run``: what the rest of the job's config says, by interpolation; never set by hand.

    What ``contextrl_base`` or ``selection_sft_base`` does not fill in is verl's default, or None.
    """

    # data
    train_files: Names | None = None
    val_files: Names | None = None
    prompt_key: str = "prompt"
    reward_fn_key: str = "data_source"
    apply_chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    dataset_path: str | None = None
    dataset_name: str | None = None
    data_sampler: str | None = None
    train_max_samples: int | None = None
    train_batch_size: int | None = None
    gen_batch_size: int | None = None
    shuffle: bool = False
    max_prompt_length: int = 1024
    max_response_length: int = 1
    max_length: int | None = None
    pad_mode: str | None = None
    # rewards, and verl's older keys of them
    reward_path: str | None = None
    reward_name: str | None = None
    reward_kwargs: dict[str, Any] | None = None
    manager_source: str | None = None
    manager_name: str | None = None
    manager_path: str | None = None
    reward_model: bool = False
    sandbox_url: str | None = None
    older_reward_path: str | None = None
    older_manager: str | None = None
    older_sandbox_url: str | None = None
    # model and engine
    model_path: str | None = None
    tokenizer_path: str | None = None
    trust_remote_code: bool = False
    custom_chat_template: str | None = None
    external_lib: Names | None = None
    model_type: str | None = None
    use_fused_kernels: bool = False
    use_remove_padding: bool = True
    attention: str | None = None
    lora_rank: int = 0
    lora_adapter_path: str | None = None
    target_modules: Names | None = None
    strategy: str = "fsdp2"
    ulysses: int | None = None
    fsdp_ulysses: int | None = None
    # actor and algorithm
    loss_mode: str | None = None
    adv_estimator: str | None = None
    use_kl_in_reward: bool = False
    kl_ctrl: str | None = None
    distillation: bool | None = None
    ppo_epochs: int = 1
    ppo_mini_batch_size: int | None = None
    use_dynamic_bsz: bool = False
    ppo_max_token_len_per_gpu: int | None = None
    max_token_len_per_gpu: int = 0
    # rollout
    rollout_n: int = 1
    rollout_name: str | None = None
    default_agent_loop: str = "single_turn_agent"
    loop_manager: str | None = None
    max_model_len: int | None = None
    limit_images: int | None = None
    tensor_model_parallel_size: int | None = None
    pipeline_model_parallel_size: int | None = None
    data_parallel_size: int | None = None
    bucket_megabytes: int = 0
    # trainer
    nnodes: int | None = None
    n_gpus_per_node: int | None = None
    total_epochs: int = 1
    total_training_steps: int | None = None
    trainer_mode: str = "sync"
    use_v1: bool = True
    resume_mode: str | None = None
    resume_from_path: str | None = None
    default_local_dir: str | None = None
    save_freq: int = -1
    save_contents: Names | None = None
    sampler: str | None = None
    replaces_groups: bool | None = None
    replaces_failed: bool | None = None

    @property
    def ranks(self) -> int:
        """GPUs of the job; 0 where nobody says."""
        return (self.nnodes or 0) * (self.n_gpus_per_node or 0)


class Settings(_Strict):
    """The whole block."""

    objective: Objective = "context_awareness"
    seed: int = 1
    epochs: int = Field(default=1, ge=1)
    shuffle: bool = True
    pairs: PairSettings = Field(default_factory=PairSettings)
    prompt: PromptConfig = Field(default_factory=PromptConfig)
    loss: LossSettings = Field(default_factory=LossSettings)
    agent: AgentSettings = Field(default_factory=AgentSettings)
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
