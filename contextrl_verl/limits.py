"""What of verl 0.9.1 the joint loss cannot work with: told before Ray starts. docs/configuration.md lists the same."""

from __future__ import annotations

from typing import Any

from contextrl_verl.errors import ConfigError
from contextrl_verl.fused_head import fused_kernels_problem

_ULYSSES = "ulysses_sequence_parallel_size"
# Policy losses that average over rows, rows without a token included, so that pairs would make the others smaller.
LOSSES_OVER_ROWS = ("geo_mean",)
# Key of the job, its name in the block `contextrl.run`, the values that will do; the first of these is the fix.
REFUSED: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
    ("trainer.v1.trainer_mode", "trainer_mode", ("sync",)),
    ("trainer.use_v1", "use_v1", (True,)),
    ("trainer.v1.sampler.sync_refill_failed_groups", "sync_refill_failed_groups", (False,)),
    ("algorithm.filter_groups.enable", "filter_groups", (False, None)),
    ("distillation.enabled", "distillation", (False, None)),
    ("data.sampler.class_path", "data_sampler", (None,)),
    ("actor_rollout_ref.actor.strategy", "strategy", ("fsdp2", "fsdp")),
)


def check_joint_loss(run: dict[str, Any]) -> None:
    """Raises ConfigError for an option under which pairs would be lost, or their loss or verl's distorted.

    Args:
        run: what the job's config says, by the names of the block ``contextrl.run``; of the refused keys, one that it
            lacks has its default.
    """
    for key, name, good in REFUSED:
        value = run.get(name, good[0])
        if value not in good:
            raise ConfigError(
                f"{key} is {value!r}, which context awareness does not support (with verl 0.9.1 it needs the "
                "synchronous V1 trainer, FSDP1 or FSDP2, every row of a batch, and the data set's own order). "
                f"Fix: {key}={'null' if good[0] is None else good[0]}."
            )
    if run.get("loss_mode") in LOSSES_OVER_ROWS:
        raise ConfigError(
            f"actor_rollout_ref.actor.policy_loss.loss_mode is {run['loss_mode']!r}: verl averages it over the rows of "
            "a micro-batch, pairs among them, so pairs would shrink it. Fix: actor_rollout_ref.actor.policy_loss."
            "loss_mode=gspo, or another one."
        )
    if run.get("model_type") != "contextrl_language_model":
        raise ConfigError(
            f"actor_rollout_ref.model.model_type is {run.get('model_type')!r}, so verl would not use the engine "
            "with the joint loss. Fix: actor_rollout_ref.model.model_type=contextrl_language_model."
        )


def ranks_of_a_sequence(run: dict[str, Any]) -> tuple[str, int]:
    """Ulysses: the key that sets it, and the number of ranks that share a sequence. verl's older key wins."""
    older = int(run.get("ulysses") or 1)
    if older > 1:
        return f"actor_rollout_ref.actor.{_ULYSSES}", older
    return f"actor_rollout_ref.actor.fsdp_config.{_ULYSSES}", int(run.get("fsdp_ulysses") or 1)


def check_model(run: dict[str, Any], config: Any) -> None:
    """Raises ConfigError where fused kernels or Ulysses would compute something else than the model.

    Args:
        run: as for :func:`check_joint_loss`.
        config: the model's own, from transformers.
    """
    if run.get("use_fused_kernels"):
        problem = fused_kernels_problem(config, int(run.get("lora_rank") or 0), run.get("target_modules"))
        if problem is not None:
            raise ConfigError(problem)
    key, ranks = ranks_of_a_sequence(run)
    if ranks == 1:
        return
    if not run.get("use_remove_padding", True):
        raise ConfigError(
            f"{key} is {ranks} and actor_rollout_ref.model.use_remove_padding is False: ranks share a packed row. "
            "Fix: actor_rollout_ref.model.use_remove_padding=True."
        )
    attention = run.get("attention") or "flash_attention_2"
    if not attention.startswith("flash_attention"):
        raise ConfigError(
            f"{key} is {ranks} and actor_rollout_ref.model.override_config.attn_implementation is {attention!r}: verl "
            "exchanges tokens between ranks in flash-attention alone, and each rank would silently attend to its own "
            f"share. Fix: attn_implementation=flash_attention_2, or {key}=1."
        )
    text = config.get_text_config()
    heads, shared = text.num_attention_heads, getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    if heads % ranks or (shared % ranks and ranks % shared):
        raise ConfigError(
            f"{key} is {ranks}, and the model has {heads} attention heads and {shared} key-value heads, which so many "
            f"ranks cannot share. Fix: a divisor of {heads} that divides {shared} or is a multiple of it."
        )
