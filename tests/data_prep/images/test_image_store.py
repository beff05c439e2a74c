"""Pictures by content: each once, whole, whoever puts it and when."""

from __future__ import annotations

import resource
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_pictures import noise, noisy
from PIL import Image, PngImagePlugin

from contextrl_verl.errors import ConfigError
from data_prep.images.store import ImageStore

PUTS = 30


def test_the_same_pixels_are_one_file(tmp_path):
    store = ImageStore(tmp_path / "store")
    name = store.put(noisy(1))
    before = store.path(name).stat().st_mtime_ns
    noted = noisy(1)
    noted.info["icc_profile"] = b"something"
    assert store.put(noted) == name
    assert name in store
    assert store.path(name).stat().st_mtime_ns == before
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [store.path(name)]
    assert np.array_equal(np.asarray(store.open(name)), noise(1))


def test_nothing_but_pixels_is_written(tmp_path):
    store = ImageStore(tmp_path)
    noted = noisy(2)
    noted.info |= {"icc_profile": b"profile", "dpi": (72, 72), "exif": b"Exif\0\0x", "comment": "hm"}
    data = store.read(store.put(noted))
    chunks, at = [], 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append(data[at + 4 : at + 8])
        at += 12 + size
    assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}
    assert PngImagePlugin.PngImageFile(store.path(store.put(noted))).text == {}


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**31))
def test_what_is_put_is_opened(tmp_path_factory, width, height, seed):
    store = ImageStore(tmp_path_factory.getbasetemp() / "kept")
    pixels = noise(seed, width, height)
    assert np.array_equal(np.asarray(store.open(store.put(Image.fromarray(pixels)))), pixels)


def test_the_shape_is_part_of_the_name(tmp_path):
    store = ImageStore(tmp_path)
    grey = noise(1, 12, 12)
    assert len({store.put(Image.fromarray(grey.reshape(h, 144 // h, 3))) for h in (6, 8, 12, 18, 24)}) == 5


def test_what_is_not_there_or_not_whole_is_said(tmp_path):
    store = ImageStore(tmp_path)
    name, other = store.put(noisy(1)), store.put(noisy(2))
    for wrong in ("../../etc/passwd", name.upper(), name[:-1], "", 3):
        with pytest.raises(ConfigError, match="no name of a stored picture"):
            store.path(wrong)
    with pytest.raises(ConfigError, match=r"cannot be read .*Fix:"):
        store.open("0" * 32)
    whole = store.path(name).read_bytes()
    for damage in (b"", whole[: len(whole) // 2]):
        store.path(name).write_bytes(damage)
        with pytest.raises(ConfigError, match=r"not whole .*Fix:"):
            store.read(name)
    store.path(name).write_bytes(store.path(other).read_bytes())
    with pytest.raises(ConfigError, match=r"not the pixels .*Fix:"):
        store.open(name)
    with pytest.raises(ValueError, match="mode RGB"):
        store.put(noisy(1).convert("L"))


def put_on_a_full_disk(folder: str) -> str:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        ImageStore(Path(folder)).put(noisy(1, 100, 100))
    except OSError as error:
        return error.strerror
    return ""


def test_half_a_picture_is_never_there(tmp_path):
    with get_context("spawn").Pool(1) as pool:
        assert pool.apply(put_on_a_full_disk, (str(tmp_path),)) == "File too large"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    store = ImageStore(tmp_path)
    assert np.array_equal(np.asarray(store.open(store.put(noisy(1, 100, 100)))), noise(1, 100, 100))


def put_all(folder: str, start: int) -> list[str]:
    store = ImageStore(Path(folder))
    names = []
    for number in range(PUTS):
        names.append(store.put(noisy((number + start) % PUTS, 40, 40)))
        store.open(names[-1])
    return names


def test_many_processes_put_the_same_pictures(tmp_path):
    with get_context("spawn").Pool(2) as pool:
        made = pool.starmap(put_all, [(str(tmp_path), start) for start in (0, 7)])
    assert {frozenset(names) for names in made} == {frozenset(made[0])}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == sorted(f"{name}.png" for name in made[0])
