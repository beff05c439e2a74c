"""The probe with models that answer by rule: the numbers, the groups, what is left out, and the comparison."""

from __future__ import annotations

import pytest
import torch
from pair_factory import text_pair
from probe_stubs import Stub, always_first, couples, guesser, oracle

from contextrl_verl.errors import ConfigError
from contextrl_verl.objective import context_awareness_loss, pair_sums
from contextrl_verl.pairs.prompting import PromptConfig
from data_prep.probe.questions import Answer, Questions, labels_for
from data_prep.probe.run import probe
from data_prep.probe.statistics import compare


def ask(rule, pairs, window=None, labels=("A", "B"), **options):
    stub = Stub(rule, window)
    return probe(pairs, stub, Questions(PromptConfig(template="short", labels=labels)), **options), stub


def test_an_oracle_is_always_right():
    found, stub = ask(oracle, couples(10))
    numbers = found.overall
    assert (numbers["accuracy"], numbers["both_orders"], numbers["consistency"]) == (1, 1, 1)
    assert (numbers["position_bias"], numbers["training_position_bias"]) == (0, 0)
    assert numbers["high"] == 1
    assert 0.5 < numbers["low"] < 1
    assert (numbers["pairs"], numbers["couples"], numbers["questions"], stub.asked) == (20, 10, 40, 40)
    assert numbers["option_mass"] == pytest.approx(0.9)
    assert numbers["margin_mean"] == 4


def test_always_the_first_option_is_chance_with_full_bias():
    numbers = ask(always_first, couples(10))[0].overall
    assert numbers["accuracy"] == 0.5
    assert numbers["low"] < 0.5 < numbers["high"]
    assert (numbers["position_bias"], numbers["first_option_share"]) == (1, 1)
    # The metric of training has half that scale for two options.
    assert numbers["training_position_bias"] == 0.5
    assert (numbers["both_orders"], numbers["consistency"]) == (0, 0)


def test_guessing_is_chance_inside_the_interval():
    numbers = ask(guesser(5), couples(60))[0].overall
    assert numbers["low"] < 0.5 < numbers["high"]
    assert abs(numbers["position_bias"]) < 0.25
    assert numbers["both_chance"] == 0.25


def test_three_contexts_are_asked_in_three_orders():
    pairs = [text_pair(number * 10, confounders=2) for number in range(6)]
    numbers = ask(always_first, pairs, labels=labels_for(3))[0].overall
    assert numbers["questions"] == 18
    assert numbers["accuracy"] == pytest.approx(1 / 3) == pytest.approx(numbers["chance"])
    assert numbers["position_bias"] == pytest.approx(1)
    assert numbers["both_chance"] == pytest.approx(1 / 27)
    assert ask(oracle, pairs, labels=labels_for(3))[0].overall["accuracy"] == 1


def test_numbers_are_those_of_the_training_metrics():
    torch.manual_seed(0)
    full = {}

    def rule(question):
        row = full.setdefault(question.key, torch.randn(7).double())
        return Answer(scores=tuple(row[:2].tolist()), mass=float(row.softmax(0)[:2].sum()))

    found, _ = ask(rule, couples(12))
    table = found.questions
    rows = torch.stack([full[key] for key in zip(table["pair_id"], table["rotation"], strict=True)])
    options, right = rows[:, :2], torch.tensor(table["right"].to_numpy())
    sums = pair_sums(context_awareness_loss(options, right), rows, options, right, 5.0)
    for name, ours in {"accuracy": "accuracy", "margin_mean": "margin_mean", "option_mass": "option_mass",
                       "position_bias": "training_position_bias"}.items():  # fmt: skip
        assert found.overall[ours] == pytest.approx(float(getattr(sums, name)) / len(table), abs=1e-6), name


def test_a_tie_is_not_right_as_in_training():
    numbers = ask(lambda question: Answer(scores=(1.0, 1.0), mass=1.0), couples(5))[0].overall
    assert numbers["accuracy"] == 0
    assert numbers["first_option_share"] == 1


def test_votes_count_as_shares_and_unread_replies_as_wrong():
    def rule(question):
        votes = [0, 0]
        votes[question.right] = 2
        return Answer(votes=tuple(votes), unread=2)

    found, _ = ask(rule, couples(5))
    assert found.overall["accuracy"] == 0.5
    assert found.overall["no_choice"] == 0.5
    assert found.overall["both_orders"] == 0
    assert found.overall["consistency"] == 1
    assert found.overall["option_mass"] is found.overall["margin_mean"] is None
    none, _ = ask(lambda question: Answer(votes=(0, 0), unread=1), couples(5))
    assert (none.overall["accuracy"], none.overall["consistency"], none.overall["no_choice"]) == (0, 0, 1)


