"""verl's replay buffer with a quota of pairs, for jobs in which verl filters or replaces groups of rows.

With ``algorithm.filter_groups`` (DAPO) or ``trainer.v1.sampler.sync_refill_failed_groups`` verl draws further items of
the data set in the place of groups it leaves out, and these may be pairs. Here a batch takes its exact number of pairs,
the oldest first; pairs have nothing to filter, and those left over wait for the next batch.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import transfer_queue as tq
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from contextrl_verl.grpo.batch_column import COLUMN, dense
from contextrl_verl.grpo.episode_buffer import TRAIN, EpisodeBuffer


def replay_buffer(*, trainer_mode: str, sampler_kwargs: Any, **more: Any) -> ReplayBuffer:
    """``trainer.v1.sampler.custom_sampler`` of a ContextRL job: verl's buffer, with a quota where it replaces groups.

    ``sampler_kwargs`` are those of contextrl_base.yaml, ``more`` as verl gives them to a sampler of the user's own.
    """
    filters = sampler_kwargs.get("filter_groups") or {}
    metric = filters.get("metric") if filters.get("enable") else None
    refills = bool(sampler_kwargs.get("sync_refill_failed_groups"))
    given = {**more, "trainer_mode": trainer_mode, "sampler_kwargs": sampler_kwargs}
    given |= {"filter_groups_metric": metric, "sync_refill_failed_groups": refills}
    if trainer_mode != "sync":  # where objectives other than the joint loss may train
        return ReplayBufferAsync(**given)
    size, replaces = int(sampler_kwargs["train_batch_size"]), metric is not None or refills
    # With other objectives a pair is an ordinary row.
    carried = sampler_kwargs["objective"] == "context_awareness"
    return PairQuotaBuffer(
        pairs=int(sampler_kwargs["pairs"]) if replaces and carried else 0,
        max_infrastructure_share=float(sampler_kwargs.get("max_infrastructure_share", 1.0)),
        train_batch_size=size,
        gen_batch_size=1 if replaces else size,
        max_inflight_gen_batches=filters.get("max_inflight_gen_batches", 1) if metric else 1,
        **given,
    )


class PairQuotaBuffer(EpisodeBuffer):
    """Batches of exactly ``pairs`` pairs and ``train_batch_size - pairs`` rows; 0 pairs: no quota."""

    def __init__(self, *, pairs: int, train_batch_size: int, **more: Any) -> None:
        super().__init__(train_batch_size=train_batch_size, **more)
        self._pairs, self._rows = pairs, train_batch_size - pairs
        self._is_pair: dict[str, bool] = {}

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict]:
        """verl's, with how many pairs wait for the next batch and how many were left out since too many waited."""
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        if self._pairs and partition_id == TRAIN:
            self._sync_metadata_from_transfer_queue()
            metrics |= self._set_aside()
        return batch, metrics

    def _set_aside(self) -> dict[str, int]:
        """Keep the oldest waiting pairs, a batch's worth; more would pile up as often as groups are filtered."""
        waiting = self._oldest(self._finished_pairs())
        kept, left_out = waiting[: self._pairs], waiting[self._pairs :]
        self._clear_groups(TRAIN, set(left_out))
        self._is_pair = dict.fromkeys(kept, True)
        return {"contextrl/pairs_waiting": len(kept), "contextrl/pairs_left_out": len(left_out)}

    def _dapo_filtered_keys(self, partition_id: str) -> tuple[set[str], Counter]:
        pairs = self._finished_pairs() if partition_id == TRAIN else set()
        # A pair has one response and no reward to vary; verl would look for its metric in vain.
        self.finished_keys[partition_id] -= pairs
        try:
            return super()._dapo_filtered_keys(partition_id)
        finally:
            self.finished_keys[partition_id] |= pairs

    def _sampleable_terminal_keys(self, partition_id: str, eviction_reasons: tuple) -> set[str]:
        """As verl's, but as many as a batch only where there are enough of both kinds."""
        terminal = super()._sampleable_terminal_keys(partition_id, eviction_reasons)
        if not self._pairs or partition_id != TRAIN:
            return terminal
        pairs = terminal & self._finished_pairs()
        rows = terminal - pairs
        chosen = set(self._oldest(pairs)[: self._pairs])
        if len(rows) >= self._rows and len(chosen) == self._pairs:
            return rows | chosen
        if not self.pending_keys[TRAIN] and not self.running_keys[TRAIN]:
            # verl replaces as many items as it left out, and some of those that came were pairs.
            self.refill_fn(max(1, self._rows - len(rows)))
        return set(self._oldest(rows)[: self._rows]) | chosen

    def _select_prompt_uids(self, partition_id: str, sampleable_keys: set[str], batch_size: int) -> tuple:
        selected, partition, steps = super()._select_prompt_uids(partition_id, sampleable_keys, len(sampleable_keys))
        if not self._pairs or partition_id != TRAIN:
            return selected[:batch_size], partition, steps
        pairs = self._finished_pairs()
        rows = [uid for uid in selected if uid not in pairs][: self._rows]
        return [*rows, *(uid for uid in selected if uid in pairs)], partition, steps

    def _oldest(self, uids: set[str]) -> list[str]:
        return sorted(uids, key=lambda uid: (self.prompt_global_steps[TRAIN].get(uid, 0), uid))

    def _finished_pairs(self) -> set[str]:
        """Finished prompts of the training partition that are pairs, by the column that the data set gave them."""
        if not self._pairs:
            return set()
        finished = self.finished_keys[TRAIN]
        keys = {
            uid: key for key in self.partitions[TRAIN] if (uid := key.split("_")[0]) in finished - set(self._is_pair)
        }
        if keys:
            column = dense(
                tq.kv_batch_get(keys=list(keys.values()), partition_id=TRAIN, select_fields=[COLUMN])[COLUMN]
            )
            self._is_pair |= {uid: bool(options > 0) for uid, options in zip(keys, column[:, 0].tolist(), strict=True)}
        return {uid for uid in finished if self._is_pair.get(uid)}
