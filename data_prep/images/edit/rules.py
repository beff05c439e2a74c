"""Proposes edits by rule for pictures whose geometry is known: easy_vqa's single flat shapes."""

from __future__ import annotations

from collections import defaultdict
from random import Random
from typing import TYPE_CHECKING

from data_prep.images.edit.base import Offline, seeded
from data_prep.images.edit.easy_vqa_grid import LEAST, MOST, cells_of
from data_prep.images.edit.flat import FlatPicture, FlatShape, measure
from data_prep.images.edit.plan import EditPlan, NotEdited, Region, clipped, mask_bytes, union
from data_prep.images.edit.questions import COLOURS, SHAPES, Asked, Thing, answer_of, parse_question, same_answer
from data_prep.images.errors import ImagePairError

if TYPE_CHECKING:
    from PIL import Image

    from data_prep.images.item import VqaItem

_GRID = 2  # cells of easy_vqa's grid in a pixel
# Every picture of the source shows one shape; more or fewer of them would show which picture was edited.
USUAL = ("recolour", "replace")
_POSSIBLE = ("recolour", "replace", "erase", "add")
# Between the edges of two shapes.
_APART = 2.0


class EasyVqaRules(Offline):
    """Measures the shape, reads the question, and draws one of the edits that change the answer.

    Args:
        operations: of ``recolour``, ``replace``, ``erase``, ``add``; the last two change the number of shapes.

    Raises:
        ImagePairError: another operation.
    """

    def __init__(self, operations: tuple[str, ...] = USUAL) -> None:
        for operation in operations:
            if operation not in _POSSIBLE:
                raise ImagePairError(
                    f"proposer rules:easy_vqa, operation {operation!r}: not one of {', '.join(_POSSIBLE)}. Fix: name "
                    f"some of those, or leave operations out."
                )
        self.operations = tuple(sorted(set(operations)))
        self.name = f"rules:easy_vqa-1 {','.join(self.operations)}"

    def template(self, item: VqaItem) -> str | None:
        """See :class:`data_prep.images.edit.base.Proposer`."""
        asked = parse_question(item.question)
        return asked.template if asked else None

    async def propose(self, item: VqaItem, image: Image.Image, seed: int) -> EditPlan:
        """See :class:`data_prep.images.edit.base.Proposer`."""
        return self.propose_now(item, image, seed)

    def propose_now(self, item: VqaItem, image: Image.Image, seed: int) -> EditPlan:
        """The same without an event loop."""
        asked = parse_question(item.question)
        if asked is None:
            raise NotEdited("question not understood", item.question)
        picture = measure(image)
        if len(picture.shapes) != 1:
            raise NotEdited("not one shape", f"{len(picture.shapes)} shapes")
        shown = answer_of(asked, picture.scene)
        if shown is None or not same_answer(shown, item.answer):
            raise NotEdited("the picture does not show the answer", f"{item.answer!r}, measured {shown!r}")
        return self._drawn(asked, picture, item, image, seeded(seed, item.item_id, "propose"))

    def _drawn(self, asked: Asked, picture: FlatPicture, item: VqaItem, image: Image.Image, rng: Random) -> EditPlan:
        """First the new answer, then how: every possible answer is equally likely."""
        (shape,) = picture.shapes
        ways: dict[str, list[tuple[str, Thing]]] = defaultdict(list)
        for operation, thing, scene in _changes(shape.thing, self.operations):
            answer = answer_of(asked, scene)
            if answer is not None and not same_answer(answer, item.answer):
                ways[answer].append((operation, thing))
        if not ways:
            raise NotEdited("no edit changes the answer", asked.template)
        answer = rng.choice(sorted(ways))
        operation, thing = rng.choice(sorted(ways[answer], key=repr))
        return _PLANS[operation](shape, thing, answer, image, rng)


def _changes(thing: Thing, operations: tuple[str, ...]) -> list[tuple[str, Thing, list[Thing]]]:
    """Operation, what it brings, and the scene afterwards, for a picture of one thing."""
    found: list[tuple[str, Thing, list[Thing]]] = []
    for operation in operations:
        if operation == "recolour":
            others = [Thing(thing.shape, colour) for colour in COLOURS if colour != thing.colour]
        elif operation == "replace":
            others = [Thing(shape, thing.colour) for shape in SHAPES if shape != thing.shape]
        elif operation == "add":
            others = [Thing(shape, colour) for shape in SHAPES for colour in COLOURS]
        else:
            others = [Thing()]
        for other in others:
            scene = {"add": [thing, other], "erase": []}.get(operation, [other])
            found.append((operation, other, scene))
    return found


