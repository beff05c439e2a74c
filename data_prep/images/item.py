"""What the steps of the image side hand to each other: questions about pictures, couples of pictures; JSON a line.

And when two questions ask the same, and two answers differ; in doubt answers are taken to be the same.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from reward_fns.short_answer import normalise, read_number

Method = Literal["retrieve", "edit"]
Template = Literal["exact", "normalised"]
# At the end of a word only, so that 1.5 and 1,5 and a time keep theirs. Not "!", which is a factorial.
_PUNCTUATION = re.compile(r"[?.,;:]+(?=\s|$)")
_QUOTES = str.maketrans("‘’“”«»`", '\'\'""""\'')


@dataclass(frozen=True)
class VqaItem:
    """One question about one picture, as its source spells it; ``item_id`` is unique in a job.

    Attributes:
        image: content hash under which :class:`data_prep.images.store.ImageStore` holds the picture.
        domain: kind of picture, a free label, e.g. ``shapes``, ``chart``, ``natural``.
        provenance: what finds the record again in its ``source`` (JSON values).
    """

    item_id: str
    image: str
    question: str
    answer: str
    domain: str
    source: str
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageCouple:
    """Two pictures and one question that they answer differently; becomes two pairs, one in each direction.

    Attributes:
        images: content hashes; ``images[i]`` supports ``answers[i]``.
        provenance: of each picture: its item's, or how it was edited.
        facts: numbers for the report, e.g. ``cosine`` or ``operation``.
    """

    question: str
    images: tuple[str, str]
    answers: tuple[str, str]
    method: Method
    domain: str
    provenance: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    facts: dict[str, Any] = field(default_factory=dict)


Taken = TypeVar("Taken")
Record = TypeVar("Record", VqaItem, ImageCouple)


def write_records(records: Iterable[Record], path: Path) -> None:
    """Write items or couples, in order."""
    with path.open("w", encoding="ascii") as file:
        file.writelines(json.dumps(asdict(record), sort_keys=True) + "\n" for record in records)


def read_items(paths: Iterable[Path], kind: type[Record] = VqaItem) -> Iterator[Record]:
    """The items, or the couples, of several files, in order."""
    for path in paths:
        with path.open(encoding="ascii") as file:
            for line in file:
                fields = json.loads(line)
                yield kind(
                    **{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
                )


def in_turns(groups: Iterable[Iterable[Taken]]) -> Iterator[Taken]:
    """One of each group in turn, as long as it has some."""
    turns = deque(map(iter, groups))
    while turns:
        turn = turns.popleft()
        with suppress(StopIteration):
            yield next(turn)
            turns.append(turn)


def question_key(question: str, template: Template = "normalised") -> str:
    """Equal for questions that ask the same: letter by letter, or up to case, blanks and punctuation."""
    if template == "exact":
        return question
    # NFC, not NFKC: a square is not the digit 2.
    text = unicodedata.normalize("NFC", question).casefold().translate(_QUOTES)
    return " ".join(_PUNCTUATION.sub(" ", text).split())


@dataclass(frozen=True)
class AnswerKey:
    """An answer as it is compared: its words, casefolded, without articles and punctuation (``yes`` or ``no`` for a
    sentence that begins so); its value, if it is a number and nothing else, with ``%`` or a currency sign as unit."""

    words: str
    number: float | None = None
    unit: str = ""

    def differs(self, other: AnswerKey) -> bool:
        """Whether the answers cannot both be right of one picture: 1.0 and 1 can, and so can 5 and 5 %."""
        if self.words == other.words:
            return False
        same_number = self.number is not None and self.number == other.number
        return not (same_number and (self.unit == other.unit or not self.unit or not other.unit))


def answer_key(answer: str) -> AnswerKey:
    """How an answer is compared; ``words`` are empty for an answer of punctuation only."""
    found = read_number(answer)
    number, unit = found if found else (None, "")
    # Punctuation around a word is trimmed, and a minus is no punctuation.
    words = normalise(answer) if number is None else f"{number:.12g}{unit}"
    for polar, opposite in (("yes", "no"), ("no", "yes")):
        said = words.split()
        if said[:1] == [polar] and opposite not in said:
            words = polar
    return AnswerKey(words, number, unit)
