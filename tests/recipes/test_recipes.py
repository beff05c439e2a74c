"""Every recipe composes for every arm; the arms differ in what they must; mistakes are one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from recipe_scripts import FILES, MODELS, RECIPES, tell, told

from contextrl_verl.arms import ARMS, StepSize, arm_keys

TEXT = RECIPES / "text" / "run_qwen2_5_1_5b_fsdp.sh"
NAMES = [script.stem for script in MODELS]
# One of text and one of images; the others share their yaml.
REHEARSED = ("run_qwen2_5_1_5b_fsdp", "run_qwen3_vl_8b_fsdp")
rehearsed = pytest.mark.parametrize(
    "script",
    [
        pytest.param(script, id=script.stem, marks=() if script.stem in REHEARSED else pytest.mark.slow)
        for script in MODELS
    ],
)
ARM_KEYS = tuple(arm_keys("contextrl", StepSize(8, 2, 2)))
# arXiv 2606.17053; lambda, learning rate, KL, clip low and high, dual clip, n, items a step, prompt, response.
PAPER = {
    "run_qwen3_8b_fsdp": (0.001, 2e-6, 1e-3, 0.2, 0.28, 10.0, 8, 16, 32768, 4096),
    "run_klear_agentforge_8b_fsdp": (0.005, 2e-6, 1e-3, 0.2, 0.28, 10.0, 8, 16, 32768, 4096),
    "run_qwen2_5_vl_7b_fsdp": (0.005, 1e-6, 1e-2, 0.2, 0.3, 3.0, 8, 256, 16384, 4096),
    "run_qwen3_vl_8b_fsdp": (0.001, 1e-6, 1e-2, 0.2, 0.3, 3.0, 8, 256, 16384, 4096),
    "run_qwen2_5_1_5b_fsdp": (0.005, 2e-6, 1e-3, 0.2, 0.28, 10.0, 8, 64, 8192, 1024),
}


def composed(arguments: list[str]):
    name, overrides = arguments[1].partition("=")[2], arguments[2:]
    assert arguments[0] == "--config-path=pkg://contextrl_verl.config"
    with initialize_config_module("contextrl_verl.config", version_base=None):
        return compose(config_name=name, overrides=overrides)


def test_every_script_is_clean():
    command = Path(sys.executable).with_name("shellcheck")
    scripts = [*MODELS, RECIPES / "common.sh", RECIPES / "quickstart" / "train.sh"]
    assert len(scripts) == 7
    found = subprocess.run([str(command), "-x", *map(str, scripts)], cwd=RECIPES.parent, capture_output=True, text=True)
    assert (found.stdout, found.returncode) == ("", 0)


@pytest.mark.parametrize("script", MODELS, ids=NAMES)
def test_the_papers_values_reach_the_trainer(script, tmp_path):
    run = tell(script, tmp_path, "trainer.save_freq=7", **FILES)
    assert run.returncode == 0, run.stderr
    config = composed(told(tmp_path))
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert PAPER[script.stem] == (
        config.contextrl.loss.coef, actor.optim.lr, actor.kl_loss_coef, actor.clip_ratio_low, actor.clip_ratio_high,
        actor.clip_ratio_c, rollout.n, config.data.train_batch_size, config.data.max_prompt_length,
        config.data.max_response_length,
    )  # fmt: skip
    assert config.contextrl.pairs.train_files == ["a.parquet", "b.parquet"]
    assert config.contextrl.pairs.val_files == ["held.parquet"]
    assert config.contextrl.objective == "context_awareness"
    assert config.contextrl.loss.clip == 5.0
    assert config.algorithm.adv_estimator == "grpo"
    assert config.trainer.save_freq == 7
    assert rollout.max_model_len >= config.data.max_prompt_length + config.data.max_response_length
    # Ranks that share a sequence share its tokens, in the reference pass too.
    longest = config.data.max_prompt_length + config.data.max_response_length
    for part in (actor, config.actor_rollout_ref.ref):
        assert actor.ppo_max_token_len_per_gpu * part.fsdp_config.ulysses_sequence_parallel_size >= longest


@rehearsed
def test_a_rehearsal_passes_everything_that_is_checked_before_ray(script, tmp_path, capsys):
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    run = tell(script, tmp_path, SMOKE="1")
    assert run.returncode == 0, run.stderr
    config = composed(told(tmp_path))
    assert config.trainer.device == "cpu"
    assert config.trainer.total_training_steps == 2
    assert config.actor_rollout_ref.actor.use_kl_loss
    # The check of the plug-in runs in here: model, files, lengths, labels, counts.
    validate_config(config, need_reference_policy(config), need_critic(config))
    assert "2 batches of 6 ordinary rows and 2 pairs" in capsys.readouterr().out


@rehearsed
def test_arms_differ_in_the_use_of_pairs_and_in_nothing_else(script, tmp_path):
    jobs = {}
    for arm in ARMS:
        run = tell(script, tmp_path, ARM=arm, **FILES)
        assert run.returncode == 0, run.stderr
        jobs[arm] = dict(argument.split("=", 1) for argument in told(tmp_path))
    assert "contextrl.pairs.per_batch" in ARM_KEYS
    for arm, job in jobs.items():
        size = StepSize(
            int(job["data.train_batch_size"]), int(jobs["contextrl"]["contextrl.pairs.per_batch"]),
            int(job["actor_rollout_ref.rollout.n"]), 4 if "multimodal" in str(script) else 2,
        )  # fmt: skip
        assert {key: job[key] for key in ARM_KEYS} == {key: str(value) for key, value in arm_keys(arm, size).items()}
        expected = "/trained/by/sft" if arm == "da_sft" else jobs["grpo"]["actor_rollout_ref.model.path"]
        assert job["actor_rollout_ref.model.path"] == expected
        free = {*ARM_KEYS, "actor_rollout_ref.model.path", "trainer.experiment_name", "contextrl.pairs.orders"}
        assert job.keys() == jobs["grpo"].keys()
        assert {key: job[key] for key in job.keys() - free} == {key: jobs["grpo"][key] for key in job.keys() - free}


def test_the_supervised_stage_asks_as_the_second_does(tmp_path):
    script = RECIPES / "agentic" / "run_klear_agentforge_8b_fsdp.sh"
    assert tell(script, tmp_path, ARM="da_sft", SEED="5", GPUS_PER_NODE="8", **FILES).returncode == 0
    first = dict(argument.split("=", 1) for argument in told(tmp_path, "told.sft") if "=" in argument)
    second = dict(argument.split("=", 1) for argument in told(tmp_path))
    shared = [key for key in first if key.startswith(("contextrl.prompt", "++contextrl.prompt", "contextrl.pairs"))]
    assert len(shared) == 4
    for key in [*shared, "contextrl.seed", "trainer.n_gpus_per_node"]:
        assert first[key] == second[key]
    assert first["model.path"] == "Kwai-Klear/Klear-AgentForge-8B-SFT"
    # Looking at the configuration trains nothing.
    (tmp_path / "told.sft").unlink()
    assert tell(script, tmp_path, "--cfg", "job", ARM="da_sft", **FILES).returncode == 0
    assert not (tmp_path / "told.sft").exists()


def test_lora_ratio_and_lambda_are_one_word_each(tmp_path):
    assert tell(TEXT, tmp_path, RATIO="0.5", COEF="0.01", LORA_RANK="16", STEPS="9", **FILES).returncode == 0
    config = composed(told(tmp_path))
    assert config.contextrl.pairs.per_batch == 32
    assert config.contextrl.loss.coef == 0.01
    assert config.actor_rollout_ref.model.lora_rank == 16
    assert config.actor_rollout_ref.rollout.load_format == "safetensors"
    assert config.trainer.total_training_steps == 9


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"ARM": "magic"}, "ARM is 'magic'"),
        ({"RATIO": "0"}, "ratio of pairs is 0.0"),
        ({"ITEMS": "1"}, "of 1 items are pairs"),
        ({"PAIRS": ""}, "PAIRS is not set"),
        ({"SMOKE": "yes"}, "SMOKE is 'yes'"),
        (
            {"TASK": "swe"},
            "TASK is 'swe', and this recipe is text. Fix: a recipe of recipes/agentic, or TASK=trace_qa.",
        ),
        ({"TASK": "code"}, "TASK is 'code'. Fix: TASK=swe or TASK=trace_qa."),
        ({"MARGIN": "mean"}, "MARGIN is 'mean'. Fix: MARGIN=each or MARGIN=averaged."),
        ({"GPUS_PER_NODE": "3"}, "data.train_batch_size is 64, with n=8 512 rows, which 3 data-parallel ranks"),
        ({"UPDATES": "8", "ROLLOUTS": "6", "GPUS_PER_NODE": "32"}, "ppo_mini_batch_size is 7, with n=6 42 rows"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_starts(variables, named, tmp_path):
    run = tell(TEXT, tmp_path, **{**FILES, **variables})
    assert run.returncode == 2
    assert named in run.stderr
    assert "Fix: " in run.stderr
    assert run.stderr.count("\n") == 1
    assert not (tmp_path / "told").exists()


@pytest.mark.parametrize(("arm", "orders"), [("contextrl", "both"), ("da_rl", "random")])
def test_one_word_averages_the_margins_of_the_arm_that_has_them(arm, orders, tmp_path):
    run = tell(TEXT, tmp_path, **FILES, ARM=arm, MARGIN="averaged")
    assert run.returncode == 0, run.stderr
    config = composed(told(tmp_path))
    assert config.contextrl.loss.margin == "averaged"
    assert config.contextrl.pairs.orders == orders
    # Its checkpoints are not another run's.
    assert "averaged" in config.trainer.default_local_dir or "averaged" in config.trainer.experiment_name


@pytest.mark.parametrize(
    "script", [script for script in MODELS if script.parent.name == "agentic"], ids=lambda it: it.stem
)
def test_one_word_lets_agents_work(script, tmp_path):
    plain, agents = tmp_path / "plain", tmp_path / "agents"
    for folder, variables in ((plain, {}), (agents, {"TASK": "swe", "TURNS": "20", "SANDBOX": "apptainer"})):
        folder.mkdir()
        run = tell(script, folder, **FILES, **variables)
        assert run.returncode == 0, run.stderr
    config = composed(told(agents))
    agent, rollout, actor = config.contextrl.agent, config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    assert (agent.turns, agent.turn_tokens, agent.sandbox) == (20, 4096, "apptainer")
    assert agent.records == str(agents / "out" / "episodes")
    whole = config.data.max_prompt_length + config.data.max_response_length
    # Qwen3's window, and a row of its length fits the GPUs that share it.
    assert whole == rollout.max_model_len == 40960
    assert actor.ppo_max_token_len_per_gpu * actor.fsdp_config.ulysses_sequence_parallel_size >= whole
    # Nothing else is another than without it.
    own = {argument.partition("=")[0] for argument in set(told(agents)) - set(told(plain))}
    assert own == {
        *(f"contextrl.agent.{name}" for name in ("turns", "turn_tokens", "sandbox", "records")),
        *(f"data.max_{name}_length" for name in ("prompt", "response")),
        *(f"actor_rollout_ref.rollout.max_{name}" for name in ("model_len", "num_batched_tokens")),
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu", "trainer.experiment_name", "trainer.default_local_dir",
    }  # fmt: skip


@pytest.mark.slow
def test_a_rehearsal_of_agents_passes_everything_that_is_checked_before_ray(tmp_path, capsys):
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    run = tell(RECIPES / "agentic" / "run_qwen3_8b_fsdp.sh", tmp_path, SMOKE="1", TASK="swe")
    assert run.returncode == 0, run.stderr
    config = composed(told(tmp_path))
    validate_config(config, need_reference_policy(config), need_critic(config))
    assert "2 batches of 6 ordinary rows and 2 pairs" in capsys.readouterr().out
