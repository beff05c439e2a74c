"""What of verl 0.9.1 the joint loss cannot work with: told before Ray starts. docs/configuration.md lists the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from contextrl_verl.errors import ConfigError
from contextrl_verl.grpo.fused_head import check_fused_kernels
from contextrl_verl.settings import RunView

_ULYSSES = "ulysses_sequence_parallel_size"
# All that verl registers, and why pairs forbid it. None: ordinary rows train as in a batch without pairs, to 1e-6
# (tests/test_estimators.py, tests/engine/other_losses.py).
LOSSES: dict[str, str | None] = {
    **dict.fromkeys(("vanilla", "gspo", "cispo", "dppo_tv", "dppo_kl", "sapo", "gpg", "clip_cov", "kl_cov", "dro")),
    "geo_mean": "verl averages it over the rows of a micro-batch, pairs among them, so pairs would shrink it",
    "bypass_mode": "verl raises an error in a micro-batch without a response token, such as pairs alone",
}
_WITHHELD = "verl's V1 trainer does not give it {}, so that it fails after the first rollout, with pairs or without"
ESTIMATORS: dict[str, str | None] = {
    **dict.fromkeys(("grpo", "grpo_vectorized", "rloo", "rloo_vectorized", "opo")),
    **dict.fromkeys(("reinforce_plus_plus", "reinforce_plus_plus_baseline")),
    "gae": "its critic is an engine of verl's that knows no pairs, and the loss of a mini-batch of pairs alone is NaN",
    "gpg": "verl multiplies advantages by rows / (rows with a reward), pairs among them, so they would grow with pairs",
    "grpo_passk": "verl wants two rows or more of every prompt, and a pair is one",
    "remax": _WITHHELD.format("rewards of greedy replies"),
    "gdpo": _WITHHELD.format("the prompts and the rewards one by one"),
    "optimal_token_baseline": _WITHHELD.format("sum_pi_squared"),
    "tir_optimal_token_baseline": _WITHHELD.format("sum_pi_squared"),
}
# Key of the job, its name in the block `contextrl.run`, the table; the first that is not refused is the fix.
REGISTRIES: tuple[tuple[str, str, dict[str, str | None]], ...] = (
    ("actor_rollout_ref.actor.policy_loss.loss_mode", "loss_mode", LOSSES),
    ("algorithm.adv_estimator", "adv_estimator", ESTIMATORS),
)
# Key of the job, its name in the block `contextrl.run`, the values that will do; the first of these is the fix.
REFUSED: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
    ("trainer.v1.trainer_mode", "trainer_mode", ("sync",)),
    ("trainer.use_v1", "use_v1", (True,)),
    ("distillation.enabled", "distillation", (False, None)),
    ("data.sampler.class_path", "data_sampler", (None,)),
    ("actor_rollout_ref.actor.strategy", "strategy", ("fsdp2", "fsdp")),
)


def check_joint_loss(run: RunView) -> None:
    """Raises ConfigError for an option under which pairs would be lost, or their loss or verl's distorted."""
    problems = [problem for key, name, known in REGISTRIES for problem in _registered(key, getattr(run, name), known)]
    for key, name, good in REFUSED:
        value = getattr(run, name)
        if value not in good:
            problems.append(
                f"{key} is {value!r}, which context awareness does not support (with verl 0.9.1 it needs the "
                "synchronous V1 trainer, FSDP1 or FSDP2, every row of a batch, and the data set's own order). "
                f"Fix: {key}={'null' if good[0] is None else good[0]}."
            )
    if run.use_kl_in_reward and run.kl_ctrl == "adaptive":
        problems.append(
            "algorithm.kl_ctrl.type is 'adaptive' and algorithm.use_kl_in_reward is True: verl adapts the coefficient "
            "to the KL averaged over rows, pairs among them with a KL of 0, so pairs would change it. Fix: "
            "algorithm.kl_ctrl.type=fixed, or a KL loss instead, actor_rollout_ref.actor.use_kl_loss=True."
        )
    if run.model_type != "contextrl_language_model":
        problems.append(
            f"actor_rollout_ref.model.model_type is {run.model_type!r}, so verl would not use the engine "
            "with the joint loss. Fix: actor_rollout_ref.model.model_type=contextrl_language_model."
        )
    if problems:
        raise ConfigError(*problems)


def _registered(key: str, value: str | None, known: dict[str, str | None]) -> Iterator[str]:
    if value and value not in known:
        # Registered by the user, or a typing error, which verl will name.
        print(
            f"contextrl: {key}={value} is not one of verl 0.9.1's own, so what pairs do to it was not looked at. A "
            "pair is one row with a uid of its own, reward 0 and a response mask of zeros: it must leave such rows out "
            "of every mean and count over rows, and bear groups of one row and micro-batches without a response token."
        )
    elif known.get(value) is not None:
        first, *others = [name for name, reason in known.items() if reason is None]
        yield f"{key} is {value!r}: {known[value]}. Fix: {key}={first}, or one of {', '.join(others)}."


def ranks_of_a_sequence(run: RunView) -> tuple[str, int]:
    """Ulysses: the key that sets it, and the number of ranks that share a sequence. verl's older key wins."""
    if (run.ulysses or 1) > 1:
        return f"actor_rollout_ref.actor.{_ULYSSES}", run.ulysses
    return f"actor_rollout_ref.actor.fsdp_config.{_ULYSSES}", run.fsdp_ulysses or 1


def check_model(run: RunView, config: Any) -> None:
    """Raises ConfigError where fused kernels or Ulysses would compute something else than the model.

    Args:
        config: the model's own, from transformers.
    """
    check_fused_kernels(run, config)
    key, ranks = ranks_of_a_sequence(run)
    if ranks == 1:
        return
    if not run.use_remove_padding:
        raise ConfigError(
            f"{key} is {ranks} and actor_rollout_ref.model.use_remove_padding is False: ranks share a packed row. "
            "Fix: actor_rollout_ref.model.use_remove_padding=True."
        )
    attention = run.attention or "flash_attention_2"
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
