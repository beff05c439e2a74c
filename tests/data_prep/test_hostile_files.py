"""Files of runs that lead elsewhere, unpack without end, or hold what pairs cannot."""

from __future__ import annotations

import json
import lzma

import pytest
from run_records import mini_v1, write_lines

from data_prep.trajectories.readers import files, open_source
from data_prep.trajectories.readers.files import Span, file_spans
from data_prep.trajectories.run import AgentRun


def runs_of(path):
    found = [located.run for located in open_source(path)]
    assert all(isinstance(run, AgentRun) for run in found), found
    return found


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    inside, outside = tmp_path / "runs", tmp_path / "else"
    inside.mkdir()
    outside.mkdir()
    write_lines(outside / "a.jsonl", [mini_v1(1)])
    write_lines(inside / "b.jsonl", [mini_v1(2)])
    (inside / "c.jsonl").symlink_to(inside / "b.jsonl")
    (inside / "d.jsonl").symlink_to(outside / "a.jsonl")
    (inside / "folder").symlink_to(outside)
    found = {located.location.file: located.run for located in open_source(inside)}
    assert [name for name, run in found.items() if isinstance(run, AgentRun)] == ["b.jsonl", "c.jsonl"]
    for name in found.keys() - {"b.jsonl", "c.jsonl"}:
        assert found[name].reason == "path leaves the folder"
    assert "d.jsonl" in found
    assert list(file_spans(inside / "d.jsonl", "d.jsonl", 100)) == [Span("d.jsonl")], "it was looked into"
    # A link that is given by itself, or is the folder, was meant.
    assert len(runs_of(inside / "d.jsonl")) == len(runs_of(inside / "folder")) == 1


@pytest.mark.parametrize("line", [b"\n", b"x" * 4000], ids=["blank lines", "one line"])
def test_a_small_file_that_unpacks_without_end_is_given_up(tmp_path, line, monkeypatch):
    monkeypatch.setattr(files, "_CHUNK", 1 << 12)
    monkeypatch.setattr(files, "_LONGEST_LINE", 1 << 20)
    path, blocks = tmp_path / "a.jsonl.xz", 1 << 12
    path.write_bytes(lzma.compress(json.dumps(mini_v1(1)).encode() + b"\n" + line * (blocks * 4000 // len(line))))
    read, opened = [], lzma.open

    def counting(path):
        file = opened(path)
        line = file.readline
        file.readline = lambda *most: read.append(len(got := line(*most))) or got
        return file

    monkeypatch.setitem(files._OPEN, b"\xfd7zXZ\x00", counting)
    first, reject = (located.run for located in open_source(path, max_record_bytes=1 << 16))
    assert isinstance(first, AgentRun)
    assert (reject.reason, "the rest of the file is not read" in reject.detail) == ("too large", True)
    assert sum(read) < blocks * 4000 / 8


def test_some_blank_lines_are_no_harm(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n" * 5000 + json.dumps(mini_v1(1)) + "\n" * 5000 + json.dumps(mini_v1(2)))
    assert len(runs_of(path)) == 2


def test_a_nul_in_a_run_becomes_a_mark(tmp_path):
    record = mini_v1(1)
    record["messages"][-1]["content"] = "Binary\0file"
    path = write_lines(tmp_path / "a.jsonl", [record])
    assert runs_of(path)[0].messages[-1].content == "Binary\ufffdfile"
