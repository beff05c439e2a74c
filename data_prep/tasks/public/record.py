"""What is known of a public data set, and what one of its examples asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from data_prep.images.sources.types import RowRejected

Kind = Literal["math", "multiple_choice", "short", "patch"]
# The reward that scores a kind of answer, see reward_fns.
REWARDS: dict[Kind, str] = {
    "math": "contextrl/math",
    "multiple_choice": "contextrl/multiple_choice",
    "short": "contextrl/vqa",
    "patch": "contextrl/question_answering",
}


@dataclass(frozen=True)
class Question:
    """One question of an example.

    Attributes:
        text: the question; marks ``<image>`` say where its pictures stand, without any they come first.
        answer: a formula, a letter, a short text or a unified diff, by ``kind``.
        kind: how it is answered and scored.
        pictures: as the example holds them: bytes, paths or structs of these.
        choices: of a multiple choice, without letters.
        instance: of an issue: ``instance_id``, ``repo`` and whatever else an agent loop needs (JSON values).
    """

    text: str
    answer: str
    kind: Kind
    pictures: tuple[Any, ...] = ()
    choices: tuple[str, ...] = ()
    instance: Mapping[str, Any] = field(default_factory=dict)


# A question that an example has but that is not used is yielded as its reason; a raised one stands for the example.
Reader = Callable[[Mapping[str, Any]], Iterator[Question | RowRejected]]


@dataclass(frozen=True)
class PublicSet:
    """A data set.

    Attributes:
        name: on the command line.
        hub: its id on the Hugging Face Hub.
        subset: of it.
        train, validation: names of its splits; ``""``: it has none for validation.
        domain: kind of pictures or work, as the paper groups them.
        columns: what an example must have.
        optional: what is read where it is there.
        read: gives the questions of an example, see :data:`Reader`.
        kinds: of its answers.
        tolerance: by which share of the right number a short answer may be off.
        streamed: whether it can be read from the Hub without being downloaded as a whole.
        licence: as its card states it; ``""`` where the card was not seen or states none.
        evidence: where the columns are known from.
    """

    name: str
    hub: str
    domain: str
    columns: tuple[str, ...]
    read: Reader
    kinds: tuple[Kind, ...]
    evidence: str
    subset: str = ""
    train: str = "train"
    validation: str = ""
    optional: tuple[str, ...] = ()
    tolerance: float = 0.0
    streamed: bool = True
    licence: str = ""

    @property
    def issues(self) -> bool:
        """Whether it is a list of issues of repositories, not of questions about pictures."""
        return self.kinds == ("patch",)
