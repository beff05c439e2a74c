"""What to change in a picture and what its question is answered with then; who proposes it, and who carries it out."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints

from data_prep.images.store import ImageRejected, encoded

if TYPE_CHECKING:
    from data_prep.models.endpoint import Reply

Operation = Literal["recolour", "move", "erase", "add", "replace", "reletter", "free"]
Region = tuple[int, int, int, int]
Box = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
_Level = Annotated[float, Field(ge=0, le=255)]


class NotEdited(ImageRejected):
    """A question whose picture is not edited."""


class NotReached(NotEdited):
    """A question that an endpoint should have seen and did not (``spending cap``, ``failed``); a rerun may reach it."""


class Details(BaseModel):
    """What an operation needs besides, and anything else that is to stay with the plan.

    Columns and rows to move ``by``; a ``figure`` of :data:`data_prep.images.edit.drawing.FIGURES`; and the ``box`` of
    what is drawn, fractions allowed, without which it is the plan's region, or what a mask says.
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
        target: what is changed, in words; ``instruction``: for generative editors.
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
    mask: bytes | None = Field(None, repr=False)
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
                # One of another size is not decoded: it may be a bomb.
                found = np.asarray(opened.convert("L")) > 0 if opened.size == image.size else None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise NotEdited("mask is no picture", type(error).__name__) from None
        if found is None:
            raise NotEdited("mask of another size", f"{opened.size}, picture {image.size}")
        if not found.any():
            raise NotEdited("empty mask")
        return found


class Offline:
    """A proposer or editor that asks no endpoint, as a :class:`data_prep.models.endpoint.Endpoint` does.

    A proposer has ``template(item)``, a name for questions of one kind, over which chosen edits are spread, or None for
    one that it cannot edit for; and ``async propose(item, image, seed)``, which gives an :class:`EditPlan`. An editor
    has ``operations`` and ``async edit(image, plan, seed)``, which gives a new RGB picture of the same size. Both raise
    NotEdited if nothing comes of it, ConfigError if nothing more can be asked.

    Attributes:
        name: of the part and all its settings; stays with the pairs.
    """

    name: str
    remote = False


def answered(reply: Reply[Any], what: str) -> Any:
    """What an endpoint answered; raises NotEdited if it gave none that can be used, NotReached if it was not asked."""
    if reply.value is not None:
        return reply.value
    if reply.how in ("malformed", "refused"):
        raise NotEdited(f"{reply.how} {what}", reply.why)
    raise NotReached(reply.how, reply.why)


def mask_bytes(mask: np.ndarray) -> bytes:
    """A mask (height, width), true inside, as PNG for :attr:`EditPlan.mask`."""
    return encoded(Image.fromarray(mask.astype(np.uint8) * 255))


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
