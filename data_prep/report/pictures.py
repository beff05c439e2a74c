"""Images as small data URLs, and what differs between two of them."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

from PIL import Image, ImageChops

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import ImageRef
from contextrl_verl.pairs.prompting import open_image
from data_prep.report.text import shortened, visible

LONGEST_SIDE = 448
# Larger images are compared at this size.
_COMPARED = 2048


class Picture(NamedTuple):
    """An image to show; ``url`` is empty if it cannot be, then ``note`` says why."""

    url: str
    width: int = 0
    height: int = 0
    note: str = ""


def picture(image: ImageRef) -> Picture:
    """A thumbnail, decoded and encoded anew, so that nothing of the file but its pixels gets into the page."""
    try:
        return _encoded(open_image(image))
    except ConfigError as error:
        return Picture("", note=shortened(visible(str(error)), 300))


def difference(left: ImageRef, right: ImageRef) -> Picture | None:
    """Where two images of one size differ, brightened; None if they cannot be compared."""
    try:
        one, other = open_image(left), open_image(right)
    except ConfigError:
        return None
    if one.size != other.size:
        return None
    for image in (one, other):
        image.thumbnail((_COMPARED, _COMPARED))
    apart = ImageChops.difference(one, other)
    most = max(high for _, high in apart.getextrema()) or 255
    share = sum(apart.convert("L").histogram()[9:]) / (one.width * one.height)
    shown = _encoded(ImageChops.invert(apart.point(lambda value: min(255, value * 255 // most))))
    return shown._replace(note=f"{share:.1%} of the pixels differ")


def _encoded(image: Image.Image) -> Picture:
    size, stream = f"{image.width} × {image.height}", io.BytesIO()
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    image.save(stream, "WEBP", quality=90)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return Picture(f"data:image/webp;base64,{data}", image.width, image.height, size)
