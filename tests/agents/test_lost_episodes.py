"""Batches whose rows are not all there: verl's worker, buffer and advantages on a real TransferQueue."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
import transfer_queue as tq
from episode_factory import DONE, FIX, FolderSandbox, make_task, says, tokenizer_of
from job_factory import agent_row, buffer_of, compose_job
from tensordict import TensorDict
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage
from verl.trainer.ppo.padding_utils import upsample_batch_to_divisible_size
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.rl_dataset import get_dataset_class
from verl.workers.rollout.replica import TokenOutput

import contextrl_verl.grpo.register  # noqa: F401
from contextrl_verl.agents import episode as episode_module
from contextrl_verl.agents.ending import Ending
from contextrl_verl.agents.task import AGENT_NAME
from contextrl_verl.agents.verify import Reason, Verdict
from contextrl_verl.grpo import swe_agent_loop
from contextrl_verl.grpo.batch_column import COLUMN, ordinary_row
from contextrl_verl.grpo.episode_notes import NOTES, lost_note
from contextrl_verl.grpo.loop_workers import WatchedLoopManager

TRAIN = "train"


@pytest.fixture(scope="module")
def queue():
    """Ray and TransferQueue as verl starts them."""
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    conf = compose_job().transfer_queue
    conf.enable, conf.backend.SimpleStorage.num_data_storage_units = True, 1
    tq.init(conf)
    yield
    tq.close()
    ray.shutdown()


@pytest.fixture(autouse=True)
def clean(queue):
    yield
    WatchedLoopManager.active = None
    for partition, items in (tq.kv_list() or {}).items():
        if items:
            tq.kv_clear(keys=list(items), partition_id=partition)


def config_of(*overrides: str) -> Any:
    return compose_job(
        "actor_rollout_ref.rollout.n=8",
        "actor_rollout_ref.rollout.prompt_length=4000",
        "actor_rollout_ref.rollout.response_length=6000",
        "actor_rollout_ref.model.path=not-needed-here",
        "data.train_files=[train.parquet]",
        "data.val_files=[val.parquet]",
        *overrides,
    )


def quick_buffer(config: Any) -> Any:
    return buffer_of(config, poll_interval=0.1)


def put_prompts(*uids: str, status: str = "pending", partition: str = TRAIN) -> None:
    tags = [{"is_prompt": True, "status": status, "global_steps": 1}] * len(uids)
    tq.kv_batch_put(keys=list(uids), partition_id=partition, tags=tags)


def put_rows(uid: str, *sessions: int) -> None:
    """Rows of a finished group, as far as a buffer looks at them."""
    put_prompts(uid, status="finished")
    if sessions:
        fields = TensorDict({"rm_scores": torch.ones(len(sessions), 1)}, batch_size=len(sessions))
        keys = [f"{uid}_{session}_0" for session in sessions]
        tq.kv_batch_put(keys=keys, partition_id=TRAIN, fields=fields, tags=[{"seq_len": 1}] * len(sessions))


def put_notes(uid: str, kept: int, lost: int, ending: Ending = Ending.SANDBOX) -> None:
    note = lost_note(ending, "no space left")
    notes = [{**note, "kept": True, "ending": "submitted", "resolved": 1.0}] * kept + [note] * lost
    keys = [f"{uid}_{session}" for session in range(kept + lost)]
    tq.kv_batch_put(keys=keys, partition_id=NOTES, tags=notes)


class Siblings:
    """One server of eight episodes: each edits and submits, and one meets a server that fails."""

    def __init__(self, tokenizer: Any, failing: int) -> None:
        self.tokenizer, self.failing, self.turns = tokenizer, failing, {}

    async def generate(self, *, request_id: str, prompt_ids: list[int], sampling_params: dict[str, Any]) -> TokenOutput:
        turn = self.turns[request_id] = self.turns.get(request_id, -1) + 1
        if turn == 1 and list(self.turns).index(request_id) == self.failing:
            raise RuntimeError("the server died")
        ids = self.tokenizer([says(FIX), says(DONE)][turn], add_special_tokens=False)["input_ids"]
        ids.append(self.tokenizer.eos_token_id)
        version = {"global_steps": 0, "min_global_steps": 0, "max_global_steps": 0}
        return TokenOutput(token_ids=ids, log_probs=[-0.5] * len(ids), extra_fields=version)


def worker_of(config: Any, tokenizer: Any, server: Any) -> Any:
    """verl's worker in this process."""
    worker = object.__new__(AgentLoopWorkerTQ.__ray_metadata__.modified_class)
    vars(worker).update(
        config=config,
        rollout_config=config.actor_rollout_ref.rollout,
        llm_client=server,
        tokenizer=tokenizer,
        processor=None,
        hf_model_type="qwen2",
        dataset_cls=get_dataset_class(config.data),
        tools=[],
        reward_loop_worker_handles=None,
        distillation_enabled=False,
        mm_processor_kwargs={},
    )
    return worker


