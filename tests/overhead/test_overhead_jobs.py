"""The two jobs: what they share, where they differ, how long their rows are, and how they take turns."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from bench.overhead.jobs import Sizes, job_keys, ordinary_rows, pairs
from bench.overhead.turns import ORDER, Turns
from contextrl_verl.demo.tiny_model import make_tokenizer
from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.prompting import PromptConfig, PromptRenderer, encode_prompt

SHORT = PromptConfig(template="short")


def test_the_jobs_differ_in_the_pairs_alone():
    plain, paired = (job_keys(Sizes(), job, Path("m"), Path("t")) for job in (0, 1))
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
    }


def test_every_row_has_the_tokens_asked_for():
    tokenizer, sizes = make_tokenizer(), Sizes(prompt=61, pair_prompt=130)
    for row in ordinary_rows(sizes, tokenizer, 5):
        assert len(encode_prompt(row["prompt"], tokenizer, SHORT)) == 61
    renderer = PromptRenderer(SHORT)
    for pair in pairs(sizes, tokenizer, 5):
        for order in ([0, 1], [1, 0]):
            assert len(encode_prompt(renderer.messages(pair, order), tokenizer, SHORT)) == 130


def test_rows_are_different_and_the_same_for_the_same_seed():
    tokenizer, sizes = make_tokenizer(), Sizes()
    first, second = ordinary_rows(sizes, tokenizer, 9), ordinary_rows(sizes, tokenizer, 9)
    assert first == second
    assert len({row["prompt"][0]["content"] for row in first}) == 9
    assert first != ordinary_rows(replace(sizes, seed=2), tokenizer, 9)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"rows": 1}, "rows is 1"),
        ({"hidden": 100}, "hidden is 100"),
        ({"ratio": 1.5}, "the ratio of pairs is 1.5"),
        ({"ratio": 0.0}, "the ratio of pairs is 0.0"),
        ({"pair_prompt": 5000}, "a row has 5001 tokens"),
        ({"steps": 1}, "steps is 1"),
        ({"micro_batch": 16}, "micro_batch is 16"),
    ],
)
def test_sizes_that_cannot_be_are_named_with_their_fix(wrong, named):
    with pytest.raises(ConfigError, match=rf"^{named}.*Fix: "):
        Sizes(**wrong)


def test_a_prompt_shorter_than_its_template_is_named():
    sizes, tokenizer = Sizes(prompt=64, pair_prompt=64), make_tokenizer()
    object.__setattr__(sizes, "pair_prompt", 20)  # Sizes itself refuses so few
    with pytest.raises(ConfigError, match=r"^pair_prompt is 20 tokens, and the template alone has \d+\. Fix: raise it"):
        pairs(sizes, tokenizer, 1)


def test_steps_alternate_and_none_overlaps(tmp_path):
    made, working = [], threading.Lock()

    def job(number):
        turns = Turns(tmp_path, number, steps=4, timeout=20)
        turns.next()
        for _ in range(4):
            assert working.acquire(blocking=False), "both jobs work"
            made.append(number)
            working.release()
            turns.next()

    threads = [threading.Thread(target=job, args=(number,)) for number in (1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    # Neither job is always the first of a round.
    assert made == [*ORDER, *ORDER] == [0, 1, 1, 0, 0, 1, 1, 0]


def test_a_job_waits_for_the_other_to_be_ready(tmp_path):
    with pytest.raises(RuntimeError, match="waited 0 s"):
        Turns(tmp_path, 0, steps=2, timeout=0).next()


def test_a_job_ends_when_the_other_stopped(tmp_path):
    (tmp_path / "stop").touch()
    with pytest.raises(RuntimeError, match="the other job of the benchmark stopped"):
        Turns(tmp_path, 1, steps=2, timeout=20).next()