def _recolour(shape: FlatShape, thing: Thing, answer: str, image: Image.Image, rng: Random) -> EditPlan:
    old = shape.thing
    return EditPlan(
        operation="recolour",
        target=f"{old.colour} {old.shape}",
        new_answer=answer,
        instruction=f"Change the colour of the {old.colour} {old.shape} to {thing.colour}. Change nothing else.",
        region=_grown(shape.region, image),
        mask=mask_bytes(shape.alpha > 0.5),
        details={"colour": list(COLOURS[thing.colour]), "to": thing.colour},
    )


def _erase(shape: FlatShape, thing: Thing, answer: str, image: Image.Image, rng: Random) -> EditPlan:
    old = shape.thing
    return EditPlan(
        operation="erase",
        target=f"{old.colour} {old.shape}",
        new_answer=answer,
        instruction=f"Remove the {old.colour} {old.shape}; leave the background behind it. Change nothing else.",
        region=_grown(shape.region, image),
        mask=mask_bytes(shape.alpha > 0.5),
    )


def _replace(shape: FlatShape, thing: Thing, answer: str, image: Image.Image, rng: Random) -> EditPlan:
    old = shape.thing
    box = _box(thing.shape, _side(shape), shape.centre, image, rng)
    return EditPlan(
        operation="replace",
        target=f"{old.colour} {old.shape}",
        new_answer=answer,
        instruction=f"Replace the {old.colour} {old.shape} by a {thing.colour} {thing.shape} of about the same size in "
        "the same place. Change nothing else.",
        region=union(_grown(shape.region, image), _grown(box, image)),
        mask=mask_bytes(shape.alpha > 0.5),
        details={"figure": thing.shape, "colour": list(shape.rgb), "box": list(box), "ramp": "bilinear2"},
    )


def _add(shape: FlatShape, thing: Thing, answer: str, image: Image.Image, rng: Random) -> EditPlan:
    left, top, right, bottom = shape.region
    for _ in range(200):
        side = rng.randint(LEAST, MOST)
        centre = rng.uniform(0, image.width), rng.uniform(0, image.height)
        box = _box(thing.shape, side, centre, image, rng)
        beside = box[2] + _APART <= left or box[0] - _APART >= right
        if beside or box[3] + _APART <= top or box[1] - _APART >= bottom:
            break
    else:
        raise NotEdited("no room for another shape")
    return EditPlan(
        operation="add",
        target=f"{thing.colour} {thing.shape}",
        new_answer=answer,
        instruction=f"Add a {thing.colour} {thing.shape} at {[round(value) for value in box]} (left, top, right, "
        "bottom in pixels). Change nothing else.",
        region=_grown(box, image),
        details={
            "figure": thing.shape, "colour": list(COLOURS[thing.colour]), "box": list(box), "ramp": "bilinear2",
        },
    )  # fmt: skip


_PLANS = {"recolour": _recolour, "erase": _erase, "replace": _replace, "add": _add}


def _side(shape: FlatShape) -> int:
    """The side in cells that the source drew the shape with, from its measured width."""
    cells = round(shape.width * _GRID)
    return min(max(cells + (1 if shape.thing.shape == "triangle" else -1), LEAST), MOST)


def _box(
    figure: str | None, side: int, centre: tuple[float, float], image: Image.Image, rng: Random
) -> tuple[float, float, float, float]:
    """Where a shape is drawn: on the source's grid, of the sizes that the source draws, inside the picture."""
    # The sides of a rectangle are independent of each other in the source, so only one of them is the old shape's.
    sides = [side, rng.randint(LEAST, MOST)]
    rng.shuffle(sides)
    columns, rows = cells_of(figure, side, side) if figure != "rectangle" else cells_of(figure, *sides)
    left, top = (
        min(max(round(middle * _GRID - count / 2), 0), whole * _GRID - count)
        for middle, count, whole in zip(centre, (columns, rows), image.size, strict=True)
    )
    return left / _GRID, top / _GRID, (left + columns) / _GRID, (top + rows) / _GRID


def _grown(region: tuple[float, float, float, float], image: Image.Image) -> Region:
    """By what the softened edge reaches beyond it."""
    left, top, right, bottom = region
    return clipped((left - 2, top - 2, right + 2, bottom + 2), (image.height, image.width))
