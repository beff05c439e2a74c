"""The small job's files, the demonstration's keys, its picture, and a recipe's rehearsal."""

import pytest

from contextrl_verl.demo.evidence_pairs import evidence_pairs, rl_rows
from contextrl_verl.demo.job import PAIRS, VAL_ROWS
from contextrl_verl.demo.picture import HELD_OUT, draw
from contextrl_verl.demo.run import _keys
from contextrl_verl.demo.smoke import main
from contextrl_verl.pairs.files import PairFile


@pytest.mark.parametrize(("margin", "pairs"), [("each", 32), ("averaged", 16)])
def test_a_batch_of_the_demo_has_as_many_prompts_of_pairs(tmp_path, margin, pairs):
    data = evidence_pairs(40, 1), []
    sizes = {"steps": 12, "rate": 5e-4, "tokens": [2048, 4]}
    keys = _keys(tmp_path, "act2", 1, {"contextrl.loss.margin": margin}, data, 32, **sizes)
    assert (keys["contextrl.pairs.per_batch"], keys["data.train_batch_size"]) == (pairs, pairs + 8)
    assert keys["actor_rollout_ref.actor.ppo_mini_batch_size"] * 4 == pairs + 8 * 4
    assert keys["actor_rollout_ref.rollout.max_model_len"] >= 2048 + 4
    assert len(PairFile(tmp_path / "act2" / PAIRS)) == 40


def test_the_picture_needs_no_more_than_what_was_logged(tmp_path):
    history = [(step, {"actor/contextrl/loss": 1 / step, HELD_OUT: 0.5}) for step in (1, 2)]
    draw(tmp_path / "demo.png", history, history, "title", 0.2)
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_a_rehearsal_makes_its_data_and_prints_what_shrinks_the_recipe(tmp_path, capsys):
    import pandas as pd

    assert main(["qwen3_vl", "--out", str(tmp_path)]) == 0
    assert "trainer.total_training_steps=2" in capsys.readouterr().out
    assert len(PairFile(tmp_path / PAIRS)) == 16
    rows = pd.read_parquet(tmp_path / VAL_ROWS)
    assert len(rows) == 2
    assert set(rows) == {*rl_rows(1)[0], "images"}
    assert (tmp_path / "model" / "config.json").exists()
    assert main(["qwen3_vl", "--out", str(tmp_path / "none"), "--sft"]) == 0
    assert "data.train_batch_size=8" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
