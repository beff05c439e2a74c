"""What the joint loss refuses: the same in the check before Ray, in the engine and in docs/configuration.md."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from job_factory import compose_job
from transformers import Gemma2Config, GraniteConfig, Qwen2_5_VLConfig, Qwen2Config

from contextrl_verl.errors import ConfigError
from contextrl_verl.grpo.fused_head import LOGIT_FIELDS, check_fused_kernels
from contextrl_verl.grpo.limits import REFUSED, REGISTRIES, check_joint_loss, check_model
from contextrl_verl.settings import RunView, parse_settings

OURS = {"model_type": "contextrl_language_model"}
run_of = RunView.model_construct  # unchecked: values that no yaml can hold are tried too
NAMED = [(key, name, value, reason) for key, name, known in REGISTRIES for value, reason in known.items()]


@pytest.fixture(scope="module")
def table(repository):
    """Rows of the table in docs/configuration.md: the first cell, the verdict, the rest."""
    text = (repository / "docs" / "configuration.md").read_text().split("## With the joint loss")[1]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ") and "`" in line]
    return [[cell.strip() for cell in cells] for cells in rows]


def test_the_table_and_the_check_before_ray_refuse_the_same_keys(table):
    told = {re.findall(r"`([^`]+)`", cells[0])[0] for cells in table if cells[1] == "refused"}
    kernels = {"final_logit_softcapping", "actor_rollout_ref.model.target_modules"}
    told = {key for key in told if key not in kernels}
    named = {f"{key}={value}" for key, _, value, reason in NAMED if reason is not None}
    assert told == {key for key, _, _ in REFUSED} | named | {"algorithm.kl_ctrl.type=adaptive"}


def test_the_table_names_every_field_that_fused_kernels_leave_out(table):
    row = next(cells for cells in table if "the model's config has" in cells[0])
    assert set(re.findall(r"`([^`]+)`", row[0])) == set(LOGIT_FIELDS)


@pytest.mark.parametrize(("key", "known"), [(key, known) for key, _, known in REGISTRIES])
def test_the_table_names_every_loss_and_estimator_that_was_compared(table, key, known):
    row = next(cells for cells in table if cells[0] == f"`{key}`")
    assert set(re.findall(r"`([^`]+)`", row[2])) == {value for value, reason in known.items() if reason is None}


@pytest.mark.parametrize(("key", "name", "good"), REFUSED, ids=[key for key, _, _ in REFUSED])
def test_every_refused_value_names_its_key_and_a_fix_that_is_taken(key, name, good):
    with pytest.raises(ConfigError, match="which context awareness does not support") as refused:
        check_joint_loss(run_of(**{name: "something else", **OURS}))
    assert str(refused.value).startswith(f"{key} is 'something else'")
    assert f"Fix: {key}=" in str(refused.value)
    for value in good:
        check_joint_loss(run_of(**{name: value, **OURS}))


def test_another_engine_and_none_are_refused():
    for run in ({}, {"model_type": None}, {"model_type": "language_model"}):
        with pytest.raises(ConfigError, match=r"model\.model_type is .* Fix: .*model_type=contextrl_language_model"):
            check_joint_loss(run_of(**run))


@pytest.mark.parametrize(
    ("key", "name", "value", "reason"), NAMED, ids=[f"{name} {value}" for _, name, value, _ in NAMED]
)
def test_losses_and_estimators_that_pairs_distort_are_refused_by_name(key, name, value, reason, capsys):
    if reason is None:
        check_joint_loss(run_of(**{name: value, **OURS}))
        assert capsys.readouterr().out == ""
        return
    with pytest.raises(ConfigError) as refused:
        check_joint_loss(run_of(**{name: value, **OURS}))
    told, fix = str(refused.value).split(" Fix: ")
    assert told == f"{key} is {value!r}: {reason}."
    assert "\n" not in fix
    check_joint_loss(run_of(**{name: re.match(rf"{re.escape(key)}=(\w+)", fix)[1], **OURS}))


@pytest.mark.parametrize(("key", "name"), [(key, name) for key, name, _ in REGISTRIES])
def test_of_a_loss_or_estimator_of_the_users_own_one_sentence_is_said(key, name, capsys):
    check_joint_loss(run_of(**{name: "mine", **OURS}))
    assert capsys.readouterr().out.startswith(f"contextrl: {key}=mine is not one of verl 0.9.1's own")


def test_an_adaptive_kl_coefficient_is_refused_where_verl_uses_it():
    adaptive = {"kl_ctrl": "adaptive", **OURS}
    check_joint_loss(run_of(**adaptive))
    check_joint_loss(run_of(**{"use_kl_in_reward": True, "kl_ctrl": "fixed", **OURS}))
    with pytest.raises(
        ConfigError, match=r"^algorithm\.kl_ctrl\.type is 'adaptive'.* Fix: algorithm\.kl_ctrl\.type=fixed"
    ):
        check_joint_loss(run_of(use_kl_in_reward=True, **adaptive))


@pytest.mark.parametrize(
    "overrides",
    [
        ("algorithm.adv_estimator=gpg",),
        ("actor_rollout_ref.actor.policy_loss.loss_mode=geo_mean",),
        ("algorithm.use_kl_in_reward=True", "algorithm.kl_ctrl.type=adaptive"),
    ],
)
def test_the_jobs_own_keys_reach_the_check(overrides):
    with pytest.raises(ConfigError, match=re.escape(overrides[-1].split("=")[0])):
        check_joint_loss(parse_settings(compose_job(*overrides).contextrl).run)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (Gemma2Config(), "final_logit_softcapping=30.0"),
        (GraniteConfig(logits_scaling=8.0), "logits_scaling=8.0"),
        (Qwen2Config(), None),
        (GraniteConfig(), None),
        (Qwen2_5_VLConfig(), None),
    ],
)
def test_models_whose_logits_fused_kernels_change_are_refused(config, said):
    run = RunView(use_fused_kernels=True)
    if said is None:
        check_model(run, config)
        return
    with pytest.raises(ConfigError, match=re.escape(said)):
        check_model(run, config)
    check_model(RunView(), config)  # without fused kernels the model's own forward pass is used


def test_adapters_of_the_head_are_refused_however_they_are_named():
    def check(rank: int, targets: str | list[str], used: bool = True) -> None:
        model = SimpleNamespace(use_fused_kernels=used, lora_rank=rank, target_modules=targets)
        check_fused_kernels(model, Qwen2Config())

    for targets in ("lm_head", ["q_proj", "lm_head"], ["model.lm_head"]):
        with pytest.raises(ConfigError, match="lm_head"):
            check(8, targets)
    check(0, ["lm_head"])
    check(8, ["lm_head"], used=False)
    # peft's "all-linear" leaves the output head out.
    check(8, "all-linear")