def test_one_lost_episode_among_eight_leaves_the_advantages_of_the_other_seven(tmp_path, monkeypatch):
    rewards = iter([1, 0, 1, 1, 0, 0, 1])
    monkeypatch.setattr(swe_agent_loop, "open_sandbox", lambda rung, limits: FolderSandbox(tmp_path))
    monkeypatch.setattr(
        episode_module, "verify", lambda *given: Verdict(bool(won := next(rewards)), list(Reason)[0 if won else 7])
    )
    swe_agent_loop._shop.cache_clear()
    config, tokenizer = config_of("algorithm.rollout_correction=null"), tokenizer_of("qwen2.5")
    buffer = quick_buffer(config)
    row = agent_row(make_task(tmp_path), 0)
    prompt = {**row, "raw_prompt": row["prompt"], "uid": "group", "global_steps": 1, COLUMN: ordinary_row(2)}
    put_prompts("group")
    worker = worker_of(config, tokenizer, Siblings(tokenizer, failing=3))
    trajectory = {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False}
    asyncio.run(worker._run_prompt({**prompt, "__rollout_n__": 8}, {"logprobs": True}, trajectory))

    batch, metrics = buffer.sample(1, TRAIN, 1)
    assert len(batch.keys) == 7
    assert metrics["contextrl/agent/episodes"] == 8
    assert metrics["contextrl/agent/infrastructure"] == metrics["contextrl/agent/infrastructure/server"] == 1
    assert metrics["contextrl/agent/resolved"] == pytest.approx(4 / 7)
    assert metrics["contextrl/agent/endings/submitted"] == 1
    assert metrics["contextrl/agent/turns"] == 2
    assert not (tq.kv_list() or {}).get(NOTES)

    batch = upsample_batch_to_divisible_size(batch, 8, tokenizer.eos_token_id)
    assert len(batch.keys) == 8
    batch = PPOTrainer._compute_advantage(SimpleNamespace(config=config), batch, {})
    data = tq.kv_batch_get(
        keys=batch.keys, partition_id=TRAIN, select_fields=["advantages", "rm_scores", "response_mask"]
    )
    scores = torch.tensor([row.sum() for row in data["rm_scores"].unbind()])
    assert sorted(scores[:7].tolist()) == [0, 0, 0, 1, 1, 1, 1]
    expected, _ = compute_grpo_outcome_advantage(scores[:7, None], torch.ones(7, 1), ["group"] * 7)
    for advantages, mask, wanted in zip(
        data["advantages"].unbind()[:7], data["response_mask"].unbind()[:7], expected[:, 0], strict=True
    ):
        assert torch.equal(advantages, wanted * mask)
    assert not data["advantages"].unbind()[7].any(), "verl's filling row"


def test_above_the_share_the_job_stops_with_the_reason():
    put_rows("a", 0, 1, 2, 3, 4)
    put_notes("a", kept=5, lost=3)
    with pytest.raises(
        RuntimeError, match=r"3 of 8 episodes .*sandbox 3.*no space left.*max_infrastructure_share=0.25"
    ):
        quick_buffer(config_of()).sample(1, TRAIN, 1)


def test_when_nothing_is_left_the_reason_is_the_infrastructures():
    put_rows("a")
    put_notes("a", kept=0, lost=8)
    with pytest.raises(RuntimeError, match="8 of 8 episodes"):
        quick_buffer(config_of()).sample(1, TRAIN, 1)


def test_below_the_share_the_step_goes_on_without_an_empty_group():
    put_rows("a")
    put_rows("b", *range(8))
    put_notes("a", kept=0, lost=8)
    put_notes("b", kept=8, lost=0)
    buffer = quick_buffer(config_of("contextrl.agent.max_infrastructure_share=0.5", "data.train_batch_size=2"))
    batch, metrics = buffer.sample(1, TRAIN, 2)
    assert sorted(batch.keys) == [f"b_{session}_0" for session in range(8)]
    assert metrics["contextrl/agent/infrastructure"] == 8


def test_dapo_takes_an_empty_group_for_a_failed_one():
    put_rows("a")
    buffer = quick_buffer(config_of("algorithm.filter_groups.enable=true", "algorithm.filter_groups.metric=reward"))
    buffer._sync_metadata_from_transfer_queue()
    assert buffer._dapo_filtered_keys(TRAIN) == (set(), {})
    assert buffer.failure_keys[TRAIN] == {"a"}


