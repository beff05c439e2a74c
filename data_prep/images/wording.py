"""When two questions ask the same, and when two answers differ; in doubt answers are taken to be the same."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from reward_fns.exact_match import normalise
from reward_fns.vqa import read_number

Template = Literal["exact", "normalised"]
# At the end of a word only, so that 1.5 and 1,5 and a time keep theirs. Not "!", which is a factorial.
_PUNCTUATION = re.compile(r"[?.,;:]+(?=\s|$)")
_QUOTES = str.maketrans("‘’“”«»`", '\'\'""""\'')


def question_key(question: str, template: Template = "normalised") -> str:
    """Equal for questions that ask the same: letter by letter, or up to case, blanks and punctuation."""
    if template == "exact":
        return question
    # NFC, not NFKC: a square is not the digit 2.
    text = unicodedata.normalize("NFC", question).casefold().translate(_QUOTES)
    return " ".join(_PUNCTUATION.sub(" ", text).split())


@dataclass(frozen=True)
class AnswerKey:
    """An answer as it is compared.

    Attributes:
        words: casefolded, without articles and punctuation; ``yes`` or ``no`` for a sentence that begins so.
        number: its value if it is a number and nothing else.
        unit: ``%`` or a currency sign, else empty.
    """

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
