"""Any number of processes share a folder of answers."""

from __future__ import annotations

import multiprocessing

import pytest

from contextrl_verl.errors import ConfigError
from data_prep.models.cache import ReplyCache, digest


def write_and_read(folder: str, process: int) -> int:
    """Write every key and read every key over and over; the number of records that were not whole."""
    cache = ReplyCache(folder)
    for turn in range(10):
        for number in range(10):
            cache.write(digest(number), {"how": "answered", "number": number, "filler": "x" * 20_000})
            record = cache.read(digest((number + turn + process) % 10))
            assert record is None or len(record["filler"]) == 20_000
    return cache.damaged


def test_processes_never_see_half_a_file(tmp_path):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert pool.starmap(write_and_read, [(str(tmp_path), process) for process in range(4)]) == [0] * 4
    assert len([file for file in tmp_path.rglob("*") if file.is_file()]) == 10


def test_a_digest_does_not_depend_on_the_order_of_keys_and_tells_types_apart():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert len({digest(1), digest("1"), digest([1]), digest(None), digest("\ud800")}) == 5


def test_a_file_under_the_wrong_name_is_not_believed(tmp_path):
    cache = ReplyCache(tmp_path)
    cache.write(digest(1), {"how": "answered"})
    cache.path(digest(2)).parent.mkdir(parents=True, exist_ok=True)
    cache.path(digest(1)).rename(cache.path(digest(2)))
    assert cache.read(digest(2)) is None
    assert cache.damaged == 1


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cache="):
        ReplyCache(tmp_path / "file" / "cache")
