"""Questions about flat pictures of one simple shape: what is asked, and the answer for a given shape."""

from __future__ import annotations

import re
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


@dataclass(frozen=True)
class Thing:
    """A shape of a picture, or what a question says of one; None is any."""

    shape: str | None = None
    colour: str | None = None


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


_COLOUR = rf"(?P<colour>{'|'.join(COLOURS)})"
_THING = rf"(?:{_COLOUR} )?(?P<shape>{'|'.join(SHAPES)}|shape)"
_TEMPLATES: list[tuple[Literal["shape", "colour", "existence"], str]] = [
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
