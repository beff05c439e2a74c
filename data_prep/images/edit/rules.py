"""Proposers without a model: rules for easy_vqa's single flat shapes, and plans that the source itself brings."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from pydantic import ValidationError

from data_prep.common.splits import draw
from data_prep.images.edit.drawing import coverage, lay_shape
from data_prep.images.edit.plan import Box, Details, EditPlan, NotEdited, Offline, clipped, mask_bytes, region_of, union
from data_prep.images.item import question_key

if TYPE_CHECKING:
    from PIL import Image

    from data_prep.images.item import VqaItem

# easy_vqa draws at twice the size: cells in a pixel, and the least and largest side of a shape in cells.
_GRID, _LEAST, _MOST = 2, 16, 64
# A step of 8-bit levels that rounding does not make.
_TOLERANCE = 3
# From the shape that it is said to be: share of its area that differs.
_SHAPE_DISTANCE = 0.15
# By how many cells a measured box may be off: left, top, right, bottom. Softening eats the triangle's corners.
_OFF = {
    "circle": [(0, 0, 0, 0), (0, 0, 1, 1)],
    "rectangle": [(0, 0, 0, 0)],
    "triangle": list(product((-1, -2), (0, -1), (1, 2), (0,))),
}
SHAPES = ("circle", "rectangle", "triangle")
COLOURS = {
    "black": (0, 0, 0), "gray": (128, 128, 128), "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255),
    "teal": (0, 128, 128), "brown": (165, 42, 42), "yellow": (255, 255, 0),
}  # fmt: skip
Kind = Literal["shape", "colour", "existence"]


class GivenPlans(Offline):
    """For sources with annotated objects, whose records bring their own edit under ``edit`` in their provenance:
    ``{"operation": "erase", "mask": base64 of a PNG, "new_answer": "2"}``."""

    name = "given-1"

    def template(self, item: VqaItem) -> str | None:
        return question_key(item.question) if "edit" in item.provenance else None

    async def propose(self, item: VqaItem, image: Image.Image, seed: int) -> EditPlan:
        if "edit" not in item.provenance:
            raise NotEdited("no plan given")
        try:
            return EditPlan.model_validate(item.provenance["edit"])
        except ValidationError as error:
            first = error.errors()[0]
            raise NotEdited("plan not usable", f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


@dataclass(frozen=True)
class Thing:
    """A shape of a picture, or what a question says of one; None is any."""

    shape: str | None = None
    colour: str | None = None


@dataclass(frozen=True)
class Asked:
    """A question that was understood: what the answer is, and of what; ``negated``: ``yes`` means it is not there."""

    kind: Kind
    thing: Thing
    negated: bool = False

    @property
    def template(self) -> str:
        """The question without its colours and shapes."""
        words = [self.kind, "not"] if self.negated else [self.kind]
        return " ".join(words + [name for name in ("colour", "shape") if getattr(self.thing, name)])


_COLOUR = rf"(?P<colour>{'|'.join(COLOURS)})"
_THING = rf"(?:{_COLOUR} )?(?P<shape>{'|'.join(SHAPES)}|shape)"
_TEMPLATES: list[tuple[Kind, str]] = [
    ("shape", r"what shape (?:is present|is in the image|does the image contain)"),
    ("shape", rf"what is the {_COLOUR} shape"),
    ("colour", rf"what (?:color is|is the color of) the {_THING}"),
    ("existence", rf"is there (?:not )?a {_THING}(?: in the image)?"),
    ("existence", rf"is (?:a|no) {_THING} present"),
    ("existence", rf"does the image (?:not )?contain a {_THING}"),
]


def parse_question(text: str) -> Asked | None:
    """What a question asks; None if it is not understood."""
    plain = " ".join(text.lower().split()).rstrip("?").rstrip()
    for kind, pattern in _TEMPLATES:
        if found := re.fullmatch(pattern, plain):
            said = found.groupdict()
            thing = Thing(said.get("shape") if said.get("shape") in SHAPES else None, said.get("colour"))
            if kind == "existence" and thing == Thing():
                return None  # "is there a shape?" is no question about this picture in particular
            return Asked(kind, thing, bool({"no", "not"} & set(plain.split())))
    return None


def answer_of(asked: Asked, shown: Thing) -> str | None:
    """The answer for a picture of one shape; None where the question does not have one."""
    fits = asked.thing.shape in (None, shown.shape) and asked.thing.colour in (None, shown.colour)
    if asked.kind == "existence":
        return "yes" if fits != asked.negated else "no"
    return getattr(shown, asked.kind) if fits else None


class EasyVqaRules(Offline):
    """Measures the shape, reads the question, and draws a new colour or a new shape that changes the answer.

    Every picture of the source shows one shape; more or fewer of them would show which picture was edited.
    """

    name = "rules:easy_vqa-4"

    def template(self, item: VqaItem) -> str | None:
        asked = parse_question(item.question)
        return asked.template if asked else None

    async def propose(self, item: VqaItem, image: Image.Image, seed: int) -> EditPlan:
        """First the new answer, then how; every possible answer is equally likely."""
        asked = parse_question(item.question)
        if asked is None:
            raise NotEdited("question not understood", item.question)
        shape = measure(image)
        thing, shown = shape.thing, answer_of(asked, shape.thing)
        if shown != item.answer.strip().lower():
            raise NotEdited("the picture does not show the answer", f"{item.answer!r}, measured {shown!r}")
        others = [("recolour", Thing(thing.shape, colour)) for colour in COLOURS if colour != thing.colour]
        others += [("replace", Thing(name, thing.colour)) for name in SHAPES if name != thing.shape]
        ways: dict[str, list[tuple[str, Thing]]] = defaultdict(list)
        for way in others:
            if (new := answer_of(asked, way[1])) not in (None, shown):
                ways[new].append(way)
        if not ways:
            raise NotEdited("no edit changes the answer", asked.template)
        rng = Random(draw(seed, item.item_id, "propose"))
        answer = rng.choice(sorted(ways))
        operation, new = rng.choice(sorted(ways[answer], key=repr))
        return _plan(operation, shape, new, answer, image, rng)


def _plan(operation: str, shape: FlatShape, new: Thing, answer: str, image: Image.Image, rng: Random) -> EditPlan:
    target, region = f"{shape.thing.colour} {shape.thing.shape}", shape.region
    if operation == "recolour":
        text = f"Change the colour of the {target} to {new.colour}."
        # Drawn again where that can be: only then the pixels of its edge are rounded as the source rounds them.
        drawn = _drawn(shape, image)
        details = Details(colour=COLOURS[new.colour], figure=drawn and new.shape, box=drawn)
    else:
        text = f"Replace the {target} by a {new.colour} {new.shape} of about the same size in the same place."
        box = _box(new.shape, shape, image, rng)
        details, region = Details(colour=COLOURS[new.colour], figure=new.shape, box=box), union(region, box)
    return EditPlan(
        operation=operation,
        target=target,
        new_answer=answer,
        instruction=f"{text} Change nothing else.",
        # The softened edge reaches a little beyond the shape.
        region=clipped(region, shape.mask.shape, 2),
        mask=mask_bytes(shape.mask),
        details=details,
    )


def _drawn(shape: FlatShape, image: Image.Image) -> Box | None:
    """The box from which the source drew a shape, found by drawing it to the same pixels; None without success."""
    pixels, figure = np.asarray(image), shape.thing.shape
    left, top, right, bottom = (round(side * _GRID) for side in shape.box)
    for steps in _OFF[figure]:
        box = tuple((side + step) / _GRID for side, step in zip((left, top, right, bottom), steps, strict=True))
        if min(box) >= 0 and box[2] <= image.width and box[3] <= image.height:
            again = lay_shape(np.full_like(pixels, shape.ground), figure, box, COLOURS[shape.thing.colour])
            if np.array_equal(again, pixels):
                return box
    return None


def _box(figure: str, shape: FlatShape, image: Image.Image, rng: Random) -> Box:
    """Where a shape is drawn instead: on the source's grid, of the sizes that it draws, inside the picture."""
    left, top, right, bottom = shape.box
    # The side in cells that the source drew the old shape with.
    cells = round((right - left) * _GRID) + (1 if shape.thing.shape == "triangle" else -1)
    side = min(max(cells, _LEAST), _MOST)
    # The sides of a rectangle are independent of each other in the source, so only one of them is the old shape's.
    sides = [side, rng.randint(_LEAST, _MOST)]
    rng.shuffle(sides)
    columns, rows = {
        "circle": (side + 1, side + 1),
        "triangle": (side + 1, int(side * 3**0.5 / 2) + 2),
        "rectangle": (sides[0] + 1, sides[1] + 1),
    }[figure]
    # As far along the room that is left beside it as the old one: at the border as often as the source's own.
    whole, ends = (image.width * _GRID, image.height * _GRID), []
    for first, last, count, cells in zip((left, top), (right, bottom), (columns, rows), whole, strict=True):
        # The last column of a rectangle may fall out of the picture.
        room = cells - count + (2 if figure == "rectangle" else 1)
        at = int((first * _GRID + rng.random()) / (cells - (last - first) * _GRID + 1) * room)
        at = min(max(at, 0), room - 1)
        ends.append((at / _GRID, min(at + count, cells) / _GRID))
    return ends[0][0], ends[1][0], ends[0][1], ends[1][1]


