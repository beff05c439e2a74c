"""The two parts an edit is made of: who proposes it and who carries it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from data_prep.images.edit.plan import EditPlan, NotEdited, Operation

if TYPE_CHECKING:
    from PIL import Image

    from data_prep.images.item import VqaItem

__all__ = ["Editor", "NotEdited", "NotReached", "Proposer"]


class NotReached(NotEdited):
    """A question that an endpoint should have seen and did not (``spending cap``, ``failed``); a rerun may reach it."""


class Part(Protocol):
    """Used within ``async with``.

    Attributes:
        name: of the part and all its settings; goes in fingerprints.
        remote: whether it waits for an endpoint, so that several are worth running at a time.
    """

    name: str
    remote: bool

    async def __aenter__(self) -> Any: ...

    async def __aexit__(self, *exception: object) -> None: ...

    def summary(self) -> dict[str, Any]:
        """Requests, answers and money as plain values; empty for an offline one."""


class Proposer(Part, Protocol):
    """Says how to change a picture so that its question gets another answer."""

    def template(self, item: VqaItem) -> str | None:
        """A name for questions of one kind, over which chosen edits are spread; None if it cannot be edited for."""

    async def propose(self, item: VqaItem, image: Image.Image, seed: int) -> EditPlan:
        """Raises NotEdited if there is nothing to propose, ConfigError if nothing more can be asked."""


class Editor(Part, Protocol):
    """Carries a plan out."""

    operations: frozenset[Operation]

    async def edit(self, image: Image.Image, plan: EditPlan, seed: int) -> Image.Image:
        """A new RGB picture of the same size. Raises as :meth:`Proposer.propose`."""


class Offline:
    """What proposers and editors without an endpoint have in common."""

    remote = False

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exception: object) -> None:
        return None

    def summary(self) -> dict[str, Any]:
        return {}
