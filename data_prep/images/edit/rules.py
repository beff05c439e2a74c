"""Proposers without a model: rules for easy_vqa's single flat shapes, and plans that the source itself brings."""

from __future__ import annotations

from collections import defaultdict
from random import Random
from typing import TYPE_CHECKING

from pydantic import ValidationError

from contextrl_verl.errors import ConfigError
from data_prep.common.seeded import draw
from data_prep.images.edit.base import Offline
from data_prep.images.edit.drawing import Box
from data_prep.images.edit.flat import FlatShape, measure
from data_prep.images.edit.plan import EditPlan, NotEdited, clipped, mask_bytes, union
from data_prep.images.edit.questions import COLOURS, SHAPES, Asked, Thing, answer_of, parse_question, same_answer
from data_prep.images.wording import question_key

if TYPE_CHECKING:
    from PIL import Image

    from data_prep.images.item import VqaItem

# easy_vqa draws at twice the size: cells in a pixel, and the least and largest side of a shape in cells.
_GRID, _LEAST, _MOST = 2, 16, 64
# Every picture of the source shows one shape; more or fewer of them would show which picture was edited.
USUAL = ("recolour", "replace")
_POSSIBLE = ("recolour", "replace", "erase", "add")
# Between the edges of two shapes.
_APART = 2.0


