"""Pictures on disk, each once, under a name made from its pixels."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.whole_file import write_whole
from data_prep.images.decode import ImageLimits, ImageRejected, open_image

_NAME = re.compile(r"[0-9a-f]{32}")
# One setting for all, on every machine: the size of a file then depends on the pixels alone.
_COMPRESSION = 6


def encode_alike(images: Sequence[Image.Image]) -> list[bytes]:
    """Pictures as RGB PNG, all in the same way: the file must not tell which of two pictures was edited.

    Each is made anew from its pixels, so that whatever else the object carries (EXIF, ICC profile, text) stays behind.
    """
    return [_png(image.convert("RGB")) for image in images]


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    Image.frombytes("RGB", image.size, image.tobytes()).save(stream, "PNG", compress_level=_COMPRESSION)
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
            write_whole(self.path(name), _png(image))
        return name

    def path(self, name: str) -> Path:
        """Where the picture of that name lies, whether it is there or not; ConfigError if it is no name."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is no name of a stored picture. Fix: use the names that put() gave.")
        return self.folder / name[:2] / f"{name}.png"

    def open(self, name: str) -> Image.Image:
        """The picture, of mode RGB; raises ConfigError as :meth:`read`."""
        return self._checked(name)[1]

    def read(self, name: str) -> bytes:
        """The picture as a PNG; raises ConfigError if it is not there, or no longer what was put."""
        return self._checked(name)[0]

    def _checked(self, name: str) -> tuple[bytes, Image.Image]:
        path = self.path(name)
        try:
            data = path.read_bytes()
            limits = ImageLimits(max_bytes=len(data) + 1, max_pixels=1 << 40, min_side=1, max_ratio=float("inf"))
            image = open_image(data, limits)
            problem = "" if _name(image) == name else "these are not the pixels that were put"
        except OSError as error:
            problem = f"the picture cannot be read ({error.strerror})"
        except ImageRejected as error:
            problem = f"the picture is not whole ({error})"
        if problem:
            raise ConfigError(f"{path}: {problem}. Fix: delete the work folder and run the same command again.")
        return data, image

    def __contains__(self, name: str) -> bool:
        return self.path(name).exists()


def _name(image: Image.Image) -> str:
    return hashlib.blake2b(b"%d x %d\0" % image.size + image.tobytes(), digest_size=16).hexdigest()
