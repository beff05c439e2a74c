"""Every mistake in a job ends it in the driver, before Ray, with one paragraph: the key, the value, the fix."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pair_factory import text_pair
from PIL import Image
from tiny_job import as_overrides, write_job

from contextrl_verl.demo.tiny_model import make_model, make_tokenizer
from contextrl_verl.demo.tiny_vision import make_model as make_vision_model
from contextrl_verl.demo.tiny_vision import make_processor
from contextrl_verl.pairs import Context, ContrastivePair, ImageRef
from contextrl_verl.pairs.files import write_pairs

PAIRS, RL, MODEL = "contextrl.pairs.train_files", "data.train_files", "actor_rollout_ref.model.path"
TWO_TO_A_SEQUENCE = {
    "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size": "2",
    "trainer.n_gpus_per_node": "2",
}


@pytest.fixture(scope="session")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    return folder, write_job(folder)


def _image_pair() -> ContrastivePair:
    def context(colour: str) -> Context:
        Image.new("RGB", (4, 4), colour).save(stream := io.BytesIO(), "PNG")
        return Context(kind="images", images=[ImageRef(bytes=stream.getvalue())])

    contexts = [context("red"), context("blue")]
    scalars = {"pair_id": "i", "domain": "image", "query": "q", "answer": "a"}
    return ContrastivePair(**scalars, supporting=contexts[0], confounders=contexts[1:])


def _write_bad_files(folder: Path) -> None:
    pd.DataFrame({"question": ["x"], "label": [1]}).to_parquet(folder / "other_columns.parquet")
    rows = [json.loads(text_pair(number).model_dump_json()) for number in range(3)]
    rows[2]["split"] = "test"
    (folder / "bad_row.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows[2] |= {"split": "train", "confounders": 7}
    (folder / "bad_type.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "latin.jsonl").write_bytes('{"pair_id": "é"}\n'.encode("latin-1"))
    (folder / "rl_latin.jsonl").write_bytes(b'{"prompt": []}\n' + '{"prompt": "é"}\n'.encode("latin-1"))
    (folder / "notes.jsonl").write_text("these are my notes\n")
    (folder / "notes.csv").write_text("prompt\n1\n")
    write_pairs([], folder / "empty.parquet")
    write_pairs([_image_pair()], folder / "images.parquet")
    write_pairs([text_pair(0, confounders=2)], folder / "three.parquet")
    good = (folder / "pairs.parquet").read_bytes()
    (folder / "garbage.parquet").write_bytes(b"PAR1" + os.urandom(64) + b"PAR1")
    (folder / "cut.parquet").write_bytes(good[: len(good) // 2])
    (folder / "flipped.parquet").write_bytes(good[:4] + bytes(400) + good[404:])
    columns = {name: ["x"] for name in pd.read_parquet(folder / "pairs.parquet").columns}
    pd.DataFrame(columns).to_parquet(folder / "flat.parquet")
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    make_model(folder / "untemplated", tokenizer)
    shutil.copytree(folder / "model", folder / "capped")
    config = json.loads((folder / "capped" / "config.json").read_text())
    (folder / "capped" / "config.json").write_text(json.dumps(config | {"final_logit_softcapping": 30.0}))
    processor = make_processor(make_tokenizer())
    make_vision_model(processor, folder=folder / "vision")


@pytest.fixture(scope="session")
def bad_files(job):
    _write_bad_files(job[0])


# Changed keys (None: unset; {job} is the job's folder), what the paragraph must name, part of the fix.
CASES = {
    "missing pair file": ({PAIRS: "[/no/p.parquet]"}, [PAIRS, "/no/p.parquet"], "correct the path"),
    "no pair file named": ({PAIRS: "[]"}, [PAIRS, "context_awareness"], "contextrl.objective=none"),
    "missing rl file": ({RL: "[/no/rl.parquet]"}, [RL, "/no/rl.parquet"], "correct the path"),
    "home folder": ({RL: "['~/rl.parquet']"}, [RL, "~/rl.parquet"], "home folder out"),
    "remote rl file": ({RL: "['s3://b/rl.parquet']"}, [RL, "s3://b/rl.parquet"], "local path"),
    "missing val file": (
        {"data.val_files": "[/no/v.parquet]"},
        ["data.val_files", "/no/v.parquet"],
        "correct the path",
    ),
    "pairs with other columns": ({PAIRS: "[{job}/other_columns.parquet]"}, [PAIRS, "question"], "write_pairs"),
    "pairs of flat columns": ({PAIRS: "[{job}/flat.parquet]"}, [PAIRS, "'supporting'"], "write_pairs"),
    "rl rows with other columns": ({RL: "[{job}/other_columns.parquet]"}, [RL, "'prompt'", "question"], "prompt_key"),
    "pairs as rl rows": ({RL: "[{job}/pairs.parquet]"}, [RL, "pairs.parquet"], "under contextrl.pairs"),
    "rl rows as pairs": ({PAIRS: "[{job}/train.parquet]"}, [PAIRS, "reward_model"], "data.train_files"),
    "rl rows as csv": ({RL: "[{job}/notes.csv]"}, [RL, "notes.csv"], "convert"),
    "bad row": ({PAIRS: "[{job}/bad_row.jsonl]"}, [PAIRS, "row 2", "'split'", "'test'"], "values named"),
    "bad type in a row": ({PAIRS: "[{job}/bad_type.jsonl]"}, [PAIRS, "row 2", "'confounders'", "7"], "mend"),
    "not UTF-8": ({PAIRS: "[{job}/latin.jsonl]"}, [PAIRS, "latin.jsonl: row 0", "utf-8"], "one JSON object"),
    "not JSON": ({PAIRS: "[{job}/notes.jsonl]"}, [PAIRS, "notes.jsonl: row 0"], "one JSON object"),
    "rl rows not UTF-8": ({RL: "[{job}/rl_latin.jsonl]"}, [RL, "line 2", "utf-8"], "one JSON object"),
    "garbage as pairs": ({PAIRS: "[{job}/garbage.parquet]"}, [PAIRS, "garbage.parquet"], "write it"),
    "garbage as rl rows": ({RL: "[{job}/garbage.parquet]"}, [RL, "garbage.parquet"], "write it again"),
    "cut pair file": ({PAIRS: "[{job}/cut.parquet]"}, [PAIRS, "cut.parquet"], "write it"),
    "damaged pair file": ({PAIRS: "[{job}/flipped.parquet]"}, [PAIRS, "flipped.parquet", "damaged"], "write it again"),
    "zero pairs": ({PAIRS: "[{job}/empty.parquet]"}, [PAIRS, "zero pairs"], "file with pairs"),
    "same pairs twice": ({PAIRS: "[{job}/pairs.parquet,{job}/pairs.parquet]"}, [PAIRS, "'p0'"], "list each file once"),
    "all pairs too long": ({"data.max_prompt_length": "20"}, [PAIRS, "all 8", "max_prompt_length=20"], "raise"),
    "fewer pairs than a batch": (
        {"contextrl.pairs.per_batch": "9"},
        [PAIRS, "needs 9", "holds 8"],
        "lower contextrl.pairs.per_batch",
    ),
    "fewer rows than a batch": ({"data.train_batch_size": "30"}, [RL, "needs 26", "holds 20"], "lower"),
    "capped rows": ({"data.train_max_samples": "3"}, [RL, "needs 6", "holds 3"], "lower"),
    "pairs fill the batch": ({"data.train_batch_size": "4"}, ["contextrl.pairs.per_batch is 4", "is 4"], "larger"),
    "more pairs than batch": ({"data.train_batch_size": "2"}, ["contextrl.pairs.per_batch is 4", "is 2"], "larger"),
    "no pairs in a batch": ({"contextrl.pairs.per_batch": "0"}, ["contextrl.pairs.per_batch is 0"], "objective=none"),
    "both orders, odd": (
        {"contextrl.pairs.per_batch": "3", "contextrl.pairs.orders": "both"},
        ["contextrl.pairs.per_batch is 3", "orders=both"],
        "multiple of 2",
    ),
    "another batch at the loader": ({"data.gen_batch_size": "5"}, ["data.gen_batch_size is 5", "10"], "unset"),
    "label of two tokens": (
        {"contextrl.prompt.labels": "[A,zebra]"},
        ["contextrl.prompt.labels", "zebra"],
        "one token",
    ),
    "fewer labels than contexts": ({PAIRS: "[{job}/three.parquet]"}, ["'p0'", "3 contexts", "names 2"], "add labels"),
    "missing template": ({"contextrl.prompt.template": "mine"}, ["contextrl.prompt.template", "'mine'"], "one of"),
    "no chat template": ({MODEL: "{job}/untemplated"}, [MODEL, "untemplated"], "custom_chat_template"),
    "more images than the server was told of": (
        {
            MODEL: "{job}/vision",
            "contextrl.pairs.val_files": "[{job}/images.parquet]",
            "+actor_rollout_ref.rollout.limit_images": "1",
        },
        ["actor_rollout_ref.rollout.limit_images is 1", "contextrl.pairs.val_files", "2 images"],
        "limit_images=2",
    ),
    "images, text model": ({PAIRS: "[{job}/images.parquet]"}, [PAIRS, MODEL, "processor"], "vision-language"),
    "missing model": ({MODEL: "/no/model"}, [MODEL, "'/no/model'"], "correct the path"),
    "folder without a model": ({MODEL: "{job}"}, [MODEL, "config"], "local checkpoint"),
    "unknown objective": ({"contextrl.objective": "magic"}, ["contextrl.objective is 'magic'", "'none'"], "correct"),
    "unknown key": ({"+contextrl.loss.clipp": "3"}, ["contextrl.loss.clipp is 3", "clip_mode"], "rename it to clip"),
    "wrong type": ({"contextrl.loss.coef": "high"}, ["contextrl.loss.coef is 'high'"], "correct"),
    "train is val": ({"data.val_files": "[{job}/train.parquet]"}, [RL, "data.val_files", "train.parquet"], "own file"),
    "shuffle": ({"data.shuffle": "true"}, ["data.shuffle is True"], "data.shuffle=False"),
    "two numbers of epochs": (
        {"trainer.total_epochs": "2", "contextrl.epochs": "3"},
        ["trainer.total_epochs is 2 and contextrl.epochs is 3"],
        "contextrl.epochs=2",
    ),
    "fused kernels, capped logits": (
        {"actor_rollout_ref.model.use_fused_kernels": "true", MODEL: "{job}/capped"},
        ["the model's config has final_logit_softcapping=30"],
        "use_fused_kernels=False",
    ),
    "fused kernels, adapter of the head": (
        {
            "actor_rollout_ref.model.use_fused_kernels": "true",
            "actor_rollout_ref.model.lora_rank": "8",
            "actor_rollout_ref.model.target_modules": "[q_proj,lm_head]",
        },
        ["actor_rollout_ref.model.target_modules is ['q_proj', 'lm_head']"],
        "lm_head",
    ),
    "ulysses without packing": (
        {**TWO_TO_A_SEQUENCE, "actor_rollout_ref.model.use_remove_padding": "false"},
        ["fsdp_config.ulysses_sequence_parallel_size is 2", "actor_rollout_ref.model.use_remove_padding is False"],
        "use_remove_padding=True",
    ),
    "ulysses without flash-attention": (
        {**TWO_TO_A_SEQUENCE, "actor_rollout_ref.model.use_remove_padding": "true"},
        ["fsdp_config.ulysses_sequence_parallel_size is 2", "attn_implementation is 'sdpa'"],
        "attn_implementation=flash_attention_2",
    ),
    "ulysses, ranks left over": (
        {"actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size": "2"},
        ["actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size is 2", "1 ranks"],
        "a divisor of 1",
    ),
    "ulysses, deprecated key": (
        {"actor_rollout_ref.actor.ulysses_sequence_parallel_size": "2"},
        ["actor_rollout_ref.actor.ulysses_sequence_parallel_size is 2"],
        "a divisor of 1",
    ),
    "ulysses, heads": (
        {
            "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size": "4",
            "trainer.n_gpus_per_node": "4",
            "actor_rollout_ref.model.use_remove_padding": "true",
            "actor_rollout_ref.model.override_config.attn_implementation": "flash_attention_2",
        },
        ["fsdp_config.ulysses_sequence_parallel_size is 4", "2 attention heads and 2 key-value heads"],
        "a divisor of 2",
    ),
    "averaged margins of one order": (
        {"contextrl.loss.margin": "averaged"},
        ["contextrl.loss.margin is 'averaged'", "contextrl.pairs.orders is 'random'"],
        "contextrl.pairs.orders=both",
    ),
    "a pair longer than a micro-batch": (
        {
            "contextrl.loss.margin": "averaged",
            "contextrl.pairs.orders": "both",
            "actor_rollout_ref.actor.use_dynamic_bsz": "true",
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": "100",
        },
        [
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu is 100",
            "in its 2 orders",
            "contextrl.loss.margin=averaged",
        ],
        "at least",
    ),
    "a loss that counts rows": (
        {"actor_rollout_ref.actor.policy_loss.loss_mode": "geo_mean"},
        ["actor_rollout_ref.actor.policy_loss.loss_mode is 'geo_mean'"],
        "or one of gspo",
    ),
    "FSDP1 on a CPU": (
        {"actor_rollout_ref.actor.strategy": "fsdp"},
        ["actor_rollout_ref.actor.strategy is 'fsdp'", "VERL_PLATFORM is cpu"],
        "strategy=fsdp2",
    ),
    "held-out pairs without vLLM": (
        {"actor_rollout_ref.rollout.name": "trtllm", "contextrl.pairs.val_files": "[{job}/pairs.parquet]"},
        ["actor_rollout_ref.rollout.name is 'trtllm'", "contextrl.pairs.val_files"],
        "rollout.name=vllm",
    ),
    "async trainer": (
        {"trainer.v1.trainer_mode": "separate_async"},
        ["trainer.v1.trainer_mode is 'separate_async'"],
        "trainer_mode=sync",
    ),
    "old trainer": ({"trainer.use_v1": "false"}, ["trainer.use_v1 is False"], "trainer.use_v1=True"),
    "model type": (
        {"actor_rollout_ref.model.model_type": "language_model"},
        ["actor_rollout_ref.model.model_type is 'language_model'"],
        "contextrl_language_model",
    ),
    "ranks that do not share a mini-batch": (
        {"trainer.n_gpus_per_node": "5"},
        ["ppo_mini_batch_size is 4", "8 rows", "5 data-parallel ranks"],
        "a multiple of 5",
    ),
}


def check_as_the_driver_does(overrides: list[str], config_name: str = "contextrl_trainer_cpu") -> None:
    """What ``verl.trainer.main_ppo.main`` does before it starts Ray."""
    from hydra import compose, initialize_config_module
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    with initialize_config_module("contextrl_verl.config", version_base=None):
        config = compose(config_name=config_name, overrides=overrides)
    validate_config(config, need_reference_policy(config), need_critic(config))


def _assert_one_paragraph(message: str, named: list[str], fix: str) -> None:
    """One of what is told names all this; a mistake may be two (FSDP1 and packing, say)."""
    assert message.startswith("contextrl: ")
    problems = re.findall(r"^\d+\. (.*)$", message, re.MULTILINE) or [message]
    assert len(problems) <= 2, message
    assert len(problems) + (len(problems) > 1) == len(message.splitlines())
    for problem in problems:
        assert " Fix: " in problem
        assert problem.endswith(".")
    told = [problem.partition(" Fix: ") for problem in problems]
    assert any(all(part in what for part in named) and fix in mend for what, _, mend in told), message


def test_the_job_itself_is_good(job, capsys):
    check_as_the_driver_does(as_overrides(job[1]))
    assert "contextrl: 3 batches of 6 ordinary rows and 4 pairs" in capsys.readouterr().out


@pytest.mark.usefixtures("bad_files")
@pytest.mark.parametrize("case", CASES)
def test_a_bad_job_ends_with_one_paragraph(job, case):
    folder, keys = job
    changed, named, fix = CASES[case]
    keys = {**keys, **{key: value.replace("{job}", str(folder)) for key, value in changed.items()}}
    with pytest.raises(SystemExit) as stopped:
        check_as_the_driver_does(as_overrides(keys))
    _assert_one_paragraph(str(stopped.value.code), named, fix)


def test_megatron_is_refused(job):
    keys = {**job[1], "model_engine": "megatron", "trainer.n_gpus_per_node": "1"}
    with pytest.raises(SystemExit) as stopped:
        check_as_the_driver_does(as_overrides(keys), "contextrl_trainer")
    _assert_one_paragraph(str(stopped.value.code), ["actor_rollout_ref.actor.strategy is 'megatron'"], "fsdp2")


@pytest.mark.usefixtures("bad_files")
def test_a_processor_that_cannot_be_loaded_is_told(job, tmp_path, capsys):
    folder, keys = job
    model = shutil.copytree(folder / "vision", tmp_path / "broken")
    (model / "processor_config.json").write_text("{")
    check_as_the_driver_does(as_overrides({**keys, MODEL: str(model)}))
    printed = capsys.readouterr().out
    assert "will be trained without images" in printed
    assert str(model) in printed
    check_as_the_driver_does(as_overrides({**keys, MODEL: str(folder / "vision")}))
    assert "without images" not in capsys.readouterr().out


@pytest.mark.parametrize("case", ["missing pair file", pytest.param("unknown objective", marks=pytest.mark.slow)])
def test_through_the_command_line(job, tmp_path, case):
    changed, named, fix = CASES[case]
    overrides = as_overrides({**job[1], **changed})
    where = ["--config-path=pkg://contextrl_verl.config", "--config-name=contextrl_trainer_cpu"]
    command = [sys.executable, "-m", "verl.trainer.main_ppo", *where, *overrides]
    ended = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=300)
    assert ended.returncode != 0
    _assert_one_paragraph(ended.stderr.strip().splitlines()[-1], named, fix)
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "ray init kwargs" not in ended.stdout
    assert "Started a local Ray instance" not in ended.stdout + ended.stderr
