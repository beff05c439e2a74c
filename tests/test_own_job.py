"""What a user's own job brings to ours - data set, reward, checkpoint, limits, files - is supported or refused by name.

The rows of test_bad_input.py are mistakes in our keys; these are jobs that are right without us.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pair_factory import text_pair
from test_bad_input import check_as_the_driver_does
from tiny_job import as_overrides, write_job

from contextrl_verl.demo.evidence_pairs import rl_rows
from contextrl_verl.demo.tiny_model import CHAT_TEMPLATE
from contextrl_verl.errors import JobRefused
from contextrl_verl.pairs.files import write_pairs

USERS = Path(__file__).parent / "users_own"
PAIRS, HELD_OUT, RL = "contextrl.pairs.train_files", "contextrl.pairs.val_files", "data.train_files"
MODEL, REWARD = "actor_rollout_ref.model.path", "reward.custom_reward_function"
SELECTION = {"contextrl.objective": "selection_reward"}


def _with_prompts(rows: list[dict], change) -> list[dict]:
    return [{**row, "prompt": change(row["prompt"])} for row in rows]


def _checkpoint(folder: Path, step: int, ours: bool) -> None:
    """As verl's trainer leaves one; the state is that of its data loader, in short."""
    (folder / f"global_step_{step}").mkdir(parents=True)
    (folder / "latest_checkpointed_iteration.txt").write_text(str(step))
    state = {"dataset_state": {"contextrl_plan": [20, 8, 10, 4, 1]} if ours else None, "_num_yielded": step}
    torch.save({"_snapshot": {"_worker_snapshots": {"worker_0": state}}}, folder / f"global_step_{step}" / "data.pt")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    keys = write_job(folder)
    shutil.copy(USERS / "mine.py", folder)
    (folder / "broken.py").write_text("def score(:\n")
    rows = rl_rows(20, 0)

    def save(name: str, rows: list[dict]) -> None:
        pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet")

    save("strings", _with_prompts(rows, lambda prompt: prompt[0]["content"]))
    lines = _with_prompts(rows, lambda prompt: prompt[0]["content"])
    (folder / "strings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    save("no_source", [{name: row[name] for name in row if name != "data_source"} for row in rows])
    save("no_model", [{name: row[name] for name in row if name != "reward_model"} for row in rows])
    truths = [{**row["reward_model"], "ground_truth": None if at % 4 else "1"} for at, row in enumerate(rows)]
    save("no_truth", [{**row, "reward_model": truth} for row, truth in zip(rows, truths, strict=True)])
    save("foreign", [{**row, "data_source": "mine/foreign" if at % 2 else row["data_source"]}
                     for at, row in enumerate(rows)])  # fmt: skip
    table = pq.read_table(folder / "train.parquet")
    sources = table.column("data_source").cast(pa.string())
    pq.write_table(table.set_column(table.schema.get_field_index("data_source"), "data_source", sources),
                   folder / "string.parquet")  # fmt: skip
    save("structs", [{**row, "extra_info": {"index": str(at), "level": 3}} for at, row in enumerate(rows)])
    write_pairs([text_pair(number) for number in range(20, 24)], folder / "held_out.parquet")
    _checkpoint(folder / "plain", 2, ours=False)
    _checkpoint(folder / "at_the_end", 3, ours=True)
    _checkpoint(folder / "ours", 1, ours=True)
    return folder, keys


# What the user's job sets ({job}: its folder), what one of the paragraphs must name, part of the fix.
REFUSED = {
    "own data set": (
        {"data.custom_cls.path": "{job}/mine.py", "data.custom_cls.name": "Mine"},
        ["data.custom_cls.path is", "mine.py", "'Mine'"],
        "class MineWithPairs(MixedTaskDataset, Mine): pass",
    ),
    "verl's data set": (
        {"data.custom_cls.path": "null"},
        ["data.custom_cls.path is null"],
        "data.custom_cls.name=MixedTaskDataset",
    ),
    "data set that is not there": (
        {"data.custom_cls.path": "{job}/mine.py", "data.custom_cls.name": "Yours"},
        ["data.custom_cls.name is 'Yours'"],
        "correct path and name",
    ),
    "missing reward file": ({f"{REWARD}.path": "/no/reward.py"}, [f"{REWARD}.path is '/no/reward.py'"], "correct path"),
    "reward file that does not load": (
        {f"{REWARD}.path": "{job}/broken.py", f"{REWARD}.name": "score"},
        [f"{REWARD}.path is", "broken.py", "SyntaxError"],
        "mend the file",
    ),
    "reward function that is not in its file": (
        {f"{REWARD}.path": "{job}/mine.py", f"{REWARD}.name": "scores"},
        [f"{REWARD}.name is 'scores'"],
        "correct path and name",
    ),
    "reward manager of an older verl": (
        {"reward.reward_manager.name": "prime"},
        ["reward.reward_manager.name is 'prime'", "naive"],
        "one of these",
    ),
    "reward by verl's older key": (
        {"custom_reward_function.path": "{job}/mine.py", "custom_reward_function.name": "score"},
        ["custom_reward_function.path is", "mine.py"],
        "reward.custom_reward_function.path=",
    ),
    "sandbox by verl's older key": (
        {"sandbox_fusion.url": "http://sandbox:8080/run"},
        ["sandbox_fusion.url is 'http://sandbox:8080/run'"],
        "reward.sandbox_fusion.url=http://sandbox:8080/run",
    ),
    "sandbox that would not reach the scorers": (
        {"reward.sandbox_fusion.url": "http://sandbox:8080/run", "reward.reward_manager.source": "register"},
        ["reward.sandbox_fusion.url is", "code would run on this machine"],
        "reward_kwargs.sandbox_fusion",
    ),
    "own reward under verl's own manager": (
        {
            f"{REWARD}.path": "{job}/mine.py",
            f"{REWARD}.name": "score",
            "reward.reward_manager.source": "register",
            HELD_OUT: "[{job}/held_out.parquet]",
        },
        [f"{REWARD}.path is", "pairs would be scored by a function that does not know them"],
        "reward.reward_manager.source",
    ),
    "async function in the registry": (
        {f"+{REWARD}.reward_kwargs.registry": "{mine/*:'{job}/mine.py:score'}"},
        ["mine/*", "async"],
        "",
    ),
    "registry entry that cannot be imported": (
        {f"+{REWARD}.reward_kwargs.registry": "{mine/*:'no_such_module:score'}"},
        ["mine/*", "no_such_module"],
        "",
    ),
    "sources that nothing scores": ({RL: "[{job}/foreign.parquet]"}, [RL, "mine/foreign", "10"], "registry"),
    "plain checkpoint": (
        {"trainer.default_local_dir": "{job}/plain"},
        ["trainer.default_local_dir leads to", "global_step_2", "without contextrl"],
        "trainer.resume_mode=disable",
    ),
    "plain checkpoint by its path": (
        {"trainer.resume_mode": "resume_path", "trainer.resume_from_path": "{job}/plain/global_step_2"},
        ["trainer.resume_from_path leads to", "without contextrl"],
        "trainer.resume_mode=disable",
    ),
    "checkpoint at the end": (
        {"trainer.default_local_dir": "{job}/at_the_end"},
        ["global_step_3, at step 3", "ends after 3 steps"],
        "contextrl.epochs",
    ),
    "checkpoint that is not there": (
        {"trainer.resume_mode": "resume_path", "trainer.resume_from_path": "/no/global_step_7"},
        ["trainer.resume_from_path is '/no/global_step_7'"],
        "trainer.resume_mode=auto",
    ),
    "server's window below a held-out pair": (
        {HELD_OUT: "[{job}/held_out.parquet]", "actor_rollout_ref.rollout.max_model_len": "50"},
        ["actor_rollout_ref.rollout.max_model_len is 50", HELD_OUT],
        "actor_rollout_ref.rollout.max_model_len=",
    ),
    "server's window below a pair that is rolled out": (
        {**SELECTION, "actor_rollout_ref.rollout.max_model_len": "50"},
        ["actor_rollout_ref.rollout.max_model_len is 50", PAIRS],
        "actor_rollout_ref.rollout.max_model_len=",
    ),
    "micro-batch below a pair": (
        {"actor_rollout_ref.actor.use_dynamic_bsz": "true", "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": "60"},
        ["ppo_max_token_len_per_gpu is 60", "longest pair"],
        "at least",
    ),
    "micro-batch below a pair and its reply": (
        {
            **SELECTION,
            "actor_rollout_ref.actor.use_dynamic_bsz": "true",
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": "400",
        },
        ["ppo_max_token_len_per_gpu is 400", "with its reply"],
        "at least",
    ),
    "prompts as strings": ({RL: "[{job}/strings.parquet]"}, [RL, "'prompt'", "string"], "'role': 'user'"),
    "prompts as strings in JSON": ({RL: "[{job}/strings.jsonl]"}, [RL, "'prompt'", "row 0"], "'role': 'user'"),
    "rows without a source": ({RL: "[{job}/no_source.parquet]"}, [RL, "'data_source'"], "data.reward_fn_key"),
    "rows without a reward model": ({RL: "[{job}/no_model.parquet]"}, [RL, "'reward_model'"], "ground_truth"),
    "rows without an answer": ({RL: "[{job}/no_truth.parquet]"}, [RL, "15 of 20", "ground_truth"], "leave these rows"),
    "validation rows without an answer": (
        {"data.val_files": "[{job}/no_truth.parquet]"},
        ["data.val_files", "15 of 20"],
        "leave these rows",
    ),
    "structs that differ": (
        {RL: "[{job}/train.parquet,{job}/structs.parquet]"},
        [RL, "'extra_info'", "structs.parquet"],
        "same types",
    ),
    "string beside large_string": (
        {RL: "[{job}/train.parquet,{job}/string.parquet]"},
        [RL, "'data_source'", "string.parquet"],
        "same types",
    ),
    "template that ends within a thought": (
        {"+actor_rollout_ref.model.custom_chat_template": "{thinking}"},
        ["opens a thought", "<think>"],
        "prefill='</think>'",
    ),
    "template that counts tools": (
        {"+actor_rollout_ref.model.custom_chat_template": "{counting}"},
        ["chat template", "fails on one user message"],
        "custom_chat_template",
    ),
    "external_lib without ours": (
        {"actor_rollout_ref.model.external_lib": "my_lib"},
        ["actor_rollout_ref.model.external_lib is ['my_lib']"],
        "[contextrl_verl.grpo.register,my_lib]",
    ),
    "servers larger than the job": (
        {"actor_rollout_ref.rollout.tensor_model_parallel_size": "2"},
        ["tensor_model_parallel_size is 2", "= 1"],
        "a divisor of 1",
    ),
    "DAPO with a sampler of one's own": (
        {"algorithm.filter_groups.enable": "true", "trainer.v1.sampler.custom_sampler.path": "{job}/mine.py"},
        ["trainer.v1.sampler.custom_sampler.path is", "mine.py"],
        "custom_sampler.name=replay_buffer",
    ),
    "remote pairs": ({PAIRS: "['s3://bucket/pairs.parquet']"}, [PAIRS, "s3://bucket/pairs.parquet"], "local path"),
    "remote model": ({MODEL: "hdfs://cluster/model"}, [MODEL, "hdfs://cluster/model"], "local checkpoint"),
    "remax": ({"algorithm.adv_estimator": "remax"}, ["algorithm.adv_estimator is 'remax'"], "adv_estimator=grpo"),
    "gpg": ({"algorithm.adv_estimator": "gpg"}, ["algorithm.adv_estimator is 'gpg'"], "adv_estimator=grpo"),
    "pass@k": ({"algorithm.adv_estimator": "grpo_passk"}, ["'grpo_passk'"], "adv_estimator=grpo"),
}
# The same started right.
SUPPORTED = {
    "own data set, mixed in": {"data.custom_cls.path": "{job}/mine.py", "data.custom_cls.name": "MineWithPairs"},
    "own reward": {
        f"{REWARD}.path": "{job}/mine.py",
        f"{REWARD}.name": "plain_score",
        RL: "[{job}/foreign.parquet]",
        HELD_OUT: "[{job}/held_out.parquet]",
    },
    "own async reward": {f"{REWARD}.path": "{job}/mine.py", f"{REWARD}.name": "score"},
    "own reward without an answer": {
        f"{REWARD}.path": "{job}/mine.py",
        f"{REWARD}.name": "plain_score",
        RL: "[{job}/no_truth.parquet]",
    },
    "own function in our registry": {
        f"+{REWARD}.reward_kwargs.registry": "{mine/*:'{job}/mine.py:plain_score'}",
        RL: "[{job}/foreign.parquet]",
    },
    "verl's other managers": {"reward.reward_manager.name": "dapo"},
    "own checkpoint": {"trainer.default_local_dir": "{job}/ours"},
    "another folder beside a plain checkpoint": {
        "trainer.default_local_dir": "{job}/plain",
        "trainer.resume_mode": "disable",
    },
    "fifteen epochs": {"trainer.total_epochs": "15"},
    "DAPO": {"algorithm.filter_groups.enable": "true"},
    "failed groups replaced": {"trainer.v1.sampler.sync_refill_failed_groups": "true"},
    "SGLang": {"actor_rollout_ref.rollout.name": "sglang", HELD_OUT: "[{job}/held_out.parquet]"},
    "two libraries": {"actor_rollout_ref.model.external_lib": "[json,contextrl_verl.grpo.register]"},
    "a thought that is closed": {
        "+actor_rollout_ref.model.custom_chat_template": "{thinking}",
        "contextrl.prompt.prefill": "'</think> The correct option is'",
    },
    "a thought in a written reply": {**SELECTION, "+actor_rollout_ref.model.custom_chat_template": "{thinking}"},
}


def overrides_of(job, changed: dict[str, str]) -> list[str]:
    folder, keys = job
    templates = {"{thinking}": CHAT_TEMPLATE + "<think>\n", "{counting}": CHAT_TEMPLATE + "{{ tools|length }}"}

    def filled(value: str) -> str:
        if value in templates:
            return json.dumps(templates[value])
        return value.replace("{job}", str(folder))

    return as_overrides({**keys, **{key: filled(value) for key, value in changed.items()}})


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name_before_ray(job, case):
    changed, named, fix = REFUSED[case]
    with pytest.raises(JobRefused) as refused:
        check_as_the_driver_does(overrides_of(job, changed))
    told = [problem.partition("Fix: ") for problem in refused.value.problems]
    assert any(all(part in what for part in named) and fix in mend for what, _, mend in told), refused.value
    assert "np.str_" not in str(refused.value)


@pytest.mark.parametrize("case", SUPPORTED)
def test_supported(job, case, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(job[0]))
    check_as_the_driver_does(overrides_of(job, SUPPORTED[case]))
    assert "contextrl: " in capsys.readouterr().out


def test_all_refusals_come_in_one_message(job):
    changed = {
        "data.shuffle": "true",
        RL: "[/no/rows.parquet]",
        PAIRS: "[/no/pairs.parquet]",
        "actor_rollout_ref.model.external_lib": "null",
        "reward.reward_manager.name": "batch",
    }
    with pytest.raises(JobRefused) as refused:
        check_as_the_driver_does(overrides_of(job, changed))
    lines = str(refused.value).splitlines()
    assert lines[0] == "contextrl: 5 things to mend:"
    assert [line.split(". ")[0] for line in lines[1:]] == list("12345")
    for key in changed:
        assert sum(key.split("=")[0] in line for line in lines[1:]) == 1, (key, lines)


def test_a_users_own_yaml_with_our_lines_in_it(tmp_path, monkeypatch, capsys):
    """GRPO on eight GPUs, with what a CPU cannot do: looked at as the driver of the GPU job does, on a tiny model."""
    from hydra import compose, initialize_config_dir
    from small_job import write_data
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    write_data(tmp_path, questions=128)
    shutil.copy(USERS / "mine.py", tmp_path)
    monkeypatch.setenv("DATA", str(tmp_path))
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    with initialize_config_dir(str(USERS), version_base=None):
        config = compose(config_name="users_grpo")
    assert config.contextrl.epochs == 15
    validate_config(config, need_reference_policy(config), need_critic(config))
    assert "contextrl: 15 batches of 128 ordinary rows and 16 pairs" in capsys.readouterr().out


def test_a_users_data_set_keeps_its_bases_in_the_processes_that_filter_prompts():
    import dill
    from verl.utils.dataset.rl_dataset import RLHFDataset
    from verl.utils.import_utils import load_extern_object

    copied = dill.loads(dill.dumps(load_extern_object(str(USERS / "mine.py"), "MineWithPairs")))
    # verl counts the tokens of a prompt with images by a method of its own.
    assert copied._build_messages is RLHFDataset._build_messages
