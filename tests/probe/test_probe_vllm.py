"""vLLM reads the same options' logits as transformers does."""

from __future__ import annotations

import pytest
from pair_factory import text_pair

from contextrl_verl.pairs.prompting import PromptConfig
from data_prep.probe.local_backend import TransformersBackend
from data_prep.probe.questions import Questions

pytest.importorskip("vllm", reason="needs vLLM (make setup)")


def test_vllm_agrees_with_transformers(tiny_model):
    from data_prep.probe.vllm_backend import VllmBackend

    prompt = PromptConfig(labels=("A", "B", "C"))
    pairs = [text_pair(number, confounders=1 + number % 2, length=1 + 4 * number) for number in range(4)]
    questions = [question for row, pair in enumerate(pairs) for question in Questions(prompt).of(pair, row)]
    plain = TransformersBackend(tiny_model, prompt, device="cpu")
    expected = {question.key: answer for question, answer in plain.answers(questions)}
    engine = {"max_model_len": 2048, "enforce_eager": True, "max_num_seqs": 8}
    backend = VllmBackend(tiny_model, prompt, dtype="float32", engine=engine)
    assert backend.window == 2047

    answers = dict(backend.answers(questions))
    assert len(answers) == len(questions)
    for question, answer in answers.items():
        other = expected[question.key]
        # Log-probabilities here, logits there: the same up to a constant.
        ours = [score - answer.scores[0] for score in answer.scores]
        theirs = [score - other.scores[0] for score in other.scores]
        assert ours == pytest.approx(theirs, abs=1e-3)
        assert answer.mass == pytest.approx(other.mass, rel=1e-3)
