"""A probe that was stopped goes on where it was, and other conditions are asked anew."""

from __future__ import annotations

import shutil

import pytest
from probe_stubs import couples, guesser

from contextrl_verl.pairs.prompting import PromptConfig
from data_prep.probe.local_backend import LocalModel
from data_prep.probe.questions import Questions
from data_prep.probe.run import probe

PROMPT = PromptConfig(template="short")


class Guesser(LocalModel):
    """Answers that depend on the question alone; stops before the answer of number ``breaks``."""

    batch = 3

    def __init__(self, model, cache, made_by=("x",), breaks=-1):
        super().__init__(str(model), PROMPT, cache=cache, made_by=made_by)
        self.asked, self.breaks = 0, breaks

    def ask(self, questions):
        for question in questions:
            if self.asked == self.breaks:
                raise KeyboardInterrupt
            self.asked += 1
            yield question, guesser(str(question.messages))(question)


def test_a_stopped_probe_goes_on(tiny_model, tmp_path):
    pairs = couples(8)
    whole = probe(pairs, Guesser(tiny_model, None), Questions(PROMPT))
    with pytest.raises(KeyboardInterrupt):
        probe(pairs, Guesser(tiny_model, tmp_path, breaks=5), Questions(PROMPT))
    rest = probe(pairs, backend := Guesser(tiny_model, tmp_path), Questions(PROMPT))
    assert (backend.asked, backend.known) == (32 - 5, 5)
    assert rest.questions.equals(whole.questions)
    again = Guesser(tiny_model, tmp_path)
    assert probe(pairs, again, Questions(PROMPT)).overall == whole.overall
    assert again.asked == 0


def test_other_conditions_are_asked_anew(tiny_model, tmp_path):
    pairs, model = couples(2), tmp_path / "model"
    shutil.copytree(tiny_model, model)

    def asked(made_by=("x",), prompt=PROMPT, replies=0):
        backend = Guesser(model, tmp_path / "cache", made_by)
        probe(pairs, backend, Questions(prompt, replies=lambda options: replies))
        return backend.asked

    assert [asked(), asked()] == [8, 0]
    assert asked(made_by=("y",)) == 8
    assert asked(prompt=PromptConfig()) == 8
    assert asked(prompt=PromptConfig(template="short", labels=("C", "D"))) == 8
    assert asked(replies=2) == 8
    (model / "weights").write_text("new")
    assert asked() == 8


def test_a_damaged_record_is_asked_again(tiny_model, tmp_path):
    pairs = couples(1)
    probe(pairs, Guesser(tiny_model, tmp_path), Questions(PROMPT))
    for path in tmp_path.rglob("*.json"):
        path.write_text(path.read_text().replace('"scores"', '"other"'))
    probe(pairs, backend := Guesser(tiny_model, tmp_path), Questions(PROMPT))
    assert backend.asked == 4