def test_groups_partition_the_questions():
    found, _ = ask(guesser(1), couples(12))
    for by in ("split", "domain", "contexts", "length", "similarity"):
        groups = [group for group in found.groups if group["by"] == by]
        assert sum(group["questions"] for group in groups) == 48, by
        mean = sum(group["accuracy"] * group["questions"] for group in groups) / 48
        assert mean == pytest.approx(found.overall["accuracy"])
    assert {group["name"] for group in found.groups if group["by"] == "domain"} == {"code", "web"}
    lengths = [group["name"].partition(":")[0] for group in found.groups if group["by"] == "length"]
    assert lengths == ["low", "middle", "high"]


def test_overlap_of_words_stands_beside_the_model():
    found, _ = ask(guesser(1), couples(12))
    named = {one["name"]: one for one in found.baselines}
    # The answer is a word of the supporting context alone.
    assert named["overlap: jaccard"]["accuracy"] == named["overlap: tf-idf"]["accuracy"] == 1
    assert named["chance"]["accuracy"] == 0.5


def test_long_pairs_stop_the_probe_before_the_model_is_asked():
    pairs = couples(8)
    stub = Stub(oracle, window=30)
    longest = max(stub.length(q) for pair in pairs for q in Questions(PromptConfig(template="short")).of(pair, 0))
    assert longest > 30
    with pytest.raises(ConfigError, match=rf"\d+ of 16 pairs are longer than the 30 tokens .* has {longest}\. Fix: "):
        probe(pairs, stub, Questions(PromptConfig(template="short")))
    assert stub.asked == 0
    found, _ = ask(oracle, pairs, window=30, skip_long=True)
    stage = next(stage for stage in found.funnel if stage.name == "length")
    assert stage.dropped == {"longer than the model's 30 tokens": 16 - found.overall["pairs"]}
    assert 0 < found.overall["pairs"] < 16
    with pytest.raises(ConfigError, match="Fix: a model with a longer window"):
        ask(oracle, pairs, window=3, skip_long=True)
    # What just fits is asked.
    assert ask(oracle, pairs, window=longest)[0].overall["pairs"] == 16
    with pytest.raises(ConfigError, match=r"\d+ of 16 pairs"):
        ask(oracle, pairs, window=longest - 1)


def test_a_limit_takes_whole_couples_and_the_same_ones_again():
    pairs = couples(10)
    first, again = (ask(oracle, pairs, limit=7)[0] for _ in range(2))
    assert first.overall["pairs"] == 6
    assert first.overall["couples"] == 3
    assert first.questions.equals(again.questions)
    with pytest.raises(ConfigError, match="--limit is 1"):
        ask(oracle, pairs, limit=1)


def test_questions_without_an_answer_are_counted_by_reason():
    def rule(question):
        return Answer(failure="refused", detail="no") if question.key == ("c0-0", 0) else oracle(question)

    found, _ = ask(rule, couples(4))
    stage = next(stage for stage in found.funnel if stage.name == "answers")
    assert stage.dropped == {"refused": 1}
    assert found.overall["questions"] == 15
    assert found.overall["both_orders"] == 1
    with pytest.raises(ConfigError, match=r"no question was answered: refused \(16\)"):
        ask(lambda question: Answer(failure="refused"), couples(4))


def test_two_models_are_compared_on_the_questions_both_answered():
    pairs = couples(20)
    good, first = ask(oracle, pairs)[0], ask(always_first, pairs)[0]
    found = compare(good.questions, first.questions)
    assert (found["questions"], found["only_here"], found["only_there"]) == (80, 0, 0)
    assert (found["difference"], found["low"], found["high"]) == (0.5, 0.5, 0.5)
    by_question = found["tests"]["question"]
    assert (by_question["better"], by_question["worse"]) == (40, 0)
    assert by_question["p"] == pytest.approx(2 * 0.5**40)
    assert found["tests"]["couple"]["p"] == pytest.approx(2 * 0.5**20)
    assert found["tests"]["pair in every order"]["better"] == 40
    part = good.questions[good.questions["pair_id"] != "c3-0"]
    assert compare(part, first.questions)["only_there"] == 2
    with pytest.raises(ConfigError, match="no question in common"):
        compare(good.questions[:2], first.questions[4:])


def test_another_seed_shows_the_same_questions_under_other_numbers():
    pairs = couples(20)
    one = ask(guesser(1), pairs)[0].questions
    other = probe(pairs, Stub(oracle), Questions(PromptConfig(template="short"), seed=9)).questions
    assert list(one["right"]) != list(other["right"])
    assert compare(one, other)["questions"] == 80


def test_questions_are_those_of_validation_in_training(demo_tokenizer, tmp_path):
    from contextrl_verl.grpo.pair_source import PairSource
    from contextrl_verl.pairs.files import write_pairs
    from contextrl_verl.settings import parse_settings

    write_pairs(couples(6), tmp_path / "pairs.parquet")
    settings = parse_settings({"seed": 3, "prompt": {"template": "short"}})
    source = PairSource([str(tmp_path / "pairs.parquet")], settings, demo_tokenizer, None, "val_files")
    for row in range(len(source)):
        for question in Questions(settings.prompt_config, seed=3).of(source[row], row):
            messages, order = source.messages(source[row], 0, question.rotation)
            assert (question.messages, list(question.order)) == (messages, order)
