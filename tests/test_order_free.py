"""The comparison of the two forms of the loss, on models of random weights and a few steps."""

import pandas as pd
import pytest

from bench import order_free
from contextrl_verl.demo.tiny_model import make_model


@pytest.fixture(scope="module")
def rows(demo_tokenizer):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_free, "load", lambda *_: (demo_tokenizer, make_model(None, demo_tokenizer)))
        small = order_free.Setting((1e-3, 3e-4), steps=4, pairs=2, held_out=4, warm_up=2)
        patch.setattr(order_free, "SETTINGS", dict.fromkeys(order_free.SETTINGS, small))
        jobs = [
            (name, None, 2, rate, form)
            for name in ("demo", "smollm2")
            for rate in small.rates
            for form in order_free.COLORS
        ]
        yield pd.DataFrame([row for job in jobs for row in order_free.train(job)])


def test_both_forms_start_alike_and_are_followed_step_by_step(rows):
    told = rows[(rows["model"] == "demo") & (rows["rate"] == 1e-3)]
    for form in order_free.COLORS:
        of_form = told[told["form"] == form]
        assert of_form["step"].tolist() == [0, 3, 4]
    each, averaged = (told[told["form"] == form].iloc[0] for form in order_free.COLORS)
    assert each["plain"] == averaged["plain"]
    assert each["loss"] >= averaged["loss"]  # the loss is convex in the margin


def test_the_table_and_the_pictures_show_every_run(rows, tmp_path):
    text = order_free.markdown(rows)
    assert len(text.splitlines()) == 2 + 8
    assert "| demo | 0.001 | `averaged` | " in text
    order_free.draw_curves(rows, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_steps_to_enough():
    run = pd.DataFrame({"step": [0, 3, 6], "plain": [0.5, 0.9, 0.8]})
    assert order_free.steps_to_enough(run, "plain") == "3"
    assert order_free.steps_to_enough(run[run["plain"] < 0.9], "plain") == ">6"


def test_facts_are_one_value_apart_and_splits_share_no_cell():
    found = {split: order_free.fact_pairs(60, 1, split) for split in ("train", "heldout")}
    cells = {}
    for split, pairs in found.items():
        for pair in pairs:
            right, wrong = (dict(line.split() for line in one.text.split("\n")) for one in pair.contexts)
            (key,) = [key for key in right if right[key] != wrong[key]]
            assert pair.query == f"what is {key}?"
            assert pair.answer == right[key]
            cells.setdefault(split, set()).add((key, *sorted((right[key], wrong[key]))))
    assert not cells["train"] & cells["heldout"]
