"""Pairs and verl's advantage estimators, all that it registers: ordinary rows keep theirs, or the estimator is refused.

Advantages come from ``_compute_advantage`` of verl's V1 trainer; in place of TransferQueue stands a table of the rows.
"""

from __future__ import annotations

import functools
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from job_factory import compose_job
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, compute_value_loss, get_kl_controller
from verl.trainer.ppo.v1 import trainer_base
from verl.utils import tensordict_utils as tu

from contextrl_verl.grpo.limits import ESTIMATORS

N, GROUPS, PAIRS = 4, 5, 6
SHOWN = [name for name, reason in ESTIMATORS.items() if reason is None]
# What fails after the first rollout, and how; those after the first fail without pairs too.
FAILS = {
    "grpo_passk": (ValueError, "at least 2 samples per group"),
    "remax": (TypeError, "reward_baselines"),
    "gdpo": (KeyError, "prompts"),
    "optimal_token_baseline": (AssertionError, "sum_pi_squared"),
    "tir_optimal_token_baseline": (AssertionError, "sum_pi_squared"),
}
ADAPTIVE = ("use_kl_in_reward=True", "kl_ctrl.type=adaptive", "kl_ctrl.horizon=100")
FIXED = ("use_kl_in_reward=True", "kl_ctrl.kl_coef=0.3")
# Keys of the block `algorithm`.
VARIANTS: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "not divided by the deviation": ("norm_adv_by_std_in_grpo=False",),
    "KL in the reward": FIXED,
    "weights of tokens": ("rollout_correction.rollout_is=token", "rollout_correction.rollout_is_batch_normalize=True"),
    "weights of rows": ("rollout_correction.rollout_is=sequence", "rollout_correction.rollout_is_batch_normalize=True"),
    "tokens rejected": ("rollout_correction.rollout_rs=token_k1", "rollout_correction.rollout_rs_threshold=0.6_1.7"),
    "rows rejected": ("rollout_correction.rollout_rs=seq_mean_k3", "rollout_correction.rollout_rs_threshold=0.12"),
}


def make_row(uid: str, number: int, length: int, reward: float, mask: int, g: torch.Generator) -> dict[str, Any]:
    """All that an estimator may ask for; what the trainer does not hand on is not there for it."""

    def draw() -> torch.Tensor:
        return -torch.rand(length, generator=g)

    return {
        "key": f"{uid}_{number}_0",
        "uid": uid,
        "prompts": torch.ones(3, dtype=torch.int64),
        "response_mask": torch.full((length,), mask),
        "rm_scores": torch.tensor([0.0] * (length - 1) + [reward]),
        "rollout_log_probs": draw() if mask else torch.zeros(length),
        "reward_baselines": torch.zeros(1),
        **{name: draw() for name in ("old_log_probs", "ref_log_prob", "values", "sum_pi_squared")},
    }


def make_rows() -> tuple[list[dict], list[dict]]:
    """Ordinary rows, a group of them with equal rewards; and pairs, as their agent loop makes them."""
    g = torch.Generator().manual_seed(0)
    rows = []
    for group in range(GROUPS):
        for number in range(N):
            reward = 1.0 if group == 0 else float(torch.randint(0, 3, (), generator=g)) / 2
            rows.append(make_row(f"rl{group}", number, 2 + (group + 3 * number) % 6, reward, 1, g))
    return rows, [make_row(f"pair{number}", 0, 1, 0.0, 0, g) for number in range(PAIRS)]


