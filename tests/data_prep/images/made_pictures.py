"""Encoded pictures for tests, good and broken, written with other means than the code under test."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image


def encoded(image: Image.Image, form: str = "PNG", **how: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **how)
    return stream.getvalue()


def noise(seed: int, width: int = 16, height: int = 12, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def noisy(seed: int, width: int = 16, height: int = 12) -> Image.Image:
    return Image.fromarray(noise(seed, width, height))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, kind: int, rows: bytes) -> bytes:
    """A PNG by hand; ``rows`` with a filter byte before each."""
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def bombs() -> dict[str, bytes]:
    """A few bytes that claim to be billions of pixels, one of every format."""
    jpeg = encoded(noisy(1), "JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    tiff = bytearray(encoded(noisy(1), "TIFF"))
    entries = struct.unpack_from("<I", tiff, 4)[0]
    for number in range(struct.unpack_from("<H", tiff, entries)[0]):
        entry = entries + 2 + 12 * number
        if struct.unpack_from("<H", tiff, entry)[0] in (256, 257):
            struct.pack_into("<HII", tiff, entry + 2, 4, 1, 60_000)
    canvas = (16_000).to_bytes(3, "little") * 2
    extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + canvas
    body = b"WEBP" + extended + encoded(noisy(1), "WEBP", lossless=True)[12:]
    return {
        "PNG": png(60_000, 60_000, 8, 2, bytes(100)),
        "JPEG": jpeg[:at] + struct.pack(">HH", 60_000, 60_000) + jpeg[at + 4 :],
        "GIF": b"GIF89a" + struct.pack("<HHBBB", 60_000, 60_000, 0, 0, 0) + b",\0\0\0\0`\xea`\xea\0\2\2D\1\0;",
        "BMP": encoded(noisy(1), "BMP")[:18] + struct.pack("<ii", 60_000, 60_000) + encoded(noisy(1), "BMP")[26:],
        "TIFF": bytes(tiff),
        "WEBP": b"RIFF" + struct.pack("<I", len(body)) + body,
    }


def good_ones() -> list[bytes]:
    """Every format, and the modes it knows."""
    picture = noisy(3, 24, 20)
    kinds = [
        ("PNG", ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")), ("JPEG", ("RGB", "L", "CMYK")),
        ("WEBP", ("RGB", "RGBA")), ("GIF", ("P", "L")), ("BMP", ("RGB", "L", "P", "1")),
        ("TIFF", ("RGB", "RGBA", "L", "CMYK", "I;16", "F", "1")),
    ]  # fmt: skip
    made = [encoded(picture.convert("L" if m == "I;16" else m).convert(m), form) for form, ms in kinds for m in ms]
    made.append(encoded(picture, "TIFF", compression="tiff_lzw"))
    made.append(encoded(picture, "JPEG", exif=_turned(6), progressive=True))
    made.append(encoded(picture, "GIF", save_all=True, append_images=[noisy(4, 24, 20)]))
    return made


def _turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def broken_ones(count: int, seed: int = 1) -> Iterator[bytes]:
    """Pictures that were cut, flipped, joined, overwritten, blown up, or never were any."""
    draw = random.Random(seed)
    good, huge = good_ones(), list(bombs().values())
    for number in range(count):
        data = bytearray(draw.choice(good))
        way = number % 8
        if way == 0:
            data = data[: draw.randrange(len(data))]
        elif way == 1:
            for _ in range(draw.choice((1, 3, 30))):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        elif way == 2:  # most damage is done near the start
            data[draw.randrange(min(64, len(data)))] = draw.randrange(256)
        elif way == 3:
            other = draw.choice(good)
            data = data[: draw.randrange(len(data))] + other[draw.randrange(len(other)) :]
        elif way == 4:
            data = data[: draw.randrange(1, 12)] + draw.randbytes(draw.randrange(400))
        elif way == 5:
            data = bytearray(draw.randbytes(draw.randrange(200)))
        elif way == 6:
            data = bytearray(draw.choice(huge))
            if draw.random() < 0.5:
                data[draw.randrange(len(data))] ^= 255
        else:
            at = draw.randrange(len(data))
            data[at : at + draw.randrange(1, 40)] = draw.randbytes(draw.randrange(40))
        yield bytes(data)