@dataclass(frozen=True)
class FlatShape:
    """The one shape of a picture: the smallest region around every pixel it touches, its box in pixels, fractions
    included, (height, width) of the picture, the pixels it covers by more than half, and (3,) the ground's colour."""

    thing: Thing
    region: tuple[int, int, int, int]
    box: Box
    mask: np.ndarray
    ground: np.ndarray


def measure(image: Image.Image) -> FlatShape:
    """Find the shape of an RGB picture: one background colour, a shape of one known colour, antialiased at its
    edges. Raises NotEdited: it is not flat, there are none or several, or its shape is none of those known."""
    pixels = np.asarray(image).astype(np.int32)
    values, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    background = values[counts.argmax()]
    differs = np.abs(pixels - background).max(axis=2) > _TOLERANCE
    found = {name: np.count_nonzero((pixels[differs] == rgb).all(axis=1)) for name, rgb in COLOURS.items()}
    colour = max(found, key=found.__getitem__)
    if counts.max() < 0.25 * counts.sum() or found[colour] < 0.1 * differs.sum():
        raise NotEdited("not a flat picture", f"{len(values)} colours")
    if (count := cv2.connectedComponents(differs.astype(np.uint8))[0] - 1) != 1:
        raise NotEdited("not one shape", f"{count} shapes")
    # How far a pixel is from the background towards the colour, in the three channels together.
    towards = np.array(COLOURS[colour], dtype=np.float64) - background
    alpha = np.clip(((pixels - background) @ towards) / (towards @ towards), 0.0, 1.0) * differs
    (left, right), (top, bottom) = _ends(alpha, 0), _ends(alpha, 1)
    box, size = (left, top, right, bottom), image.size
    # No row of a triangle is as wide as its base, once that is softened, and no column as tall.
    wider = (max(0, left - 0.5), max(0, top - 0.25), min(size[0], right + 0.5), bottom)
    drawn = {name: coverage(name, wider if name == "triangle" else box, size) for name in SHAPES}
    apart = {name: np.abs(alpha - cover).sum() / alpha.sum() for name, cover in drawn.items()}
    shape = min(SHAPES, key=apart.__getitem__)
    if apart[shape] > _SHAPE_DISTANCE:
        raise NotEdited("shape not known", f"{apart[shape]:.0%} of it differs from a {shape}")
    return FlatShape(Thing(shape, colour), region_of(differs), box, alpha > 0.5, background)


def _ends(alpha: np.ndarray, axis: int) -> tuple[float, float]:
    """First and last place along the other axis: as far apart as is covered at most, around the middle of it all."""
    profile = alpha.max(axis=axis)
    (found,) = np.nonzero(profile)
    first, last = found[0], found[-1]
    middle, half = (first + last + 1 + profile[last] - profile[first]) / 2, alpha.sum(axis=1 - axis).max() / 2
    return float(middle - half), float(middle + half)
