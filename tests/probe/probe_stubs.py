"""Couples of text pairs, and models that answer by rule."""

from __future__ import annotations

import random

from contextrl_verl.pairs import Context, ContrastivePair
from data_prep.probe.questions import Answer


def couple(number: int, length: int = 2, **more) -> list[ContrastivePair]:
    """Two pairs that show the same two contexts; each is right once."""
    texts = [f"step {number} opens the file {side}\n" + "it goes on\n" * length for side in ("left", "right")]
    contexts = [Context(kind="text", text=text) for text in texts]
    return [
        ContrastivePair(
            **{
                "pair_id": f"c{number}-{side}",
                "domain": "code" if number % 2 else "web",
                "query": "which file is opened?",
                "answer": ("left", "right")[side],
                "supporting": contexts[side],
                "confounders": [contexts[1 - side]],
                "provenance": {"couple": f"c{number}"},
                "split": "probe",
                **more,
            }
        )
        for side in (0, 1)
    ]


def couples(count: int, **more) -> list[ContrastivePair]:
    return [pair for number in range(count) for pair in couple(number, length=1 + number % 4, **more)]


class Stub:
    """Answers by ``rule(question) -> Answer``; counts words as tokens."""

    name = "stub"

    def __init__(self, rule, window=None):
        self.rule, self.window, self.asked = rule, window, 0

    def length(self, question):
        return len(str(question.messages).split())

    def answers(self, questions):
        # Backwards, because a backend may answer in any order.
        for question in reversed(list(questions)):
            self.asked += 1
            yield question, self.rule(question)

    def summary(self):
        return {"backend": "stub"}


def oracle(question):
    return Answer(scores=tuple(4.0 * (at == question.right) for at in range(len(question.labels))), mass=0.9)


def always_first(question):
    return Answer(scores=tuple(-float(at) for at in range(len(question.labels))), mass=0.5)


def guesser(seed):
    draw = random.Random(seed)
    return lambda question: Answer(scores=tuple(draw.random() for _ in question.labels), mass=0.1)
