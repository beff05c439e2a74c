"""verl's replay buffer for batches in which rows may be missing: lost episodes, and workers that died."""

from __future__ import annotations

from collections import Counter
from typing import Any

import transfer_queue as tq
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from contextrl_verl.grpo.episode_notes import NOTES, losses_told, step_metrics, too_many_lost
from contextrl_verl.grpo.loop_workers import mark_dead

TRAIN = "train"


class EpisodeBuffer(ReplayBuffer):
    """Counts the episodes of each batch into its metrics, and stops the job where too many were lost."""

    def __init__(self, *, max_infrastructure_share: float = 1.0, **more: Any) -> None:
        super().__init__(**more)
        self._most = max_infrastructure_share
        self._notes: list[dict[str, Any]] = []  # of this batch, of groups that were filtered too

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict]:
        """verl's, with the metrics of the batch's episodes. Raises RuntimeError where too many were lost."""
        self._notes = []
        try:
            batch, metrics = super().sample(global_steps, partition_id, batch_size)
        except RuntimeError:
            # verl's own for a batch without a single row does not know why.
            self._stop_if_too_many(list(self.partitions[NOTES].values()))
            raise
        return batch, metrics | step_metrics(self._notes)

    def _sync_metadata_from_transfer_queue(self) -> None:
        super()._sync_metadata_from_transfer_queue()
        unfinished = {
            name: self.pending_keys[name] | self.running_keys[name] for name in {*self.pending_keys, *self.running_keys}
        }
        if mark_dead(unfinished, self.partitions[NOTES]):
            super()._sync_metadata_from_transfer_queue()
        # A group that lost all its rows has no metric to be filtered by, and verl calls such a group failed.
        for name, finished in self.finished_keys.items():
            empty = finished - set(map(_uid, self.partitions[name]))
            finished -= empty
            self.failure_keys[name] |= empty

    def _clear_groups(self, partition_id: str, uids: set[str]) -> None:
        super()._clear_groups(partition_id, uids)
        self._take_notes(uids)

    def _materialize_batch(self, partition_id: str, selected_prompt_uids: list[str], partition_snapshot: dict) -> Any:
        counted = self._take_notes(set(selected_prompt_uids))
        told = losses_told(self._notes)
        if told:
            print(f"contextrl: {told}", flush=True)
        self._stop_if_too_many(self._notes)
        if partition_id == TRAIN:
            partition_snapshot = self._without_lone_rows(partition_snapshot, counted)
        return super()._materialize_batch(partition_id, selected_prompt_uids, partition_snapshot)

    def _stop_if_too_many(self, notes: list[dict[str, Any]]) -> None:
        if told := too_many_lost(notes, self._most):
            raise RuntimeError(told)

    def _take_notes(self, uids: set[str]) -> Counter[str]:
        """Move the notes of these groups here; how many each group left."""
        keys = [key for key in self.partitions[NOTES] if _uid(key) in uids]
        if keys:
            tq.kv_clear(keys=keys, partition_id=NOTES)
        self._notes += [self.partitions[NOTES].pop(key) for key in keys]
        return Counter(map(_uid, keys))

    def _without_lone_rows(self, snapshot: dict[str, dict], episodes: Counter[str]) -> dict[str, dict]:
        """Leave out rows whose siblings were all lost: verl would take such a row's reward for its advantage."""
        rows = Counter(map(_uid, snapshot))
        lone = [key for key in snapshot if rows[_uid(key)] == 1 < episodes[_uid(key)]]
        if not lone or len(lone) == len(snapshot):
            return snapshot
        tq.kv_clear(keys=lone, partition_id=TRAIN)
        print(f"contextrl: {len(lone)} rows are left out, each the last of its group.", flush=True)
        return {key: tag for key, tag in snapshot.items() if key not in set(lone)}


def _uid(key: str) -> str:
    return key.split("_")[0]
