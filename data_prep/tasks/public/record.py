"""What is known of a public data set, what one of its examples asks, and that question as a row will hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from data_prep.images.sources.base import RowRejected

Kind = Literal["math", "multiple_choice", "short", "patch"]
# The reward that scores a kind of answer, see reward_fns.
REWARDS: dict[Kind, str] = {
    "math": "contextrl/math",
    "multiple_choice": "contextrl/multiple_choice",
    "short": "contextrl/vqa",
    "patch": "contextrl/question_answering",
}
# Of an instance, what is short; the rest can be megabytes of test names.
SHORT = ("instance_id", "repo", "base_commit", "image_name")


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
    instance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PublicItem(Question):
    """A question whose pictures are names in the :class:`data_prep.images.store.ImageStore`.

    Attributes:
        item_id: unique among the items of a job.
        split: ``train`` or ``validation``: in which of the set's splits it is.
    """

    item_id: str
    split: str

    @property
    def question(self) -> str:
        """The text with its choices: maps are asked about again and again with other ones."""
        return "\n".join([self.text, *self.choices])

    @property
    def image(self) -> str:
        """What two questions must share to be about the same thing."""
        return ",".join(self.pictures) or str(self.instance.get("instance_id", ""))

    def units(self, split_by: str) -> tuple[str, ...]:
        """What no two splits may share."""
        return self.pictures or (str(self.instance["repo" if split_by == "repository" else "instance_id"]),)


_ITEM = TypeAdapter(PublicItem)


def write_items(items: Iterable[PublicItem], path: Path) -> None:
    """Write items in order, one a line."""
    with path.open("wb") as file:
        file.writelines(_ITEM.dump_json(item) + b"\n" for item in items)


def read_items(paths: Sequence[Path], *, whole: bool = True) -> Iterator[PublicItem]:
    """The items of several files, in order; not ``whole``: of an instance only what is short."""
    for path in paths:
        with path.open("rb") as file:
            for item in map(_ITEM.validate_json, file):
                if not whole and item.instance:
                    item = replace(item, instance={name: item.instance.get(name) for name in SHORT})
                yield item


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
