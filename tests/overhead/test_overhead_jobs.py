"""The two jobs: what they share, where they differ, how long their rows are, and how they take turns."""

import threading
from pathlib import Path

import pytest

from bench.overhead.__main__ import main
from bench.overhead.jobs import PAIR_PROMPT, PROMPT, job_keys, ordinary_rows, pairs
from bench.overhead.turns import ORDER, Turns
from contextrl_verl.pairs.prompting import PromptConfig, PromptRenderer, encode_prompt

SHORT = PromptConfig(template="short")


def test_the_jobs_differ_in_the_pairs_alone():
    plain, paired = (job_keys(job, 12, Path("m"), Path("t")) for job in (0, 1))
    differing = {key: (plain.get(key), paired.get(key)) for key in plain | paired if plain.get(key) != paired.get(key)}
    assert differing == {
        "+data.turns.job": (0, 1),
        "contextrl.objective": ("none", "context_awareness"),
        "contextrl.pairs.per_batch": (0, 3),
        "data.train_batch_size": (17, 20),
        # One update a step: 136 rows, and 139 filled up to 144.
        "actor_rollout_ref.actor.ppo_mini_batch_size": (17, 18),
        # Without pairs it is verl's own engine.
        "actor_rollout_ref.model.model_type": ("language_model", None),
        "trainer.default_local_dir": ("m/grpo/checkpoints", "m/contextrl/checkpoints"),
        "trainer.experiment_name": ("grpo", "contextrl"),
    }
    rows = [keys["actor_rollout_ref.actor.ppo_mini_batch_size"] * 8 for keys in (plain, paired)]
    assert not [count for count in rows if count % plain["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"]]


def test_every_row_has_the_tokens_asked_for_and_none_is_another(demo_tokenizer):
    rows = ordinary_rows(demo_tokenizer, 9)
    assert {len(encode_prompt(row["prompt"], demo_tokenizer, SHORT)) for row in rows} == {PROMPT}
    assert len({row["prompt"][0]["content"] for row in rows}) == 9
    assert rows == ordinary_rows(demo_tokenizer, 9)
    renderer = PromptRenderer(SHORT)
    for pair in pairs(demo_tokenizer, 5):
        for order in ([0, 1], [1, 0]):
            assert len(encode_prompt(renderer.messages(pair, order), demo_tokenizer, SHORT)) == PAIR_PROMPT


def test_what_cannot_be_measured_is_said(capsys):
    assert main(["--steps", "2"]) == 2
    assert "--steps is 2. Fix: at least 3" in capsys.readouterr().err


def test_steps_alternate_and_none_overlaps(tmp_path):
    made, working = [], threading.Lock()

    def job(number):
        turns = Turns(tmp_path, number, steps=4)
        turns.next()
        for _ in range(4):
            assert working.acquire(blocking=False), "both jobs work"
            made.append(number)
            working.release()
            turns.next()

    threads = [threading.Thread(target=job, args=(number,), daemon=True) for number in (1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    # Neither job is always the first of a round.
    assert made == [*ORDER, *ORDER] == [0, 1, 1, 0, 0, 1, 1, 0]


def test_a_job_ends_when_the_other_stopped(tmp_path):
    (tmp_path / "stop").touch()
    with pytest.raises(RuntimeError, match="the other job stopped"):
        Turns(tmp_path, 1, steps=2).next()