def with_pairs(where: str) -> list[dict]:
    rows, pairs = make_rows()
    if where == "first":
        return pairs + rows
    if where == "last":
        return rows + pairs
    mixed: list[dict] = []  # inside groups
    for number, row in enumerate(rows):
        mixed += [row, *pairs[number // 3 : number // 3 + 1]] if number % 3 == 0 else [row]
    return mixed


class Rows:
    """The part of TransferQueue that the trainer's method asks."""

    def __init__(self, rows: list[dict]) -> None:
        self.rows, self.put = rows, {}

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> TensorDict:
        assert keys == [row["key"] for row in self.rows]
        jagged = {
            name: torch.nested.as_nested_tensor([row[name] for row in self.rows], layout=torch.jagged)
            for name in select_fields
            if name != "uid"
        }
        data = TensorDict(jagged, batch_size=len(keys))
        tu.assign_non_tensor_stack(data, "uid", [row["uid"] for row in self.rows])
        return data

    def kv_batch_put(self, keys: list[str], partition_id: str, fields: TensorDict) -> None:
        self.put = {name: dict(zip(keys, fields[name].unbind(), strict=True)) for name in fields.keys()}


@functools.lru_cache
def job() -> DictConfig:
    return compose_job(f"actor_rollout_ref.rollout.n={N}", "algorithm.gamma=0.9")


def train(rows: list[dict], estimator: str, *overrides: str) -> SimpleNamespace:
    """What verl's trainer puts back for these rows, by field and key; and its KL coefficient afterwards."""
    algorithm = OmegaConf.merge(job().algorithm, OmegaConf.from_dotlist([f"adv_estimator={estimator}", *overrides]))
    OmegaConf.update(algorithm, "gdpo_reward_keys", ["score"], force_add=True)
    config = SimpleNamespace(algorithm=algorithm, actor_rollout_ref=job().actor_rollout_ref)
    trainer = SimpleNamespace(config=config, kl_ctrl_in_reward=get_kl_controller(algorithm.kl_ctrl))
    queue = Rows(rows)
    batch = KVBatchMeta(keys=[row["key"] for row in rows], tags=[{}] * len(rows), partition_id="train")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_base, "tq", queue)
        trainer_base.PPOTrainer._compute_advantage(trainer, batch, {})
    return SimpleNamespace(put=queue.put, kl_coef=trainer.kl_ctrl_in_reward.value)


def difference(found: SimpleNamespace, expected: SimpleNamespace) -> float:
    """Largest in the expected rows' advantages and returns, and in masks, weights and rewards that verl corrects."""
    return max(
        (found.put[name][key].float() - value.float()).abs().max().item()
        for name, rows in expected.put.items()
        for key, value in rows.items()
    )


@pytest.fixture(scope="module")
def alone():
    """Without pairs, computed once for each estimator and variant."""
    done: dict[tuple[str, ...], SimpleNamespace] = {}

    def get(*case: str) -> SimpleNamespace:
        if case not in done:
            done[case] = train(make_rows()[0], *case)
        return done[case]

    return get


def test_every_estimator_of_verl_is_shown_or_refused():
    assert set(ADV_ESTIMATOR_REGISTRY) == set(ESTIMATORS), "decide what pairs do to the new ones"
    assert {*FAILS, "gae", "gpg"} == set(ESTIMATORS) - set(SHOWN)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", SHOWN)
def test_pairs_leave_ordinary_rows_their_advantages(name, variant, alone):
    expected = alone(name, *VARIANTS[variant])
    assert sum(value.abs().sum() for value in expected.put["advantages"].values()) > 1
    for where in ("first", "inside", "last"):
        found = train(with_pairs(where), name, *VARIANTS[variant])
        assert set(found.put) == set(expected.put) >= {"advantages", "returns", "response_mask"}
        assert difference(found, expected) <= 1e-6, where
        for pair in make_rows()[1]:
            put = {field: rows[pair["key"]] for field, rows in found.put.items()}
            assert all(torch.isfinite(value).all() for value in put.values())
            assert not put["response_mask"].any()
            assert not (put["advantages"] * put["response_mask"]).any()


@pytest.mark.parametrize("variant", list(VARIANTS)[1:])
def test_every_variant_changes_something(variant, alone):
    """Else its comparison would show nothing."""
    changed, plain = alone("grpo", *VARIANTS[variant]), alone("grpo")
    assert "rollout_is_weights" in changed.put or difference(changed, plain) > 0.01


@pytest.mark.parametrize("name", FAILS)
def test_what_is_refused_for_its_failure_fails(name):
    error, said = FAILS[name]
    with pytest.raises(error, match=said):
        train(with_pairs("last"), name)
    with nullcontext() if name == "grpo_passk" else pytest.raises(error, match=said):
        train(make_rows()[0], name)


def test_pairs_would_make_gpgs_advantages_grow(alone):
    expected, found = alone("gpg"), train(with_pairs("last"), "gpg")
    for key, value in expected.put["advantages"].items():
        torch.testing.assert_close(found.put["advantages"][key], value * (GROUPS * N + PAIRS) / (GROUPS * N))


def test_the_loss_of_a_critic_on_pairs_alone_is_no_number():
    values, mask = torch.rand(2, 1), torch.zeros(2, 1)
    loss, _ = compute_value_loss(
        values, values, values, mask, 0.5, "token-mean", dp_size=1, batch_num_tokens=0, global_batch_size=2
    )
    assert torch.isnan(loss), "gae need not be refused for a mini-batch of pairs"


def test_pairs_would_change_an_adaptive_kl_coefficient(alone):
    found = train(with_pairs("last"), "grpo", *ADAPTIVE)
    assert abs(found.kl_coef / alone("grpo", *ADAPTIVE).kl_coef - 1) > 1e-3
    assert train(with_pairs("last"), "grpo", *FIXED).kl_coef == alone("grpo", *FIXED).kl_coef == 0.3
