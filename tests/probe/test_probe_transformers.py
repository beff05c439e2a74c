"""Logits of options as a model in transformers has them."""

from __future__ import annotations

import pytest
import torch
from image_factory import image_pair
from pair_factory import text_pair
from probe_stubs import couples

from contextrl_verl.demo.tiny_vision import FAMILIES, make_model, make_processor
from contextrl_verl.errors import ConfigError
from contextrl_verl.objective import context_awareness_loss, pair_sums
from contextrl_verl.pairs.prompting import PromptConfig
from data_prep.probe.local_backend import PLAIN, LocalModel, TransformersBackend
from data_prep.probe.questions import Questions
from data_prep.probe.run import probe

PROMPT = PromptConfig(labels=("A", "B", "C"))


def mixed_questions():
    pairs = [text_pair(number, confounders=1 + number % 2, length=1 + 5 * number) for number in range(6)]
    return [question for row, pair in enumerate(pairs) for question in Questions(PROMPT).of(pair, row)]


def direct(model_folder, ids) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return torch.stack([model(input_ids=torch.tensor([row])).logits[0, -1] for row in ids])


@pytest.fixture(scope="module")
def asked(tiny_model):
    backend = TransformersBackend(tiny_model, PROMPT, device="cpu", batch_tokens=3000)
    answers = {question.key: answer for question, answer in backend.answers(mixed_questions())}
    return backend, answers


def test_scores_are_the_logits_of_a_direct_forward(tiny_model, asked):
    backend, answers = asked
    questions = mixed_questions()
    logits = direct(tiny_model, [backend.encode(question) for question in questions])
    for question, row in zip(questions, logits, strict=True):
        ids = backend.option_ids[: len(question.labels)]
        assert answers[question.key].scores == pytest.approx(row[ids].tolist(), abs=1e-5)
        assert answers[question.key].mass == pytest.approx(float(row.softmax(0)[ids].sum()), abs=1e-5)


def test_a_batch_answers_as_single_questions_do(tiny_model, asked):
    backend, answers = asked
    assert backend.summary()["forwards"] < len(answers)
    single = TransformersBackend(tiny_model, PROMPT, device="cpu", batch_tokens=1)
    alone = {question.key: answer for question, answer in single.answers(mixed_questions())}
    assert single.summary()["forwards"] == len(alone) == len(answers)
    for key, answer in alone.items():
        assert answers[key].scores == pytest.approx(answer.scores, abs=1e-4)


def test_a_model_that_keeps_all_logits_gives_the_same(tiny_model, asked, monkeypatch):
    """Some models of other makers cannot leave logits out."""
    backend, answers = asked
    forward = backend.model.forward
    monkeypatch.setattr(backend.model, "forward", lambda input_ids, attention_mask, use_cache: forward(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache))  # fmt: skip
    for question, answer in backend.answers(mixed_questions()):
        assert answers[question.key].scores == pytest.approx(answer.scores, abs=1e-5)


def test_a_random_model_is_at_chance_by_the_metrics_of_training(tiny_model):
    backend = TransformersBackend(tiny_model, PromptConfig(template="short"), device="cpu")
    pairs = couples(25)
    found = probe(pairs, backend, Questions(backend.prompt))
    assert found.overall["low"] < 0.5 < found.overall["high"]
    questions = [question for row, pair in enumerate(pairs) for question in Questions(backend.prompt).of(pair, row)]
    full = direct(tiny_model, [backend.encode(question) for question in questions])
    options, right = full[:, backend.option_ids], torch.tensor([question.right for question in questions])
    sums = pair_sums(context_awareness_loss(options, right), full, options, right, 5.0)
    assert found.overall["accuracy"] == pytest.approx(float(sums.accuracy) / 100)
    assert found.overall["margin_mean"] == pytest.approx(float(sums.margin_mean) / 100, abs=1e-5)
    assert found.overall["option_mass"] == pytest.approx(float(sums.option_mass) / 100, abs=1e-6)
    assert found.overall["training_position_bias"] == pytest.approx(float(sums.position_bias) / 100)


@pytest.mark.parametrize("family", FAMILIES)
def test_images_go_through_the_processor(demo_tokenizer, tmp_path, family):
    processor = make_processor(demo_tokenizer, family)
    model = make_model(processor, family, tmp_path).eval()
    backend = TransformersBackend(str(tmp_path), PromptConfig(), device="cpu", dtype="float32")
    pair = image_pair(1, [[(64, 64)], [(96, 64)]], noisy=True)
    answers = {
        question.key: (question, answer) for question, answer in backend.answers(Questions(PromptConfig()).of(pair, 0))
    }
    assert len(answers) == 2
    for question, answer in answers.values():
        text = processor.apply_chat_template(question.messages, tokenize=False, add_generation_prompt=True)
        images = [part["image"] for part in question.messages[0]["content"] if part["type"] == "image"]
        inputs = processor(text=[text], images=images, return_tensors="pt", add_special_tokens=False)
        assert backend.length(question) == inputs["input_ids"].shape[1]
        with torch.inference_mode():
            row = model(**inputs).logits[0, -1]
        assert answer.scores == pytest.approx(row[backend.option_ids].tolist(), abs=1e-4)
        assert answer.mass == pytest.approx(float(row.softmax(0)[backend.option_ids].sum()), abs=1e-5)
    scores = [answer.scores for _, answer in answers.values()]
    assert scores[0] != pytest.approx(scores[1], abs=1e-4), "the images do not matter to this model"


def test_a_base_model_needs_a_template(tiny_model, demo_tokenizer, tmp_path):
    import shutil

    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    (base / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match=r"no chat template, so it is a base model. Fix: --plain"):
        LocalModel(str(base), PROMPT)
    plain = LocalModel(str(base), PromptConfig(prefill="Answer:"), chat_template=PLAIN)
    question = next(iter(Questions(plain.prompt).of(text_pair(1), 0)))
    assert plain.tokenizer.decode(plain.encode(question)) == question.messages[0]["content"] + "\n\nAnswer:"
    assert plain.tokenizer.decode(plain.option_ids) == " A B"


def test_what_cannot_be_loaded_is_said(tiny_model, tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be loaded: .* Fix: name a complete checkpoint"):
        LocalModel(str(tmp_path), PROMPT)
    with pytest.raises(ConfigError, match="--dtype is 'float99'"):
        TransformersBackend(tiny_model, PROMPT, dtype="float99")
    with pytest.raises(ConfigError, match="--device is 'toaster'"):
        TransformersBackend(tiny_model, PROMPT, device="toaster")
    with pytest.raises(ConfigError, match="is 3 tokens"):
        LocalModel(tiny_model, PromptConfig(labels=("zqx", "B")))


def test_a_batch_that_does_not_fit_says_how_large_it_was(tiny_model):
    backend = TransformersBackend(tiny_model, PROMPT, device="cpu")
    backend.load()

    def full(**inputs):
        raise torch.OutOfMemoryError("no")

    backend.model.forward = full
    with pytest.raises(ConfigError, match=r"a batch of 15 questions of \d+ tokens does not fit .* Fix: --batch-tokens"):
        list(backend.answers(mixed_questions()))
