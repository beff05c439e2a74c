"""Answers kept on disk as they come, so that a probe that was stopped goes on where it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from data_prep.difficulty.attempts import as_sent
from data_prep.models.cache import ReplyCache, digest
from data_prep.probe.questions import Answer, Backend, Question


class Remembered:
    """A backend whose answers are kept.

    Args:
        backend: is asked what is not yet known, and loaded only then.
        cache: of answers, by everything that can change one.
        made_by: what of the backend can change an answer, as plain JSON values; the files of a model's folder are
            added by size and time.
    """

    def __init__(self, backend: Backend, cache: ReplyCache, made_by: Any) -> None:
        self.backend, self._cache = backend, cache
        self.name, self.window = backend.name, backend.window
        folder = Path(backend.name)
        # A folder may hold other weights tomorrow.
        files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
        weights = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
        self._made_by = ["probe-1", backend.name, weights, made_by]
        self._known = 0

    def length(self, question: Question) -> int | None:
        return self.backend.length(question)

    def load(self) -> None:
        """Nothing yet: perhaps all answers are known."""

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Answer]]:
        """Known answers and new ones."""
        known: list[tuple[Question, Answer]] = []
        keys: dict[tuple[str, int], str] = {}

        def unknown() -> Iterator[Question]:
            for question in questions:
                key = self._key(question)
                answer = self._read(key)
                if answer is None:
                    keys[question.key] = key
                    yield question
                else:
                    # Without the messages, whose images would all stay in memory.
                    known.append((replace(question, messages=[]), answer))

        for question, answer in self.backend.answers(unknown()):
            key = keys.pop(question.key)
            if not answer.failure:
                record = {"model": self.name, "question": list(question.key), "answer": asdict(answer)}
                self._cache.write(key, record)
            yield question, answer
            while known:
                yield self._counted(known.pop())
        while known:
            yield self._counted(known.pop())

    def summary(self) -> dict[str, Any]:
        return {**self.backend.summary(), "known_before": self._known}

    def _counted(self, pair: tuple[Question, Answer]) -> tuple[Question, Answer]:
        self._known += 1
        return pair

    def _key(self, question: Question) -> str:
        return digest([self._made_by, list(question.labels), as_sent(question.messages)])

    def _read(self, key: str) -> Answer | None:
        record = self._cache.read(key)
        if record is None:
            return None
        try:
            found = record["answer"]
            return Answer(scores=tuple(map(float, found["scores"])), mass=float(found["mass"]))
        except (KeyError, TypeError, ValueError):
            self._cache.damaged += 1
            return None
