"""``contextrl probe`` with a tiny model: what it writes, what it compares, and what it says of mistakes."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
from image_factory import image_pair
from probe_stubs import couples
from typer.testing import CliRunner

from contextrl_verl.cli import app
from contextrl_verl.pairs.files import write_pairs


@pytest.fixture
def ask(tiny_model, tmp_path):
    write_pairs(couples(10), tmp_path / "pairs.parquet")

    def call(*arguments, model=tiny_model, pairs="pairs.parquet"):
        command = ["probe", str(tmp_path / pairs), "--cache", str(tmp_path / "cache"), "--device", "cpu"]
        command += ["--model", model] if model else []
        command += [] if "--out" in arguments else ["--out", str(tmp_path / "out")]
        return CliRunner().invoke(app, [*command, *arguments])

    return call


def test_a_probe_writes_numbers_table_picture_and_page(ask, tmp_path, tiny_model):
    done = ask("--template", "short")
    assert done.exit_code == 0, done.output
    assert f"{tiny_model}: 40 questions, chance 50.0%; pairs 20, accuracy " in done.output
    folder = tmp_path / "out"
    assert sorted(path.name for path in folder.iterdir()) == [
        "index.html", "probe.md", "probe.png", "questions.parquet", "summary.json",
    ]  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["model"], summary["template"], summary["labels"]) == (tiny_model, "short", ["A", "B"])
    assert summary["low"] <= summary["accuracy"] <= summary["high"]
    assert summary["low"] < 0.5 < summary["high"]
    assert summary["asked_with"]["dtype"] == "float32"
    assert {group["by"] for group in summary["groups"]} == {"split", "domain", "contexts", "length", "similarity"}
    table = (folder / "probe.md").read_text()
    assert "| domain code | 10 |" in table
    assert "| overlap: lines | 20 |" in table
    assert (folder / "probe.png").read_bytes().startswith(b"\x89PNG")
    questions = pd.read_parquet(folder / "questions.parquet")
    assert len(questions) == 40

    # Again, from what is known, and the same; and another model against it.
    again = ask("--template", "short", "--compare", str(folder), "--out", str(tmp_path / "again"))
    assert again.exit_code == 0, again.output
    assert "+0.0%" in again.output
    assert "exact McNemar p = 1" in again.output
    assert (tmp_path / "again" / "questions.parquet").read_bytes() == (folder / "questions.parquet").read_bytes()
    second = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert second["asked_with"]["known_before"] == 40
    assert second["comparison"]["tests"]["question"] == {"units": 40, "better": 0, "worse": 0, "p": 1.0}
    stored = ask("--results", str(folder), "--compare", str(tmp_path / "again"), model="")
    assert stored.exit_code == 0, stored.output
    assert "on 40 common questions" in stored.output


def test_results_of_other_pairs_are_not_compared(ask, tmp_path):
    assert ask("--template", "short").exit_code == 0
    write_pairs(couples(9), tmp_path / "others.parquet")
    done = ask("--template", "short", "--compare", str(tmp_path / "out"), pairs="others.parquet")
    assert done.exit_code == 1
    assert "was made from other pairs ('pairs.parquet')" in done.stderr
    none = ask("--compare", str(tmp_path / "nowhere"))
    assert "there is no result of a probe" in none.stderr


def test_long_pairs_are_one_sentence_or_are_left_out(ask, tmp_path):
    write_pairs([*couples(10), *couples(1, query="why? " * 4000, pair_id="long")[:1]], tmp_path / "long.parquet")
    done = ask("--template", "short", pairs="long.parquet")
    assert done.exit_code == 1
    assert "1 of 21 pairs are longer than the 4096 tokens" in done.stderr
    assert "--skip-long leaves them out." in done.stderr
    assert "Loading weights" not in done.stderr
    skipped = ask("--template", "short", "--skip-long", pairs="long.parquet")
    assert skipped.exit_code == 0
    assert "- 1 (length): longer than the model's 4096 tokens" in (tmp_path / "out" / "probe.md").read_text()


def test_a_base_model_is_asked_plainly(ask, tiny_model, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    (base / "chat_template.jinja").unlink()
    refused = ask(model=str(base))
    assert refused.exit_code == 1
    assert "so it is a base model. Fix: --plain" in refused.stderr
    done = ask("--plain", "--template", "short", model=str(base))
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["prefill"] == "Answer:"
    chat = tmp_path / "chat.jinja"
    chat.write_text("{% for m in messages %}USER {{ m['content'] }}{% endfor %}{{ '\\nMODEL\\n' }}")
    assert ask("--chat-template", str(chat), "--template", "short", model=str(base)).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--labels", "zqx,B"], "--labels: label 'zqx' is 3 tokens"),
        (["--labels", "A,A"], "--labels is ['A', 'A']"),
        (["--labels", "A"], "--labels is ['A']"),
        (["--template", "none"], "--template is 'none'"),
        (["--engine", "x", "--backend", "vllm"], "--engine 'x' is not NAME=VALUE"),
        (["--engine", "x=1"], "--engine is for --backend vllm"),
        (["--plain", "--chat-template", "x"], "--plain and --chat-template are both given"),
        (["--sampled", "2"], "--sampled reads replies of an --endpoint. Fix:"),
        (["--endpoint", "m"], "Give one of --model, --endpoint and --results"),
        (["--chat-template-kwargs", "tokenize=true"], "--chat-template-kwargs is {'tokenize': True}"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_sentence(ask, arguments, said):
    done = ask(*arguments)
    assert done.exit_code == 1
    assert said in done.stderr
    assert done.stderr.startswith("contextrl probe: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.output


def test_what_is_missing_is_said(ask, tmp_path):
    assert "Give one of --model" in ask(model="").stderr
    assert "there is nothing to do with it. Fix: --compare." in ask("--results", str(tmp_path), model="").stderr
    assert "no such file" in ask(pairs="none.parquet").stderr
    assert "cannot be loaded" in ask(model=str(tmp_path / "none")).stderr
    write_pairs([image_pair(1, [[(56, 56)], [(84, 56)]])], tmp_path / "images.parquet")
    assert "a pair holds images, but --model=" in ask(pairs="images.parquet").stderr
    assert "--plain shows text only" in ask("--plain", pairs="images.parquet").stderr
