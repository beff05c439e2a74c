"""A probe that was stopped goes on where it was, and other conditions are asked anew."""

from __future__ import annotations

import pytest
from probe_stubs import Stub, couples, guesser

from contextrl_verl.pairs.prompting import PromptConfig
from data_prep.models.cache import ReplyCache
from data_prep.probe.cached_backend import Remembered
from data_prep.probe.questions import Questions
from data_prep.probe.run import probe

PROMPT = PromptConfig(template="short")


def by_content(question):
    """Answers that depend on the question alone."""
    return guesser(str(question.messages))(question)


class Breaking(Stub):
    def answers(self, questions):
        for number, (question, answer) in enumerate((q, self.rule(q)) for q in questions):
            if number == 5:
                raise KeyboardInterrupt
            self.asked += 1
            yield question, answer


def test_a_stopped_probe_goes_on(tmp_path):
    pairs = couples(8)
    whole = probe(pairs, Stub(by_content), Questions(PROMPT))
    with pytest.raises(KeyboardInterrupt):
        probe(pairs, Remembered(Breaking(by_content), ReplyCache(tmp_path), "x"), Questions(PROMPT))
    stub = Stub(by_content)
    rest = probe(pairs, backend := Remembered(stub, ReplyCache(tmp_path), "x"), Questions(PROMPT))
    assert stub.asked == 32 - 5
    assert backend.summary()["known_before"] == 5
    assert rest.questions.equals(whole.questions)
    again = Stub(by_content)
    assert probe(pairs, Remembered(again, ReplyCache(tmp_path), "x"), Questions(PROMPT)).overall == whole.overall
    assert again.asked == 0


def test_other_conditions_are_asked_anew(tmp_path):
    pairs, model = couples(2), tmp_path / "model"
    model.mkdir()

    def asked(made_by="x", prompt=PROMPT):
        stub = Stub(by_content)
        stub.name = str(model)
        probe(pairs, Remembered(stub, ReplyCache(tmp_path / "cache"), made_by), Questions(prompt))
        return stub.asked

    assert [asked(), asked()] == [8, 0]
    assert asked("y") == 8
    assert asked(prompt=PromptConfig()) == 8
    assert asked(prompt=PromptConfig(template="short", labels=("C", "D"))) == 8
    (model / "weights").write_text("new")
    assert asked() == 8


def test_a_damaged_record_is_asked_again(tmp_path):
    pairs = couples(1)
    probe(pairs, Remembered(Stub(by_content), ReplyCache(tmp_path), "x"), Questions(PROMPT))
    for path in tmp_path.rglob("*.json"):
        path.write_text(path.read_text().replace('"scores"', '"other"'))
    stub = Stub(by_content)
    probe(pairs, Remembered(stub, ReplyCache(tmp_path), "x"), Questions(PROMPT))
    assert stub.asked == 4
