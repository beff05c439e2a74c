"""Encoded pictures from anywhere become plain RGB pictures, or say why not; kept on disk once, by their pixels.

Nothing is decoded before its size is known. PIL's process-wide switches are set for the time of it: other libraries set
them as they like.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.whole_file import write_whole

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION = 0x0112
# TIFF tags.
_BITS, _PHOTOMETRIC = 258, 262
_NAME = re.compile(r"[0-9a-f]{32}")
# One setting for all, on every machine: the size of a file then depends on the pixels alone.
_COMPRESSION = 6


class ImageRejected(ValueError):
    """A picture that is not used: ``reason`` is short, for counting; ``detail`` says what exactly, and may be empty."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class ImageLimits(BaseModel):
    """What a picture may be: bytes when encoded; width times height, looked at before anything is decoded; shorter side
    in pixels; and longer over shorter side, since vision models refuse stripes (Qwen-VL from 200 on)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    max_bytes: int = Field(32 << 20, ge=1)
    max_pixels: int = Field(40_000_000, ge=1)
    min_side: int = Field(8, ge=1)
    max_ratio: float = Field(100.0, ge=1)


def open_image(data: bytes, limits: ImageLimits = ImageLimits()) -> Image.Image:
    """Decode a picture: of mode RGB, with pixels and nothing else.

    Turned upright by its EXIF, transparent parts on white, 16 bits of grey scaled to 8. Colour profiles and all
    other metadata are left out. A picture with several frames is refused, but for JPEG: cameras add previews to it,
    and its first frame is the picture. Raises ImageRejected: for every bad ``data``; nothing else is raised.
    """
    if len(data) > limits.max_bytes:
        raise ImageRejected("too many bytes", f"{len(data):,}, the limit is {limits.max_bytes:,}")
    try:
        with _own_switches():
            return _decoded(data, limits)
    except ImageRejected:
        raise
    except UnidentifiedImageError:
        reason = "damaged picture" if data.startswith(_BEGINNINGS) else "unknown format"
        raise ImageRejected(reason, f"known ones: {', '.join(FORMATS)}") from None
    except Exception as error:  # decoders raise whatever bad data brings them to
        raise ImageRejected("damaged picture", one_line(error)) from None


def one_line(error: BaseException) -> str:
    """Kind and text of an error, cut, for a detail."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


@contextmanager
def _own_switches() -> Iterator[None]:
    before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, None
    try:
        with warnings.catch_warnings():
            # PIL warns of what it then raises, or reads all the same.
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = before


def _decoded(data: bytes, limits: ImageLimits) -> Image.Image:
    if (canvas := _webp_canvas(data)) is not None:
        # The decoder takes memory for the whole canvas when it is made.
        _check_size(canvas, limits)
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_size(image.size, limits)
        if getattr(image, "is_animated", False) and image.format != "MPO":
            raise ImageRejected("several frames", f"{image.format}; store the frame that is meant")
        image.load()
        _check_size(image.size, limits)
        # TIFF turns itself.
        turn = 1 if image.format == "TIFF" else image.getexif().get(_ORIENTATION, 1)
        plain = _rgb(image)
    plain.getexif().clear()
    plain.getexif()[_ORIENTATION] = turn
    plain = ImageOps.exif_transpose(plain)
    plain.info.clear()
    return plain


def _check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageRejected("too many pixels", f"{width} x {height}, the limit is {limits.max_pixels:,} in all")
    if min(size) < limits.min_side:
        raise ImageRejected("too small", f"{width} x {height}, the limit is {limits.min_side} a side")
    if max(size) > limits.max_ratio * min(size):
        raise ImageRejected("long and thin", f"{width} x {height}, the limit is {limits.max_ratio:g} to 1")


def _webp_canvas(data: bytes) -> tuple[int, int] | None:
    """Width and height from the header of a WebP picture; None for anything else."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    kind, word = data[12:16], int.from_bytes
    if kind == b"VP8X":
        return word(data[24:27], "little") + 1, word(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = word(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return word(data[26:28], "little") & 0x3FFF, word(data[28:30], "little") & 0x3FFF


def _rgb(image: Image.Image) -> Image.Image:
    """A new picture of mode RGB with the same pixels."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return _from_16_bits(image)
    if image.mode in ("I", "F", "LAB"):
        raise ImageRejected("unknown range of values", f"{image.format} of mode {image.mode}; store 8 or 16 bits, RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)
    tags = getattr(image, "tag_v2", {})
    top = (1 << tags.get(_BITS, (16,))[0]) - 1
    if tags.get(_PHOTOMETRIC) == 0:
        values = top - np.minimum(values, top)
    grey = ((np.minimum(values, top) * 255 + top // 2) // top).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 255
    return Image.fromarray(grey).convert("RGB")


# What was put has met the limits of its source.
_ANY = ImageLimits(max_bytes=1 << 40, max_pixels=1 << 40, min_side=1, max_ratio=float("inf"))


def encoded(image: Image.Image) -> bytes:
    """A picture as RGB PNG, all in the same way: the file must not tell which of two pictures was edited.

    It is made anew from its pixels, so that whatever else the object carries (EXIF, ICC profile, text) stays behind.
    """
    plain, stream = image.convert("RGB"), io.BytesIO()
    Image.frombytes("RGB", plain.size, plain.tobytes()).save(stream, "PNG", compress_level=_COMPRESSION)
    return stream.getvalue()


class ImageStore:
    """A folder of PNG pictures by content; any number of processes may put and open at the same time."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def put(self, image: Image.Image) -> str:
        """Keep a picture of mode RGB; returns its name: 32 hexadecimal digits of its size and pixels."""
        if image.mode != "RGB":
            raise ValueError(f"the store keeps pictures of mode RGB, not {image.mode}")
        name = _name(image)
        if name not in self:
            write_whole(self.path(name), encoded(image))
        return name

    def path(self, name: str) -> Path:
        """Where the picture of that name lies, whether it is there or not; ConfigError if it is no name."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is no name of a stored picture. Fix: use the names that put() gave.")
        return self.folder / name[:2] / f"{name}.png"

    def read(self, name: str) -> bytes:
        """The picture as a PNG; raises ConfigError as :meth:`open`."""
        self.open(name)
        return self.path(name).read_bytes()

    def open(self, name: str) -> Image.Image:
        """The picture, of mode RGB; raises ConfigError if it is not there, or no longer what was put."""
        path = self.path(name)
        try:
            image = open_image(path.read_bytes(), _ANY)
            problem = "" if _name(image) == name else "these are not the pixels that were put"
        except OSError as error:
            problem = f"the picture cannot be read ({error.strerror})"
        except ImageRejected as error:
            problem = f"the picture is not whole ({error})"
        if problem:
            raise ConfigError(f"{path}: {problem}. Fix: delete the work folder and run the same command again.")
        return image

    def __contains__(self, name: str) -> bool:
        return self.path(name).exists()


def _name(image: Image.Image) -> str:
    return hashlib.blake2b(b"%d x %d\0" % image.size + image.tobytes(), digest_size=16).hexdigest()
