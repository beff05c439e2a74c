"""Questions about flat pictures of simple shapes: what is asked, and the answer for a given scene.

A question is read by a table of templates; what fits none is not understood.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SHAPES = ("circle", "rectangle", "triangle")
COLOURS = {
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "teal": (0, 128, 128),
    "brown": (165, 42, 42),
    "yellow": (255, 255, 0),
}
_SPELLINGS = {"grey": "gray"}


@dataclass(frozen=True)
class Thing:
    """A shape of a picture, or what a question says of one; None is any."""

    shape: str | None = None
    colour: str | None = None

    def fits(self, other: Thing) -> bool:
        """Whether a thing of a picture is what a question speaks of."""
        return self.shape in (None, other.shape) and self.colour in (None, other.colour)


@dataclass(frozen=True)
class Asked:
    """A question that was understood.

    Attributes:
        kind: what the answer is: a shape, a colour, or yes and no.
        thing: what is asked about.
        negated: of yes and no: whether ``yes`` means that it is not there.
    """

    kind: Literal["shape", "colour", "existence"]
    thing: Thing
    negated: bool = False

    @property
    def template(self) -> str:
        """The question without its colours and shapes."""
        words = [self.kind, "not"] if self.negated else [self.kind]
        return " ".join(words + [name for name in ("colour", "shape") if getattr(self.thing, name)])


_COLOUR = "|".join([*COLOURS, *_SPELLINGS])
_THING = rf"(?:(?P<colour>{_COLOUR}) )?(?P<shape>{'|'.join(SHAPES)}|shape)"
_PICTURE = r"the (?:image|picture)"
_IN = rf"(?: in {_PICTURE})?"
_TEMPLATES: list[tuple[Literal["shape", "colour", "existence"], bool, str]] = [
    ("shape", False, rf"(?:what|which) shape (?:is present|is in {_PICTURE}|is there{_IN}|does {_PICTURE} contain)"),
    ("shape", False, rf"what (?:is|shape is) the (?P<colour>{_COLOUR}) shape"),
    ("shape", False, rf"what shape is the (?P<colour>{_COLOUR}) one"),
    ("colour", False, rf"(?:what|which) colou?r is the {_THING}"),
    ("colour", False, rf"what is the colou?r of the {_THING}"),
    ("existence", False, rf"is there an? {_THING}{_IN}"),
    ("existence", True, rf"is there (?:not an?|no) {_THING}{_IN}"),
    ("existence", False, rf"is an? {_THING} present{_IN}"),
    ("existence", True, rf"is (?:no|not an?) {_THING} present{_IN}"),
    ("existence", True, rf"is an? {_THING} not present{_IN}"),
    ("existence", False, rf"does {_PICTURE} contain an? {_THING}"),
    ("existence", True, rf"does {_PICTURE} (?:not contain an?|contain no) {_THING}"),
]


def parse_question(text: str) -> Asked | None:
    """What a question asks; None if it is not understood."""
    plain = " ".join(text.lower().split()).rstrip("?").rstrip()
    for kind, negated, pattern in _TEMPLATES:
        found = re.fullmatch(pattern, plain)
        if found is None:
            continue
        said = found.groupdict()
        colour, shape = said.get("colour"), said.get("shape")
        thing = Thing(shape if shape in SHAPES else None, _SPELLINGS.get(colour, colour))
        if kind == "existence" and thing == Thing():
            return None  # "is there a shape?" is no question about this picture in particular
        return Asked(kind, thing, negated)
    return None


def answer_of(asked: Asked, scene: Sequence[Thing]) -> str | None:
    """The answer for a scene; None where the question does not have exactly one."""
    fitting = [thing for thing in scene if asked.thing.fits(thing)]
    if asked.kind == "existence":
        return "yes" if bool(fitting) != asked.negated else "no"
    found = {getattr(thing, asked.kind) for thing in fitting}
    return found.pop() if len(found) == 1 and len(fitting) == 1 else None


def same_answer(one: str, other: str) -> bool:
    """Whether two answers say the same, whatever their case and spelling of grey."""
    plain = [_SPELLINGS.get(word, word) for word in (" ".join(text.lower().split()) for text in (one, other))]
    return plain[0] == plain[1]