class GivenPlans(Offline):
    """For sources with annotated objects, whose records bring their own edit under ``edit`` in their provenance:
    ``{"operation": "erase", "mask": base64 of a PNG, "new_answer": "2"}``."""

    name = "given-1"

    def template(self, item: VqaItem) -> str | None:
        return question_key(item.question) if "edit" in item.provenance else None

    async def propose(self, item: VqaItem, image: Image.Image, seed: int) -> EditPlan:
        """See :class:`data_prep.images.edit.base.Proposer`."""
        if "edit" not in item.provenance:
            raise NotEdited("no plan given")
        try:
            return EditPlan.model_validate(item.provenance["edit"])
        except ValidationError as error:
            first = error.errors()[0]
            raise NotEdited("plan not usable", f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


class EasyVqaRules(Offline):
    """Measures the shape, reads the question, and draws one of the edits that change the answer.

    Args:
        operations: of ``recolour``, ``replace``, ``erase``, ``add``; the last two change the number of shapes.

    Raises:
        ConfigError: another operation.
    """

    def __init__(self, operations: tuple[str, ...] = USUAL) -> None:
        for operation in operations:
            if operation not in _POSSIBLE:
                raise ConfigError(
                    f"proposer rules:easy_vqa, operation {operation!r}: not one of {', '.join(_POSSIBLE)}. Fix: name "
                    f"some of those, or leave operations out."
                )
        self.operations = tuple(sorted(set(operations)))
        self.name = f"rules:easy_vqa-2 {','.join(self.operations)}"

    def template(self, item: VqaItem) -> str | None:
        """See :class:`data_prep.images.edit.base.Proposer`."""
        asked = parse_question(item.question)
        return asked.template if asked else None

    async def propose(self, item: VqaItem, image: Image.Image, seed: int) -> EditPlan:
        """See :class:`data_prep.images.edit.base.Proposer`."""
        return self.propose_now(item, image, seed)

    def propose_now(self, item: VqaItem, image: Image.Image, seed: int) -> EditPlan:
        """The same without an event loop: first the new answer, then how; every possible answer is equally likely."""
        asked = parse_question(item.question)
        if asked is None:
            raise NotEdited("question not understood", item.question)
        shape = measure(image)
        shown = answer_of(asked, [shape.thing])
        if shown is None or not same_answer(shown, item.answer):
            raise NotEdited("the picture does not show the answer", f"{item.answer!r}, measured {shown!r}")
        ways = self._ways(asked, shape.thing, item.answer)
        if not ways:
            raise NotEdited("no edit changes the answer", asked.template)
        rng = Random(draw(seed, item.item_id, "propose"))
        answer = rng.choice(sorted(ways))
        operation, thing = rng.choice(sorted(ways[answer], key=repr))
        return _plan(operation, shape, thing, answer, image, rng)

    def _ways(self, asked: Asked, thing: Thing, answer: str) -> dict[str, list[tuple[str, Thing]]]:
        """By new answer: operations, and what each of them brings."""
        brought = {
            "recolour": [Thing(thing.shape, colour) for colour in COLOURS if colour != thing.colour],
            "replace": [Thing(shape, thing.colour) for shape in SHAPES if shape != thing.shape],
            "add": [Thing(shape, colour) for shape in SHAPES for colour in COLOURS],
            "erase": [Thing()],
        }
        ways: dict[str, list[tuple[str, Thing]]] = defaultdict(list)
        for operation in self.operations:
            for other in brought[operation]:
                scene = {"add": [thing, other], "erase": []}.get(operation, [other])
                new = answer_of(asked, scene)
                if new is not None and not same_answer(new, answer):
                    ways[new].append((operation, other))
        return ways


def _plan(operation: str, shape: FlatShape, new: Thing, answer: str, image: Image.Image, rng: Random) -> EditPlan:
    target, box, region = f"{shape.thing.colour} {shape.thing.shape}", None, shape.region
    details = {"colour": list(COLOURS.get(new.colour, ()))}
    if operation == "recolour":
        text = f"Change the colour of the {target} to {new.colour}."
        details["to"] = new.colour
    elif operation == "erase":
        text, details = f"Remove the {target}; leave the background behind it.", {}
    elif operation == "replace":
        text = f"Replace the {target} by a {new.colour} {new.shape} of about the same size in the same place."
        left, top, right, bottom = shape.box
        box = _box(new.shape, _side(shape), ((left + right) / 2, (top + bottom) / 2), image, rng)
        details["colour"], region = list(shape.rgb), union(region, box)
    else:
        target, box = f"{new.colour} {new.shape}", _free_box(shape, new, image, rng)
        where, region = [round(side) for side in box], box
        text = f"Add a {target} at {where} (left, top, right, bottom in pixels)."
    if box is not None:
        details |= {"figure": new.shape, "box": list(box), "ramp": "bilinear2"}
    left, top, right, bottom = region
    return EditPlan(
        operation=operation,
        target=target,
        new_answer=answer,
        instruction=f"{text} Change nothing else.",
        # The softened edge reaches a little beyond the shape.
        region=clipped((left - 2, top - 2, right + 2, bottom + 2), shape.mask.shape),
        mask=None if operation == "add" else mask_bytes(shape.mask),
        details=details,
    )


def _free_box(shape: FlatShape, new: Thing, image: Image.Image, rng: Random) -> Box:
    """Where another shape has room beside the first."""
    left, top, right, bottom = shape.region
    for _ in range(200):
        side = rng.randint(_LEAST, _MOST)
        box = _box(new.shape, side, (rng.uniform(0, image.width), rng.uniform(0, image.height)), image, rng)
        beside = box[2] + _APART <= left or box[0] - _APART >= right
        if beside or box[3] + _APART <= top or box[1] - _APART >= bottom:
            return box
    raise NotEdited("no room for another shape")


def _side(shape: FlatShape) -> int:
    """The side in cells that the source drew the shape with, from its measured width."""
    cells = round((shape.box[2] - shape.box[0]) * _GRID)
    return min(max(cells + (1 if shape.thing.shape == "triangle" else -1), _LEAST), _MOST)


def _box(figure: str | None, side: int, centre: tuple[float, float], image: Image.Image, rng: Random) -> Box:
    """Where a shape is drawn: on the source's grid, of the sizes that the source draws, inside the picture."""
    # The sides of a rectangle are independent of each other in the source, so only one of them is the old shape's.
    sides = [side, rng.randint(_LEAST, _MOST)]
    rng.shuffle(sides)
    columns, rows = {
        "circle": (side + 1, side + 1),
        "triangle": (side + 1, int(side * 3**0.5 / 2) + 2),
        "rectangle": (sides[0] + 1, sides[1] + 1),
    }[figure]
    left, top = (
        min(max(round(middle * _GRID - count / 2), 0), whole * _GRID - count)
        for middle, count, whole in zip(centre, (columns, rows), image.size, strict=True)
    )
    return left / _GRID, top / _GRID, (left + columns) / _GRID, (top + rows) / _GRID
