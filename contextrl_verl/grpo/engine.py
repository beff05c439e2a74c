"""verl's FSDP engine with the joint loss L_GRPO + lambda * mean L_CA (paper, eq. 4).

A pair is one row whose response mask is zero, so verl's policy loss, KL, entropy, clipping and token
counts do not see it. This engine reads the option logits of such rows in the forward pass that verl
makes anyway and adds lambda * (sum of L_CA) / (pairs in the mini-batch) to the micro-batch's loss.

Where the rows of logits come from (contextrl_verl.grpo.option_rows):

    packed                the output head sees the last two positions of pairs only; their logits
    padded                logits of all positions
    packed, Ulysses       logits of all positions; the rank that holds a position gives its row to the others
    fused kernels         no logits; the wanted rows go through the output head once more
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.utils.ulysses import gather_outputs_and_unpad
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from contextrl_verl.errors import ConfigError
from contextrl_verl.grpo.batch_column import COLUMN, dense, option_logits, pair_rows
from contextrl_verl.grpo.fused_head import check_fused_kernels, head_in_root_unit
from contextrl_verl.grpo.model_rows import taken_apart, without_contexts
from contextrl_verl.grpo.option_rows import (
    OptionRows,
    kept_positions,
    label_mismatch,
    last_tokens,
    on_rank,
    option_positions,
    with_lengths,
)
from contextrl_verl.grpo.watch import FailingRewards, StuckPairs, told_of_rewards
from contextrl_verl.objective import (
    averaged_margins,
    coefficient,
    context_awareness_loss,
    loss_of_margins,
    mass_loss,
    pair_sums,
)

MODEL_TYPE = "contextrl_language_model"
_ROWS, _COLUMNS = "contextrl_rows", "contextrl_columns"


@dataclass
class _Reading:
    """How the option logits of one micro-batch are read."""

    pairs: torch.Tensor  # rows of the micro-batch that carry a pair
    # Index of their positions into the logits that the model returns; None: it returns just those.
    where: tuple[torch.Tensor, torch.Tensor] | None
    owner: torch.Tensor | None = None  # under Ulysses, the rank that holds each
    kept: torch.Tensor | None = None  # how many positions of each row went through the output head; None: all
    batch: Any = None  # the micro-batch as the model sees it


@EngineRegistry.register(model_type=MODEL_TYPE, backend=["fsdp", "fsdp2"], device=["cuda", "npu", "cpu"])
class ContextRLEngine(FSDPEngineWithLMHead):
    """FSDP1 / FSDP2 engine that adds the context-awareness loss to whatever loss it is given.

    It is inert in mini-batches without the column :data:`contextrl_verl.grpo.batch_column.COLUMN`. In verl's scoring
    passes, the reference policy's too, it leaves out the contexts of pairs (:mod:`contextrl_verl.grpo.model_rows`).
    """

    def __init__(self, model_config, engine_config, optimizer_config, checkpoint_config):
        # The base class builds the model by this name.
        model_config.model_type = "language_model"
        super().__init__(model_config, engine_config, optimizer_config, checkpoint_config)
        self._option_rows = OptionRows()
        settings = getattr(engine_config, "settings", None)
        self._contextrl = settings if settings is not None and settings.objective == "context_awareness" else None
        self._pairs_this_step, self._labels_agree = 0, False
        self._stuck, self._rewards = StuckPairs(), FailingRewards()
        if self._contextrl is not None:
            check_fused_kernels(model_config, model_config.hf_config)

    def _build_module(self):
        module = super()._build_module()
        if self._contextrl is not None:
            self._option_rows.attach(module)
            if self.model_config.use_fused_kernels and not self._option_rows.attached:
                raise ConfigError(
                    f"{type(module).__name__} has no decoder behind which its hidden states could be read, and with "
                    "fused kernels there are no logits. Fix: actor_rollout_ref.model.use_fused_kernels=False."
                )
        return module

    def _build_fsdp_module(self, module):
        mended = self.model_config.use_fused_kernels and self.engine_config.strategy == "fsdp2"
        with head_in_root_unit(module.config) if mended else nullcontext():
            return super()._build_fsdp_module(module)

    def forward_backward_batch(self, data, loss_function, forward_only=False):
        if forward_only and loss_function is None and COLUMN in data.keys():
            short, lengths = without_contexts(data)
            output = super().forward_backward_batch(short, None, forward_only=True)
            output["model_output"] = {name: with_lengths(v, lengths) for name, v in output["model_output"].items()}
            return output
        if not forward_only and loss_function is not None:
            self._rewards.look(told_of_rewards(data))
        if forward_only or loss_function is None or self._contextrl is None:
            return super().forward_backward_batch(data, loss_function, forward_only)
        if COLUMN not in data.keys():
            if self._contextrl.pairs.per_batch:
                raise RuntimeError(
                    f"contextrl: contextrl.pairs.per_batch is {self._contextrl.pairs.per_batch}, and the batch has no "
                    f"column {COLUMN!r}: its rows do not come from contextrl_verl.grpo.dataset.MixedTaskDataset. Fix: "
                    "data.custom_cls, or a data set of your own that is a subclass of it (docs/own_job.md)."
                )
            return super().forward_backward_batch(data, loss_function, forward_only)
        info = self._count(data)
        self._check_step(info["pairs"], bool(tu.get_non_tensor_data(data, "update_lr_scheduler", False)))
        global_batch_size = tu.get_non_tensor_data(data, "global_batch_size", None)
        if global_batch_size is not None:
            # seq-mean-* modes divide by it; the carrier rows are not sequences of the policy loss.
            tu.assign_non_tensor(data, global_batch_size=global_batch_size - info["pairs"])
        loss = partial(self._joint_loss, base=loss_function, info=info)
        output = super().forward_backward_batch(data, loss, forward_only)
        self._labels_agree = self._labels_agree or info["pairs"] > 0
        if tu.get_non_tensor_data(data, "update_lr_scheduler", False) and self.rank == 0:
            told = self._stuck.end_of_step(self._contextrl.loss.margin)
            if told:
                print(told, flush=True)
        return output

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
        step = 1
        if loss.schedule != "constant":
            # The same on all ranks, of which one may hold only pairs that waited since an earlier step.
            last = torch.tensor(_trainer_step(data), device=column.device)
            torch.distributed.all_reduce(last, torch.distributed.ReduceOp.MAX, group=self.get_data_parallel_group())
            step = int(last)
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
                "* ppo_epochs). An agent loop failed, or its worker died, and verl left its rows out; look for "
                "'Error in _run_prompt' and for 'died' in the log."
            )

    def prepare_model_inputs(self, micro_batch):
        self._option_rows.clear()
        if self._contextrl is None or not torch.is_grad_enabled() or COLUMN not in micro_batch.keys():
            return super().prepare_model_inputs(micro_batch)
        if self._contextrl.averages_margins:
            micro_batch = taken_apart(micro_batch)
        inputs, args = super().prepare_model_inputs(micro_batch)
        args[_ROWS] = self._plan_reading(micro_batch, inputs, args)
        return inputs, args

    def _plan_reading(self, micro_batch, inputs, args) -> _Reading:
        """Decide where the option logits of a micro-batch come from, and tell the model; changes inputs and args."""
        offsets = micro_batch["input_ids"].offsets()
        pairs = pair_rows(dense(micro_batch[COLUMN]), micro_batch["input_ids"])
        packed = tu.get_non_tensor_data(micro_batch, "use_remove_padding", True)
        fused = tu.get_non_tensor_data(micro_batch, "use_fused_kernels", False)
        ranks, owner, kept = self.ulysses_sequence_parallel_size, None, None
        where = option_positions(offsets, pairs, packed)
        if ranks > 1:
            owner, here = on_rank(
                where[1], int(offsets[-1]) + args["pad_size"], ranks, self.ulysses_device_mesh["sp"].get_local_rank()
            )
            where = torch.zeros_like(here), here
        if fused:
            self._option_rows.read = where
        if packed and ranks == 1 and len(pairs) > 0 and self._option_rows.attached:
            positions, kept = kept_positions(offsets, pairs)
            self._option_rows.keep = positions
            for name in ("input_ids_rmpad_rolled", "temperature_rmpad"):
                args[name] = args[name][positions]
            args["pad_size"] = 0  # the padding behind the last row is left out too
            if fused:
                inputs["shift_labels"] = inputs["shift_labels"][:, positions]
            where = option_positions(torch.nn.functional.pad(kept.cumsum(0), (1, 0)), pairs, packed)
        return _Reading(pairs, None if fused else where, owner, kept, micro_batch)

    def prepare_model_outputs(self, output, output_args, micro_batch, logits_processor_func):
        reading = output_args.get(_ROWS)
        if reading is None:
            return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        # Before verl divides the logits by the temperature, in place.
        rows = self._rows(output.logits, reading)
        whole, micro_batch = micro_batch["input_ids"].offsets(), reading.batch
        ids, column = micro_batch["input_ids"], dense(micro_batch[COLUMN])[reading.pairs]
        if reading.kept is not None:
            micro_batch = micro_batch.copy()
            micro_batch["input_ids"] = last_tokens(ids, reading.kept)
        model_output = super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        if reading.kept is not None:
            model_output = {name: with_lengths(value, ids.offsets().diff()) for name, value in model_output.items()}
        if not self._labels_agree:
            self._compare_labels(rows, model_output["log_probs"], reading.pairs, ids, micro_batch["temperature"])
        if len(whole) < len(ids.offsets()):
            model_output = {
                name: torch.nested.nested_tensor_from_jagged(value.values(), whole)
                for name, value in model_output.items()
            }
        model_output[_ROWS], model_output[_COLUMNS] = rows.float(), column
        return model_output

    def _rows(self, logits: torch.Tensor, reading: _Reading) -> torch.Tensor:
        """Raw logits that predict every pair's option: (pairs, vocabulary); the same on all ranks of a sequence."""
        if isinstance(logits, DTensor):
            logits = logits.full_tensor()
        rows = logits if reading.where is None else logits[reading.where]
        if reading.owner is None or len(reading.owner) == 0:
            return rows
        # verl's own gather, because every rank of the sequence computes the whole loss: its backward hands this rank's
        # share of the gradient on times their number, by which FSDP's mean over all ranks then divides.
        every = gather_outputs_and_unpad(rows, gather_dim=0)
        every = every.view(self.ulysses_sequence_parallel_size, *rows.shape)
        return every[reading.owner, torch.arange(len(reading.owner), device=rows.device)]

    def _compare_labels(self, rows, log_probs, pairs, ids, temperature) -> None:
        """Stop a job that reads other logits than verl scores, in its first mini-batch with pairs.

        Raises:
            RuntimeError: a label's log-probability differs.
        """
        ends = ids.offsets()[1:][pairs]
        if isinstance(temperature, torch.Tensor):
            temperature = temperature[pairs]
        problem = label_mismatch(rows, ids.values()[ends - 1], temperature, log_probs.values()[ends - 2])
        if problem is not None:
            raise RuntimeError(
                f"contextrl: {problem}. Both come from one hidden state, so a kernel, an adapter of the output head or "
                "the order of packed tokens is not what it seems, and training on would optimise something else. Fix: "
                "actor_rollout_ref.model.use_fused_kernels=False if it is True; else please report model and versions."
            )

    def _joint_loss(self, *args, base, info, model_output=None, data=None, dp_group=None, **kwargs):
        # Popped, because verl unbinds everything left in model_output as nested tensors.
        rows, column = model_output.pop(_ROWS), model_output.pop(_COLUMNS)
        if info["tokens"] > 0:
            loss, metrics = base(*args, model_output=model_output, data=data, dp_group=dp_group, **kwargs)
        else:
            # A mini-batch of pairs alone: verl's token mean would divide by zero.
            loss, metrics = model_output["log_probs"].values().sum() * 0.0, {}
        settings = self._contextrl.loss
        logits, supporting = option_logits(rows, column), column[:, 1]
        rotations = 1
        if self._contextrl.averages_margins and len(column) > 0:
            rotations = int(column[0, 0])
            margins = averaged_margins(logits.view(-1, rotations, logits.shape[1]), supporting.view(-1, rotations))
            losses = loss_of_margins(margins, settings.clip, settings.clip_mode)
        else:
            losses = context_awareness_loss(logits, supporting, settings.clip, settings.clip_mode)
        # FSDP averages gradients over ranks, and micro-batches are summed: hence the factor.
        scale = self.get_data_parallel_size() / max(info["pairs"], 1)
        loss = loss + info["coef"] * scale * losses.sum()
        if settings.mass_coef > 0:
            loss = loss + info["coef"] * settings.mass_coef * scale * mass_loss(rows, logits).sum() / rotations
        sums = pair_sums(losses, rows, logits, supporting, settings.clip, settings.clip_mode, rotations)
        pairs = len(column) // rotations
        self._stuck.add(float(sums.stuck_fraction), pairs - float(sums.order_free_accuracy), pairs)
        metrics.update(self._metrics(sums, scale, info))
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


def _trainer_step(data) -> int:
    """The trainer step of this batch: its rows' latest, for pairs may have waited (contextrl_verl.grpo.replay_buffer).

    Raises:
        RuntimeError: the batch does not say; a schedule of lambda would silently stay at its start.
    """
    step = data.get("global_steps", None)
    if step is None:
        raise RuntimeError("contextrl: the batch has no global_steps, and contextrl.loss.schedule needs the step")
    if isinstance(step, torch.Tensor):
        return int((step.values() if step.is_nested else step).max())
    if isinstance(step, int):
        return step
    steps = step.tolist() if hasattr(step, "tolist") else list(step)
    while isinstance(steps[0], list):
        steps = [one for inner in steps for one in inner]
    return int(max(steps))
