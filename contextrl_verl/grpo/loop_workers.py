"""Agent loop workers that die are noticed, and replaced.

verl hands prompts to a worker and then waits for their rows, for ever if the worker's process was killed (verl issue
7155). :class:`WatchedLoopManager` remembers which prompts each worker has. The replay buffer, which waits in the same
process, asks it at every poll (:func:`mark_dead`): the unfinished groups of a dead worker become failed ones, of which
verl trains the rows that are there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, ClassVar, NamedTuple
from uuid import uuid4

import ray
import transfer_queue as tq
from ray.exceptions import RayActorError
from verl.trainer.ppo.v1 import AgentLoopManagerTQ

from contextrl_verl.agents.ending import Ending
from contextrl_verl.agents.task import AGENT_NAME
from contextrl_verl.errors import told_by
from contextrl_verl.grpo.episode_notes import NOTES, lost_note

# Seconds in which a worker with nothing to do has answered.
_IDLE = 5.0


class _Sent(NamedTuple):
    worker: Any
    agent: str  # the loop that the prompt names
    samples: int


class WatchedLoopManager(AgentLoopManagerTQ):
    """``actor_rollout_ref.rollout.agent.agent_loop_manager_class`` of a ContextRL job."""

    active: ClassVar[WatchedLoopManager | None] = None  # of this process

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sent: dict[str, _Sent] = {}
        self._pings: dict[Any, Any] = {}  # worker: what it has not answered yet
        self._seen: set[Any] = set()  # workers that answered once
        WatchedLoopManager.active = self

    def generate_sequences(self, prompts: Any) -> None:
        """verl's, to workers that live; one that dies now is found at the buffer's next poll."""
        self._replace_dead()  # takes in answers that were given a while ago
        self._replace_dead(_IDLE)
        usual = self.rollout_config.val_kwargs.n if "validate" in prompts else self.rollout_config.n
        for worker, chunk in zip(self.agent_loop_workers, prompts.chunk(len(self.agent_loop_workers)), strict=False):
            uids = list(chunk["uid"])
            agents = list(chunk["agent_name"]) if "agent_name" in chunk else [""] * len(uids)
            samples = list(chunk["__rollout_n__"]) if "__rollout_n__" in chunk else [usual] * len(uids)
            for uid, agent, count in zip(uids, agents, samples, strict=True):
                self._sent[uid] = _Sent(worker, agent, int(count))
        with suppress(RayActorError):
            super().generate_sequences(prompts)

    def mark_dead(self, unfinished: Mapping[str, Collection[str]], noted: Collection[str]) -> bool:
        """Replace workers that died, and mark their groups as failed. Whether there were any groups.

        Args:
            unfinished: uids of pending and running prompts, by partition.
            noted: keys of the episodes that left their note.

        Raises:
            RuntimeError: a worker died before it ever answered, which another one would do too.
        """
        self._replace_dead()
        waiting = {uid: partition for partition, uids in unfinished.items() for uid in uids}
        self._sent = {uid: sent for uid, sent in self._sent.items() if uid in waiting}
        lost = {uid: sent for uid, sent in self._sent.items() if sent.worker not in self.agent_loop_workers}
        for uid, sent in lost.items():
            tq.kv_put(key=uid, partition_id=waiting[uid], tag={"status": "failure"})
            del self._sent[uid]
            episodes = [f"{uid}_{session}" for session in range(sent.samples)] if sent.agent == AGENT_NAME else []
            if keys := [key for key in episodes if key not in noted]:
                tags = [lost_note(Ending.WORKER, "the agent loop worker died")] * len(keys)
                tq.kv_batch_put(keys=keys, partition_id=NOTES, tags=tags)
        if lost:
            print(f"contextrl: {len(lost)} unfinished groups of workers that died count as failed", flush=True)
        return bool(lost)

    def _replace_dead(self, seconds: float = 0.0) -> None:
        """Start another worker in the place of each that died; wait so long for an answer of those that worked."""
        workers = self.agent_loop_workers
        for worker in workers:
            self._pings[worker] = self._pings.get(worker) or worker.__ray_ready__.remote()
        asked = [self._pings[worker] for worker in workers if worker in self._seen]
        if seconds and asked:
            ray.wait(asked, num_returns=len(asked), timeout=seconds)
        for at, worker in enumerate(list(workers)):
            if not ray.wait([self._pings[worker]], timeout=0)[0]:
                continue
            try:
                ray.get(self._pings.pop(worker))
                self._seen.add(worker)
            except RayActorError as error:
                told = f"contextrl: agent loop worker {at} died ({told_by(error)})"
                if worker not in self._seen:
                    raise RuntimeError(f"{told} before it did anything. Fix: mend what its log says.") from error
                print(f"{told}; another one takes its place", flush=True)
                # As verl starts them, but on any node.
                workers[at] = self.agent_loop_workers_class.options(
                    name=f"agent_loop_worker_{at}_{uuid4().hex[:8]}"
                ).remote(self.config, self.llm_client, self.teacher_client, self.reward_loop_worker_handles)


def mark_dead(unfinished: Mapping[str, Collection[str]], noted: Collection[str]) -> bool:
    """:meth:`WatchedLoopManager.mark_dead` of this process's manager; False where there is none."""
    return WatchedLoopManager.active is not None and WatchedLoopManager.active.mark_dead(unfinished, noted)
