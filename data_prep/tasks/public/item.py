"""Questions as the parts of the work hand them over: JSONL, pictures by their names in the store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_prep.tasks.public.record import Kind

# Of an instance, what is short; the rest can be megabytes of test names.
_SHORT = ("instance_id", "repo", "base_commit", "image_name")


@dataclass(frozen=True)
class PublicItem:
    """One question.

    Attributes:
        item_id: unique among the items of a job.
        split: ``train`` or ``validation``: in which of the set's splits it is.
        text, answer, kind, choices, instance: as in :class:`data_prep.tasks.public.record.Question`.
        pictures: names in the :class:`data_prep.images.store.ImageStore`, in the order of their marks.
    """

    item_id: str
    split: str
    text: str
    answer: str
    kind: Kind
    pictures: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    instance: dict[str, Any] = field(default_factory=dict)

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


def write_items(items: Iterable[PublicItem], path: Path) -> None:
    """Write items in order, one a line."""
    with path.open("w", encoding="utf-8") as file:
        for item in items:
            file.write(json.dumps(asdict(item)) + "\n")


def read_items(paths: Sequence[Path], *, whole: bool = True) -> Iterator[PublicItem]:
    """The items of several files, in order; not ``whole``: of an instance only what is short."""
    for path in paths:
        with path.open(encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                if not whole:
                    record["instance"] = {key: record["instance"].get(key) for key in _SHORT if record["instance"]}
                for name in ("pictures", "choices"):
                    record[name] = tuple(record[name])
                yield PublicItem(**record)
