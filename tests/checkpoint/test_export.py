"""Checkpoints that our engine saved through verl, exported by verl's merger: the weights, the card, best, prune."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from ranks import run_ranks
from safetensors.torch import load_file
from typer.testing import CliRunner

from contextrl_verl.cli import app
from contextrl_verl.demo.tiny_model import make_model, make_tokenizer

HERE = Path(__file__).parent
METRIC = "val-core/contextrl/selection/acc/mean@1"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run of two ranks: checkpoints of steps 2 and 4, the configuration, two logs."""
    run = tmp_path_factory.mktemp("run")
    make_model(run / "tiny-base", make_tokenizer())
    run_ranks(HERE / "save_checkpoints.py", 2, str(run / "tiny-base"), str(run / "checkpoints"))
    (run / "pairs.parquet").write_bytes(b"pairs")
    config = {
        "trainer": {"total_training_steps": 4, "nnodes": 1},
        "data": {"train_files": ["gone.parquet"], "train_batch_size": 20},
        "actor_rollout_ref": {
            "model": {"path": str(run / "tiny-base"), "model_type": "contextrl_language_model"},
            "actor": {"optim": {"lr": 1e-2}},
        },
        "contextrl": {
            "objective": "context_awareness",
            "pairs": {"per_batch": 16, "train_files": [str(run / "pairs.parquet")]},
            "loss": {"coef": 0.005},
        },
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    first = [{"step": s, "data": {METRIC: v, "actor/contextrl/loss": 0.5}} for s, v in ((2, 0.75), (3, 0.99), (4, 0.8))]
    # Step 4 again, after a resume; a last line that was cut short.
    second = json.dumps({"step": 4, "data": {METRIC: 0.625}})
    (run / "metrics.0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in first))
    (run / "metrics.1.jsonl").write_text(second + '\n{"step": 5, "da')
    return run


@pytest.fixture
def run(saved, tmp_path):
    """A copy of the run that a test may prune."""
    return Path(shutil.copytree(saved, tmp_path / "run"))


def export(*arguments: object, answer: str = "") -> tuple[int, str]:
    result = CliRunner().invoke(app, ["export", *map(str, arguments)], input=answer)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, " ".join(result.output.split())


def test_the_export_holds_the_trained_weights_and_a_card(saved, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "model"
    code, told = export(saved / "checkpoints", "--out", out, "--best", METRIC, "--licence", "apache-2.0")
    assert code == 0, told
    assert f"step 2 exported to {out}" in told
    model = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    # The engine's own model type leaves no trace.
    assert model.config.model_type == "qwen2"
    weights, before = load_file(saved / "weights_2.safetensors"), load_file(saved / "tiny-base/model.safetensors")
    got = model.state_dict()
    assert set(got) == set(weights)
    for name, tensor in weights.items():
        # verl's merger writes bfloat16.
        assert torch.equal(got[name], tensor.bfloat16()), name
    changed = [name for name in before if not torch.equal(before[name], weights[name])]
    assert len(changed) > len(before) / 2
    assert AutoTokenizer.from_pretrained(out).chat_template

    card = (out / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["tags"] == ["contextrl", "verl", "reinforcement-learning"]
    assert (header["license"], header["library_name"], "base_model" in header) == ("apache-2.0", "transformers", False)
    digest = hashlib.sha256(b"pairs").hexdigest()
    for said in (
        "# tiny-base, contextrl, step 2",
        "| step | 2 of 4 |",
        f"| chosen | {METRIC} = 0.75, the max of 2 checkpoint(s) with a value |",
        "| verl | 0.9.1 |",
        f"| {METRIC} | 0.7500 |",
        f"| contextrl.pairs.train_files | pairs.parquet | 5 | {digest} |",
        "| data.train_files | gone.parquet | gone | gone |",
        "| `contextrl.loss.coef` | 0.005 |",
        "2606.17053",
    ):
        assert said in card, said
    # Nobody's machine in a file that is to be published.
    assert str(saved) not in card + (out / "contextrl_export.json").read_text()


def test_min_takes_the_other_one_and_a_later_log_wins(saved):
    code, told = export(saved / "checkpoints", "--best", METRIC, "--mode", "min")
    assert code == 0, told
    assert "global_step_4" in told
    assert "0.625 <- this one" in told


def test_files_are_not_overwritten(saved, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    for extra in ([], ["--force"]):
        code, told = export(saved / "checkpoints", "--out", mine, *extra)
        assert code == 1
        assert "was not made by contextrl export" in told
    out = tmp_path / "model"
    out.mkdir()
    (out / "contextrl_export.json").write_text("{}")
    (out / "old").touch()
    assert "--force replaces it" in export(saved / "checkpoints", "--out", out)[1]
    assert (out / "old").exists()
    assert export(saved / "checkpoints/global_step_4/actor", "--out", out, "--force")[0] == 0
    assert not (out / "old").exists()
    assert json.loads((out / "contextrl_export.json").read_text())["step"] == 4
    assert "lie in each other" in export(saved / "checkpoints", "--out", saved / "checkpoints/global_step_4/hf")[1]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_damaged_checkpoint_leaves_nothing_behind(run, tmp_path):
    shard = run / "checkpoints/global_step_4/actor/model_world_size_2_rank_1.pt"
    shard.write_bytes(shard.read_bytes()[:1000])
    code, told = export(run / "checkpoints", "--out", tmp_path / "model")
    assert code == 1
    assert "verl's model merger stopped with exit status 1" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_prune_lists_asks_and_keeps_what_is_needed(run):
    for step in (6, 8, 10):
        shutil.copytree(run / "checkpoints/global_step_2", run / f"checkpoints/global_step_{step}")
    with (run / "metrics.2.jsonl").open("w") as stream:
        for step, value in ((6, 0.9), (8, float("nan")), (10, 0.1)):
            stream.write(json.dumps({"step": step, "data": {METRIC: value}}) + "\n")
    (run / "checkpoints/latest_checkpointed_iteration.txt").write_text("10")
    (run / "checkpoints/notes.txt").write_text("mine")
    elsewhere = run / "elsewhere"
    shutil.copytree(run / "checkpoints/global_step_2", elsewhere)
    (run / "checkpoints/global_step_1").symlink_to(elsewhere)

    asked = [run / "checkpoints", "--best", METRIC, "--prune", "2"]
    for answer in ("n\n", ""):
        code, told = export(*asked, answer=answer)
        assert "(step 2, step 6, step 10 stay)" in told
        assert len(list((run / "checkpoints").glob("global_step_*"))) == 6
    code, told = export(*asked, "--yes")
    assert (code, "2 checkpoint(s) deleted" in told) == (0, True)
    left = {path.name for path in (run / "checkpoints").iterdir()}
    assert left == {
        *(f"global_step_{step}" for step in (1, 2, 6, 10)), "latest_checkpointed_iteration.txt", "notes.txt"
    }  # fmt: skip
    assert (elsewhere / "actor").is_dir()
    assert "nothing to prune" in export(*asked, "--yes")[1]


def test_bad_input(run, tmp_path):
    checkpoints = run / "checkpoints"
    assert "holds no checkpoint" in export(tmp_path)[1]
    assert "holds no checkpoint" in export(checkpoints / "global_step_3")[1]
    assert f"near it: {METRIC}" in export(checkpoints, "--best", METRIC.replace("acc", "accuracy"))[1]
    assert "'most' is not one of 'max', 'min'" in export(checkpoints, "--best", METRIC, "--mode", "most")[1]
    assert "need all of a run" in export(checkpoints / "global_step_2", "--prune", "1")[1]
    assert "No such file or directory" in export(checkpoints, "--metrics", run / "no.jsonl")[1]
    (run / "broken.jsonl").write_text('{"step": 1, "data": {}}\nnot json\n')
    assert "line 2 is not" in export(checkpoints, "--metrics", run / "broken.jsonl")[1]
    (run / "other.yaml").write_text("a: 1\n")
    assert "is no configuration of verl's trainer" in export(checkpoints, "--config", run / "other.yaml")[1]
    (run / "late.jsonl").write_text(json.dumps({"step": 3, "data": {METRIC: 1}}) + "\n")
    assert "logged at steps [3]" in export(checkpoints, "--best", METRIC, "--metrics", run / "late.jsonl")[1]
    for log in run.glob("metrics*.jsonl"):
        log.unlink()
    (run / "config.yaml").unlink()
    assert "there is no log metrics*.jsonl" in export(checkpoints, "--best", METRIC)[1]
    code, told = export(checkpoints)
    assert (code, "the card will not tell base model" in told) == (0, True)
