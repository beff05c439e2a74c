"""A file is whole or not there, and a killed writer's leftovers go with the next write."""

from __future__ import annotations

import subprocess
import sys

import pytest

from contextrl_verl.pairs.whole_file import whole_file

WRITER = """
import sys, time
from contextrl_verl.pairs.whole_file import whole_file
with whole_file(sys.argv[1]) as scratch:
    scratch.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_the_name_appears_at_the_end_and_not_after_an_error(tmp_path):
    path = tmp_path / "deep" / "a[1].txt"
    with whole_file(path) as scratch:
        scratch.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"

    def fail():
        with whole_file(path) as scratch:
            scratch.write_text("two")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_a_killed_writers_file_is_removed_and_a_living_ones_is_not(tmp_path):
    path = tmp_path / "a[1].txt"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout.readline() == b"writing\n"
        (left,) = tmp_path.iterdir()
        with whole_file(path) as scratch:
            scratch.write_text("other")
        assert left.exists()
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    with whole_file(path) as scratch:
        scratch.write_text("whole")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "whole"
