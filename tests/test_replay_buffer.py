"""Where verl replaces groups of rows a batch still has its number of pairs; elsewhere the buffer is verl's own."""

from __future__ import annotations

import pytest
import transfer_queue as tq
from job_factory import buffer_of, compose_job
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from contextrl_verl.grpo.replay_buffer import TRAIN, PairQuotaBuffer

NOTHING = (set(), set(), set(), {})
DAPO = "algorithm.filter_groups.enable=true"


def made(*overrides: str, **more) -> ReplayBuffer:
    config = compose_job("contextrl.pairs.per_batch=2", "data.train_batch_size=5", *overrides)
    assert config.trainer.v1.sampler.custom_sampler.name == "replay_buffer"
    return buffer_of(config, **more)


def holding(buffer: PairQuotaBuffer, rows: int, pairs: int, running: int = 0) -> PairQuotaBuffer:
    """Finished prompts as the buffer reads them from the queue, older ones with smaller numbers."""
    uids = [f"row{number}" for number in range(rows)] + [f"pair{number}" for number in range(pairs)]
    buffer.finished_keys[TRAIN] = set(uids)
    buffer.running_keys[TRAIN] = {f"running{number}" for number in range(running)}
    buffer.prompt_global_steps[TRAIN] = {uid: int(uid[-1]) for uid in uids}
    buffer.partitions[TRAIN] = {f"{uid}_0_0": {} for uid in uids}
    buffer._is_pair = {uid: uid.startswith("pair") for uid in uids}
    return buffer


def test_without_replacements_it_is_verls_own():
    buffer = made()
    assert (buffer.filter_groups_metric, buffer.sync_refill_failed_groups, buffer.gen_batch_size) == (None, False, 5)
    assert holding(buffer, 9, 1)._sampleable_terminal_keys(TRAIN, NOTHING) == buffer.finished_keys[TRAIN]


def test_an_asynchronous_trainer_gets_verls_asynchronous_buffer():
    buffer = made("trainer.v1.trainer_mode=colocate_async", "contextrl.objective=none", DAPO)
    assert type(buffer) is ReplayBufferAsync
    assert buffer.filter_groups_metric == "reward"


@pytest.mark.parametrize("objective", ["selection_reward", "none"])
def test_with_other_objectives_pairs_are_rows(objective):
    assert made(DAPO, f"contextrl.objective={objective}")._pairs == 0


@pytest.mark.parametrize("key", [DAPO, "trainer.v1.sampler.sync_refill_failed_groups=true"])
def test_a_batch_takes_its_quota_oldest_first_and_discards_rows_beyond_it(key):
    buffer = holding(made(key), 6, 4)
    assert buffer.gen_batch_size == 1
    usable = buffer._sampleable_terminal_keys(TRAIN, NOTHING)
    # All rows, for verl clears those that it does not take; pairs beyond the quota wait.
    assert usable == {f"row{number}" for number in range(6)} | {"pair0", "pair1"}
    assert sorted(buffer._select_prompt_uids(TRAIN, usable, 5)[0]) == ["pair0", "pair1", "row0", "row1", "row2"]


@pytest.mark.parametrize(("rows", "pairs"), [(9, 1), (2, 9), (0, 5)])
def test_too_few_of_one_kind_are_not_made_up_by_the_other(rows, pairs):
    asked = []
    buffer = holding(made(DAPO, refill=asked.append), rows, pairs, running=1)
    assert len(buffer._sampleable_terminal_keys(TRAIN, NOTHING)) < 5
    assert asked == []
    # Nothing on its way: what verl drew in the place of rows were pairs.
    holding(buffer, rows, pairs)._sampleable_terminal_keys(TRAIN, NOTHING)
    assert asked == [max(1, 3 - rows)]


def test_pairs_are_never_filtered():
    buffer = holding(made(DAPO), 0, 3)
    assert buffer._dapo_filtered_keys(TRAIN) == (set(), {})
    assert len(buffer.finished_keys[TRAIN]) == 3


def test_a_batchs_worth_of_pairs_waits_and_the_rest_is_left_out(monkeypatch):
    cleared = []
    monkeypatch.setattr(tq, "kv_clear", lambda keys, partition_id: cleared.extend(keys))
    buffer = holding(made(DAPO), 1, 5)
    assert buffer._set_aside() == {"contextrl/pairs_waiting": 2, "contextrl/pairs_left_out": 3}
    assert buffer.finished_keys[TRAIN] == {"row0", "pair0", "pair1"}
    assert {key for key in cleared if "_" not in key} == {"pair2", "pair3", "pair4"}