def test_the_last_row_of_a_group_is_left_out_for_it_has_nothing_to_compare_with():
    put_rows("a", 4)
    put_rows("b", 0, 1)
    put_rows("single", 0)
    for uid, kept, lost in (("a", 1, 7), ("b", 2, 6), ("single", 1, 0)):
        put_notes(uid, kept, lost)
    buffer = quick_buffer(config_of("contextrl.agent.max_infrastructure_share=1", "data.train_batch_size=3"))
    batch, _ = buffer.sample(1, TRAIN, 3)
    assert sorted(batch.keys) == ["b_0_0", "b_1_0", "single_0_0"]
    assert "a_4_0" not in tq.kv_list(TRAIN)[TRAIN]


def test_a_job_without_agents_has_no_such_metrics():
    put_rows("a", 0, 1)
    assert quick_buffer(config_of()).sample(1, TRAIN, 1)[1] == {}


@ray.remote
class Stub:
    """A worker that takes prompts and does nothing with them."""

    def __init__(self, *given: Any) -> None:
        self.got: list[str] = []

    async def generate_sequences(self, batch: Any) -> None:
        self.got += list(batch["uid"])

    async def told(self) -> tuple[int, list[str]]:
        return os.getpid(), self.got


@pytest.fixture
def manager():
    made = WatchedLoopManager(config_of("actor_rollout_ref.rollout.agent.num_workers=2"), None)
    made.agent_loop_workers_class = Stub
    asyncio.run(made._init_agent_loop_workers())
    return made


def send(manager: Any, **agents: str) -> None:
    """Register prompts and hand them out: each by its uid and its loop."""
    put_prompts(*agents)
    batch = tu.get_tensordict(
        {"uid": list(agents), "agent_name": list(agents.values()), "__rollout_n__": [2] * len(agents)}
    )
    manager.generate_sequences(batch)


def until(true: Any) -> None:
    ends = time.monotonic() + 60
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_a_killed_worker_is_noticed_its_groups_fail_and_another_takes_its_place(manager, capsys):
    buffer = quick_buffer(config_of("contextrl.agent.max_infrastructure_share=0.5", "data.train_batch_size=4"))
    send(manager, a=AGENT_NAME, b="single_turn_agent", c=AGENT_NAME, d=AGENT_NAME)
    (first, got), (_, others) = ray.get([worker.told.remote() for worker in manager.agent_loop_workers])
    assert (got, others) == (["a", "b"], ["c", "d"])
    put_notes("a", kept=1, lost=0)
    until(lambda: buffer._sync_metadata_from_transfer_queue() or len(manager._seen) == 2)
    assert buffer.pending_keys[TRAIN] == {"a", "b", "c", "d"}
    os.kill(first, signal.SIGKILL)
    until(lambda: buffer._sync_metadata_from_transfer_queue() or buffer.failure_keys[TRAIN])
    assert buffer.failure_keys[TRAIN] == {"a", "b"}
    assert buffer.pending_keys[TRAIN] == {"c", "d"}
    # One of its two episodes had left its note before.
    assert {key: note["ending"] for key, note in buffer.partitions[NOTES].items()} == {
        "a_0": "submitted",
        "a_1": "worker",
    }
    assert "agent loop worker 0 died" in capsys.readouterr().out
    send(manager, e=AGENT_NAME, f=AGENT_NAME)
    (second, got), _ = ray.get([worker.told.remote() for worker in manager.agent_loop_workers])
    assert second != first
    assert got == ["e"]
    for uid in "cd":
        put_rows(uid, 0, 1)
        put_notes(uid, kept=2, lost=0)
    batch, metrics = buffer.sample(1, TRAIN, 4)
    assert len(batch.keys) == 4
    assert metrics["contextrl/agent/infrastructure/worker"] == 1


def test_a_worker_that_dies_with_nothing_to_do_costs_no_group(manager):
    buffer = quick_buffer(config_of())
    until(lambda: buffer._sync_metadata_from_transfer_queue() or len(manager._seen) == 2)
    first, _ = ray.get(manager.agent_loop_workers[0].told.remote())
    os.kill(first, signal.SIGKILL)
    time.sleep(2)
    send(manager, a=AGENT_NAME, b=AGENT_NAME)
    (second, got), (_, others) = ray.get([worker.told.remote() for worker in manager.agent_loop_workers])
    assert second != first
    assert (got, others) == (["a"], ["b"])
    buffer._sync_metadata_from_transfer_queue()
    assert not buffer.failure_keys[TRAIN]


def test_a_worker_that_died_before_it_did_anything_stops_the_job(manager):
    @ray.remote
    class Broken(Stub.__ray_metadata__.modified_class):
        def __init__(self, *given: Any) -> None:
            raise ValueError("no such model")

    manager.agent_loop_workers[1] = Broken.remote()
    send(manager, a=AGENT_NAME, b=AGENT_NAME)
    with pytest.raises(RuntimeError, match=r"worker 1 died .*before it did anything"):
        until(lambda: quick_buffer(config_of())._sync_metadata_from_transfer_queue())
