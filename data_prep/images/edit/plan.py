"""What to change in a picture, and what its question is answered with afterwards."""

from __future__ import annotations

import io
import math
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, field_validator

Operation = Literal["recolour", "move", "erase", "add", "replace", "reletter", "free"]
Region = tuple[int, int, int, int]
_Bytes = bytes
_MASK_PIXELS = 64_000_000


class NotEdited(Exception):
    """A question whose picture is not edited: ``reason`` is short, for counting, ``detail`` for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


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
        details: what the operation needs besides, see :class:`data_prep.images.edit.procedural.ProceduralEditor`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_bytes="base64", val_json_bytes="base64")
    operation: Operation
    target: str = ""
    new_answer: str = Field(min_length=1)
    instruction: str = ""
    region: Region | None = None
    mask: _Bytes | None = Field(None, repr=False)
    details: dict[str, Any] = Field(default_factory=dict)

    @field_validator("new_answer")
    @classmethod
    def _says_something(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("the new answer is blank")
        return value.strip()

    def facts(self) -> dict[str, Any]:
        """What the report and the pair's provenance say about it (no pixels)."""
        found = self.model_dump(mode="json", exclude={"mask"}, exclude_defaults=True)
        return found | ({"masked": True} if self.mask is not None else {})

    def mask_of(self, image: Image.Image) -> np.ndarray | None:
        """The mask as booleans (height, width), or None.

        Raises:
            NotEdited: it is no picture, of another size, or empty.
        """
        if self.mask is None:
            return None
        try:
            with Image.open(io.BytesIO(self.mask), formats=["PNG"]) as opened:
                if opened.size != image.size or opened.width * opened.height > _MASK_PIXELS:
                    raise NotEdited("mask of another size", f"{opened.size}, picture {image.size}")
                found = np.asarray(opened.convert("L")) > 0
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise NotEdited("mask is no picture", type(error).__name__) from None
        if not found.any():
            raise NotEdited("empty mask")
        return found


def mask_bytes(mask: np.ndarray) -> bytes:
    """A mask (height, width), true inside, as PNG for :attr:`EditPlan.mask`."""
    target = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(target, format="PNG")
    return target.getvalue()


def region_of(mask: np.ndarray, margin: int = 0) -> Region:
    """The smallest region around a mask's true pixels, grown by ``margin`` and cut at the picture's border."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    return clipped((columns[0] - margin, rows[0] - margin, columns[-1] + 1 + margin, rows[-1] + 1 + margin), mask.shape)


def union(one: Region, other: Region) -> Region:
    """The smallest region that holds both."""
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])


def clipped(region: tuple[float, float, float, float], shape: tuple[int, ...]) -> Region:
    """A region in whole pixels inside a picture of ``shape`` (height, width, ...)."""
    height, width = shape[:2]
    left, top = max(0, math.floor(region[0])), max(0, math.floor(region[1]))
    return left, top, min(width, math.ceil(region[2])), min(height, math.ceil(region[3]))


def seen_region(region: Region, image: Image.Image) -> Region:
    """The region, if it lies in the picture and holds at least one pixel.

    Raises:
        NotEdited: it does not.
    """
    left, top, right, bottom = region
    if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
        raise NotEdited("region outside the picture", f"{region}, picture {image.size}")
    return region
