"""The keys of a job of supervised training on selections: the shipped yaml composes, and what is wrong is refused."""

from __future__ import annotations

import json

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from contextrl_verl.errors import ConfigError
from contextrl_verl.settings import parse_settings
from contextrl_verl.sft.config import check_selection_job
from contextrl_verl.sft.run import MANIFEST, _pair_files, finished, main, run_selection_sft

GOOD = ("model.path=owner/name", "contextrl.pairs.train_files=[a.parquet]")


def job(*overrides: str, name: str = "selection_sft"):
    with initialize_config_module(config_module="contextrl_verl.config", version_base=None):
        return compose(name, overrides=[*GOOD, *overrides])


@pytest.mark.parametrize("name", ["selection_sft", "selection_sft_cpu"])
def test_the_shipped_yaml_passes(name):
    config = job(name=name)
    check_selection_job(parse_settings(config.contextrl))
    assert config.engine.strategy == "fsdp2"
    assert config.data.train_files == ["a.parquet"]
    assert OmegaConf.to_container(config.data.contextrl, resolve=True)["pairs"]["train_files"] == ["a.parquet"]
    assert config.trainer.device == ("cpu" if name.endswith("cpu") else "cuda")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.path=/no/such"], "model.path is '/no/such'.*Fix: correct the path"),
        (["contextrl.pairs.val_files=[a.parquet]"], "are the same list"),
        (["+contextrl.pairs.per_batch=16"], "per_batch is 16.*Fix: data.train_batch_size=16"),
        (["trainer.n_gpus_per_node=3"], "train_batch_size is 64, which 3 data-parallel ranks.*Fix: a multiple of 3"),
        (["trainer.nnodes=3", "trainer.n_gpus_per_node=2", "engine.ulysses_sequence_parallel_size=2"], "3 data-par"),
        (["trainer.total_training_steps=0"], "trainer.total_training_steps is 0. Fix: at least 1"),
        (["data.max_prompt_length=20000"], "max_token_len_per_gpu is 16384.*Fix: data.max_token_len_per_gpu=20002"),
        (["data.max_length=100"], "data.max_length is 100.*Fix: data.max_length=null"),
        (["data.pad_mode=right"], "data.pad_mode is 'right'.*Fix: data.pad_mode=no_padding"),
        (["data.train_files=[b.parquet]"], r"data.train_files is \['b.parquet'\] \(set contextrl.pairs.train_files\)"),
        (["trainer.total_epochs=3"], "trainer.total_epochs is 3.*contextrl.epochs=3"),
        (["checkpoint.save_contents=[model]"], "no Hugging Face folder.*Fix: add hf_model"),
        (["trainer.save_freq=5"], "weights of the start.*Fix: checkpoint.save_contents="),
        (["model.lora_rank=8"], "model.lora_rank is 8.*Fix: model.lora_rank=0"),
        (["engine.strategy=fsdp"], "engine.strategy is 'fsdp' and VERL_PLATFORM is cpu.*Fix: engine.strategy=fsdp2"),
        (["+contextrl.sed=1"], "contextrl.sed is 1, and there is no such key.*Fix: rename it to seed"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_a_fix(monkeypatch, overrides, said):
    monkeypatch.setattr("contextrl_verl.grpo.job_checks.cpu_selected", lambda: True)
    with pytest.raises(ConfigError, match=said):
        check_selection_job(parse_settings(job(*overrides).contextrl))


def test_saving_on_the_way_is_fine_with_everything_to_resume_from():
    config = job("trainer.save_freq=5", "checkpoint.save_contents=[model,optimizer,extra,hf_model]")
    check_selection_job(parse_settings(config.contextrl))


def test_a_key_that_verls_yaml_does_not_have_is_refused():
    with pytest.raises(Exception, match=r"Could not override 'data.train_batch'"):
        job("data.train_batch=3")


@pytest.fixture
def done(tmp_path):
    """A folder as a run leaves it, and its job."""
    pairs = tmp_path / "pairs.parquet"
    pairs.write_bytes(b"pairs")
    (tmp_path / ".hydra").mkdir()
    block = {"contextrl": {"pairs": {"train_files": [str(pairs)]}}}
    OmegaConf.save(OmegaConf.create(block), tmp_path / ".hydra" / "config.yaml")
    model = tmp_path / "checkpoints" / "global_step_3" / "huggingface"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    job = {"--config-name": "selection_sft_cpu", "contextrl.seed": 1}
    record = {"job": job | _pair_files(tmp_path), "model": str(model.relative_to(tmp_path))}
    (tmp_path / MANIFEST).write_text(json.dumps(record))
    return tmp_path, job, model


def test_a_finished_job_is_returned_and_another_one_refused(done):
    folder, job, model = done
    assert finished(folder / "other", job) is None
    assert finished(folder, job) == model
    # A logger does not change the weights.
    assert run_selection_sft({"contextrl.seed": 1, "trainer.logger": ["console"]}, folder) == model
    with pytest.raises(ConfigError, match=r"what differs: contextrl.seed, optim.lr. Fix: name another folder"):
        run_selection_sft({"contextrl.seed": 2, "optim.lr": 1}, folder)
    with pytest.raises(ConfigError, match=r"what differs: --config-name"):
        run_selection_sft({"contextrl.seed": 1}, folder, config_name="selection_sft")
    (folder / "pairs.parquet").write_bytes(b"other pairs")
    with pytest.raises(ConfigError, match=r"what differs: pairs.parquet"):
        finished(folder, job)


def test_a_finished_job_without_its_weights_is_refused(done):
    folder, job, model = done
    (model / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="its weights are gone"):
        finished(folder, job)


def test_the_command_line_refuses_what_it_cannot_use(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "x"), "trainer.default_local_dir=y"]) == 2
    assert "it is set from --out" in capsys.readouterr().err
    assert main(["--out", str(tmp_path / "x"), "notakey"]) == 2
    assert "'notakey' is no Hydra override. Fix: key=value" in capsys.readouterr().err
