"""What to change in a picture and what its question is answered with then; who proposes it, and who carries it out."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints

if TYPE_CHECKING:
    from data_prep.images.item import VqaItem

Operation = Literal["recolour", "move", "erase", "add", "replace", "reletter", "free"]
Region = tuple[int, int, int, int]
Box = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
_Level = Annotated[float, Field(ge=0, le=255)]
_Bytes = bytes


class NotEdited(Exception):
    """A question whose picture is not edited: ``reason`` is short, for counting, ``detail`` for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


class NotReached(NotEdited):
    """A question that an endpoint should have seen and did not (``spending cap``, ``failed``); a rerun may reach it."""


class Details(BaseModel):
    """What an operation needs besides, and anything else that is to stay with the plan.

    Attributes:
        colour: red, green, blue: the new one.
        by: columns and rows to move by.
        figure: shape to draw, see :data:`data_prep.images.edit.drawing.FIGURES`.
        box: left, top, right, bottom of what is drawn, fractions allowed; without it the plan's region, or what a mask
            says.
        text: to write.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    colour: tuple[_Level, _Level, _Level] | None = None
    by: tuple[int, int] | None = None
    figure: str | None = None
    box: Box | None = None
    text: str | None = None


class EditPlan(BaseModel):
    """One edit of one picture.

    Attributes:
        operation: ``free`` is whatever the instruction says; the others an offline editor can do as well.
        target: what is changed, in words.
        new_answer: of the question, once the edit is done.
        instruction: for generative editors.
        region: left, top, right, bottom in pixels; right and bottom are the first ones outside. Nothing outside of it
            may change. None if it is not known beforehand.
        mask: picture of the target (PNG, any mode, non-zero inside, same size as the picture); None if not known.
        details: for editors without a model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_bytes="base64", val_json_bytes="base64")
    operation: Operation
    target: str = ""
    new_answer: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    instruction: str = ""
    region: Region | None = None
    mask: _Bytes | None = Field(None, repr=False)
    details: Details = Details()

    def facts(self) -> dict[str, Any]:
        """What the report and the pair's provenance say about it (no pixels)."""
        found = self.model_dump(mode="json", exclude={"mask"}, exclude_defaults=True)
        return found | ({"masked": True} if self.mask is not None else {})

    def region_in(self, image: Image.Image) -> Region | None:
        """The region, if one is given. Raises NotEdited if it does not lie in the picture, or holds no pixel."""
        if self.region is None:
            return None
        left, top, right, bottom = self.region
        if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
            raise NotEdited("region outside the picture", f"{self.region}, picture {image.size}")
        return self.region

    def mask_of(self, image: Image.Image) -> np.ndarray | None:
        """The mask as booleans (height, width), or None. Raises NotEdited if it is of another size, or empty."""
        if self.mask is None:
            return None
        try:
            with Image.open(io.BytesIO(self.mask), formats=["PNG"]) as opened:
                # Before anything is decoded: a bomb has another size, too.
                if opened.size != image.size:
                    raise NotEdited("mask of another size", f"{opened.size}, picture {image.size}")
                found = np.asarray(opened.convert("L")) > 0
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise NotEdited("mask is no picture", type(error).__name__) from None
        if not found.any():
            raise NotEdited("empty mask")
        return found


class Proposer(Protocol):
    """Says how to change a picture so that its question gets another answer; see :class:`Offline`."""

    def template(self, item: VqaItem) -> str | None:
        """A name for questions of one kind, over which chosen edits are spread; None if it cannot be edited for."""

    async def propose(self, item: VqaItem, image: Image.Image, seed: int) -> EditPlan:
        """Raises NotEdited if there is nothing to propose, ConfigError if nothing more can be asked."""


class Editor(Protocol):
    """Carries a plan out; see :class:`Offline`."""

    operations: frozenset[Operation]

    async def edit(self, image: Image.Image, plan: EditPlan, seed: int) -> Image.Image:
        """A new RGB picture of the same size. Raises as :meth:`Proposer.propose`."""


class Offline:
    """A proposer or editor that asks no endpoint; ``remote`` ones are a :class:`data_prep.models.endpoint.Endpoint`.

    Attributes:
        name: of the part and all its settings; stays with the pairs.
    """

    name: str
    remote = False


def mask_bytes(mask: np.ndarray) -> bytes:
    """A mask (height, width), true inside, as PNG for :attr:`EditPlan.mask`."""
    target = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(target, format="PNG")
    return target.getvalue()


def region_of(mask: np.ndarray, margin: int = 0) -> Region:
    """The smallest region around a mask's true pixels, grown by ``margin`` and cut at the picture's border."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    return clipped((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), mask.shape, margin)


def union(one: Region, other: Region) -> Region:
    """The smallest region that holds both."""
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])


def clipped(region: tuple[float, float, float, float], shape: tuple[int, ...], margin: float = 0) -> Region:
    """A region, grown by ``margin``, in whole pixels inside a picture of ``shape`` (height, width, ...)."""
    left, top = (max(0, math.floor(side - margin)) for side in region[:2])
    return left, top, min(shape[1], math.ceil(region[2] + margin)), min(shape[0], math.ceil(region[3] + margin))
