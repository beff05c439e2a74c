"""verl's FSDP engine with the joint loss L_GRPO + lambda * mean L_CA (paper, eq. 4).

A pair is one row whose response mask is zero, so verl's policy loss, KL, entropy, clipping and token
counts do not see it. This engine reads the option logits of such rows in the forward pass that verl
makes anyway and adds lambda * (sum of L_CA) / (pairs in the mini-batch) to the micro-batch's loss.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from contextrl_verl.carrier import COLUMN, dense, option_logits, pair_rows
from contextrl_verl.errors import ConfigError
from contextrl_verl.objective import coefficient, context_awareness_loss, pair_sums
from contextrl_verl.scoring import with_lengths, without_contexts

MODEL_TYPE = "contextrl_language_model"
_ROWS = "contextrl_rows"


@EngineRegistry.register(model_type=MODEL_TYPE, backend=["fsdp", "fsdp2"], device=["cuda", "npu", "cpu"])
class ContextRLEngine(FSDPEngineWithLMHead):
    """FSDP1 / FSDP2 engine that adds the context-awareness loss to whatever loss it is given.

    It is inert in mini-batches without the column :data:`contextrl_verl.carrier.COLUMN`. In verl's scoring passes, the
    reference policy's too, it leaves out the contexts of pairs (:mod:`contextrl_verl.scoring`).
    """

    def __init__(self, model_config, engine_config, optimizer_config, checkpoint_config):
        # The base class builds the model by this name.
        model_config.model_type = "language_model"
        super().__init__(model_config, engine_config, optimizer_config, checkpoint_config)
        settings = getattr(engine_config, "settings", None)
        self._contextrl = settings if settings is not None and settings.objective == "context_awareness" else None
        self._pairs_this_step = 0
        if self._contextrl is not None:
            refuse_unsupported(engine_config)

    def forward_backward_batch(self, data, loss_function, forward_only=False):
        if forward_only and loss_function is None and COLUMN in data.keys():
            short, lengths = without_contexts(data)
            output = super().forward_backward_batch(short, None, forward_only=True)
            output["model_output"] = {name: with_lengths(v, lengths) for name, v in output["model_output"].items()}
            return output
        if forward_only or loss_function is None or self._contextrl is None or COLUMN not in data.keys():
            return super().forward_backward_batch(data, loss_function, forward_only)
        info = self._count(data)
        self._check_step(info["pairs"], bool(tu.get_non_tensor_data(data, "update_lr_scheduler", False)))
        global_batch_size = tu.get_non_tensor_data(data, "global_batch_size", None)
        if global_batch_size is not None:
            # seq-mean-* modes divide by it; the carrier rows are not sequences of the policy loss.
            tu.assign_non_tensor(data, global_batch_size=global_batch_size - info["pairs"])
        loss = partial(self._joint_loss, base=loss_function, info=info)
        return super().forward_backward_batch(data, loss, forward_only)

    def _count(self, data) -> dict[str, Any]:
        """Global numbers of this mini-batch: pairs, loss tokens, tokens with an advantage; and lambda."""
        column = dense(data[COLUMN])
        advantages = data["advantages"].values() * data["response_mask"].values()
        counts = torch.stack(
            [
                torch.tensor(float(len(pair_rows(column, data["input_ids"])))),
                data["loss_mask"].values().sum().float().cpu(),
                (advantages != 0).sum().float().cpu(),
            ]
        ).to(column.device)
        torch.distributed.all_reduce(counts, group=self.get_data_parallel_group())
        pairs, tokens, signal = (int(value) for value in counts.tolist())
        loss = self._contextrl.loss
        step = 1 if loss.schedule == "constant" else _trainer_step(data)
        coef = coefficient(loss.coef, step, loss.schedule, loss.warmup_steps)
        return {"pairs": pairs, "tokens": tokens, "signal": signal, "coef": coef}

    def _check_step(self, pairs: int, last_of_step: bool) -> None:
        """Stop a job that lost pairs on the way: verl logs a failed agent loop and trains on without its rows.

        Raises:
            RuntimeError: the mini-batches of a step held another number of pairs than the job asked for.
        """
        self._pairs_this_step += pairs
        if not last_of_step:
            return
        seen, self._pairs_this_step = self._pairs_this_step, 0
        # Zero when the engine was built by itself, without a job's data.
        asked = self._contextrl.pairs.per_batch * self._contextrl.run.ppo_epochs
        if asked and seen != asked:
            raise RuntimeError(
                f"contextrl: this step's mini-batches held {seen} pairs instead of {asked} (contextrl.pairs.per_batch "
                "* ppo_epochs). An agent loop failed and verl left its rows out; look for 'Error in _run_prompt' in "
                "the log."
            )

    def prepare_model_outputs(self, output, output_args, micro_batch, logits_processor_func):
        rows = None
        if self._contextrl is not None and torch.is_grad_enabled() and COLUMN in micro_batch.keys():
            rows = _last_prompt_logits(output.logits, micro_batch)
        model_output = super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        if rows is not None:
            model_output[_ROWS] = rows
        return model_output

    def _joint_loss(self, *args, base, info, model_output=None, data=None, dp_group=None, **kwargs):
        # Popped, because verl unbinds everything left in model_output as nested tensors.
        rows = model_output.pop(_ROWS)
        if info["tokens"] > 0:
            loss, metrics = base(*args, model_output=model_output, data=data, dp_group=dp_group, **kwargs)
        else:
            # A mini-batch of pairs alone: verl's token mean would divide by zero.
            loss, metrics = model_output["log_probs"].values().sum() * 0.0, {}
        column = dense(data[COLUMN])
        column = column[pair_rows(column, data["input_ids"])]
        settings = self._contextrl.loss
        logits = option_logits(rows, column)
        losses = context_awareness_loss(logits, column[:, 1], settings.clip, settings.clip_mode)
        # FSDP averages gradients over ranks, and micro-batches are summed: hence the factor.
        scale = self.get_data_parallel_size() / max(info["pairs"], 1)
        loss = loss + info["coef"] * scale * losses.sum()
        metrics.update(self._metrics(pair_sums(losses, rows, logits, column[:, 1], settings.clip), scale, info))
        return loss, metrics

    @staticmethod
    def _metrics(sums, scale: float, info: dict[str, Any]) -> dict[str, Metric]:
        # The same keys on every rank and micro-batch, or verl cannot aggregate them. A mini-batch without
        # pairs reports none of the means rather than zeros that would pull the step's average down.
        values: dict[str, Metric] = {}
        if info["pairs"] > 0:
            for name, total in vars(sums).items():
                values[f"contextrl/{name}"] = Metric(AggregationType.SUM, total * scale)
        for name, constant in {
            "pairs": float(info["pairs"]),
            "coef": info["coef"],
            "zero_grpo_gradient": float(info["signal"] == 0),
        }.items():
            values[f"contextrl/{name}"] = Metric(AggregationType.MEAN, constant)
        return values


def refuse_unsupported(engine_config) -> None:
    """Raises ConfigError for engine options under which the option logits cannot be read."""
    if engine_config.use_fused_kernels:
        raise ConfigError(
            "actor_rollout_ref.model.use_fused_kernels=True computes no logits, and context awareness reads them. "
            "Fix: set it to False."
        )
    if engine_config.ulysses_sequence_parallel_size > 1:
        raise ConfigError(
            f"actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size is "
            f"{engine_config.ulysses_sequence_parallel_size}; context awareness supports 1. Fix: set it to 1."
        )


def _trainer_step(data) -> int:
    """The trainer step of this batch; rows of one synchronous batch share it.

    Raises:
        RuntimeError: the batch does not say; a schedule of lambda would silently stay at its start.
    """
    step = data.get("global_steps", None)
    if step is None:
        raise RuntimeError("contextrl: the batch has no global_steps, and contextrl.loss.schedule needs the step")
    if isinstance(step, torch.Tensor):
        return int((step.values() if step.is_nested else step).flatten()[0])
    if isinstance(step, int):
        return step
    first = step.tolist() if hasattr(step, "tolist") else list(step)
    while isinstance(first, list):
        first = first[0]
    return int(first)


def _last_prompt_logits(logits: torch.Tensor, micro_batch) -> torch.Tensor:
    """Raw fp32 logits that predict the option of every pair: (pairs, vocabulary).

    ``logits`` is (1, tokens, vocabulary) when packed (possibly padded at the end), else
    (rows, longest, vocabulary) padded on the right.
    """
    if isinstance(logits, DTensor):
        logits = logits.full_tensor()
    input_ids = micro_batch["input_ids"]
    offsets = input_ids.offsets()
    pairs = pair_rows(dense(micro_batch[COLUMN]), input_ids)
    # The response is one token, so the last prompt token stands two before the row's end.
    packed = tu.get_non_tensor_data(micro_batch, "use_remove_padding", True)
    if packed:
        rows = logits[0, offsets[1:][pairs] - 2]
    else:
        rows = logits[pairs, offsets.diff()[pairs] - 2]
    return rows.float()
