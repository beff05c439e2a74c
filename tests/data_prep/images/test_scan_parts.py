"""Parts of a scan: drawn, repeated, killed, and put together."""

from __future__ import annotations

import base64
import json
import os
import random
from collections import Counter

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from made_pictures import encoded, noisy
from scanned import lines, picture_folder, read, row

from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import Funnel
from data_prep.images.item import VqaItem, write_items
from data_prep.images.sources import describe_source, load_items
from data_prep.images.sources import scan as scan_module


@pytest.fixture
def pictures(tmp_path):
    return picture_folder(tmp_path / "data")


def test_another_seed_draws_others_and_parts_do_not_matter(pictures, tmp_path):
    table = lines(pictures / "t.jsonl", *(row(f"deep/{n % 4}.png", f"q{n}") for n in range(60)))
    drawn = [
        [item.question for item in read(table, tmp_path / str(n), limit=20, seed=seed, part_rows=rows)[0]]
        for n, (seed, rows) in enumerate([(1, 7), (1, 1000), (2, 7)])
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert [len(found) for found in drawn] == [20, 20, 20]
    assert len(read(table, tmp_path / "all", limit=61)[0]) == 60


def test_a_picture_is_opened_once_however_many_ask(pictures, tmp_path, monkeypatch):
    opened = Counter()
    real = scan_module.open_image
    monkeypatch.setattr(scan_module, "open_image", lambda data, limits: opened.update([data]) or real(data, limits))
    (pictures / "bad.png").write_bytes(b"\x89PNG and no more")
    data = base64.b64encode(encoded(noisy(7))).decode()
    images = ["deep/0.png", "deep/1.png", "bad.png", data, {"bytes": data}]
    table = lines(pictures / "t.jsonl", *(row(images[n % 5], f"q{n}") for n in range(50)))
    _, dropped, _ = read(table, tmp_path)
    assert dropped == {"damaged picture": 10}
    assert set(opened.values()) == {1}
    assert len(opened) == 4


def test_repetitions_and_contradictions(tmp_path):
    def item(name: str, image: str, question: str, answer: str) -> VqaItem:
        return VqaItem(name, image, question, answer, "d", "s")

    write_items([item("1", "a", "What?", "x"), item("2", "a", "what? ", "X"), item("3", "b", "what?", "y")],
                tmp_path / "1")  # fmt: skip
    write_items([item("4", "a", "who?", "x"), item("5", "b", "who?", "x"), item("6", "a", "who?", "z")], tmp_path / "2")
    funnel = Funnel()
    assert [found.item_id for found in load_items([tmp_path / "1", tmp_path / "2"], funnel)] == ["1", "3", "5"]
    funnel.check()
    assert dict(funnel.stage("distinct").dropped) == {
        "the same question about the same picture": 1, "answered differently elsewhere": 2,
    }  # fmt: skip


def test_a_changed_table_or_option_is_another_job(pictures):
    table = lines(pictures / "t.jsonl", row("deep/0.png"))
    first = describe_source(str(table), {"store": "here"})
    assert json.loads(json.dumps(first)) == json.loads(json.dumps(describe_source(str(table), {"store": "there"})))
    assert describe_source(str(table), {"seed": 2}) != first
    os.utime(table, (1, 1))
    assert describe_source(str(table), {}) != first


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_damaged_tables_are_said_or_counted(pictures, tmp_path, ending):
    rows = [row(f"deep/{n % 4}.png", f"question number {n}, or so", n) for n in range(60)]
    made = pictures / f"whole{ending}"
    if ending == ".jsonl":
        lines(made, *rows)
    else:
        table = pa.Table.from_pylist(rows)
        if ending == ".csv":
            pa.csv.write_csv(table, made)
        else:
            pq.write_table(table, made, row_group_size=20)
    whole = made.read_bytes()
    draw_ = random.Random(4)
    ends = Counter()
    for number in range(120):
        data = bytearray(whole)
        if number % 3 == 0:
            data = data[: draw_.randrange(len(data))]
        for _ in range((0, 1, 20)[number % 3]):
            data[draw_.randrange(len(data))] = draw_.randrange(256)
        path = pictures / f"{number}{ending}"
        path.write_bytes(data)
        try:
            _, dropped, _ = read(path, tmp_path / str(number))
        except ConfigError as error:
            assert "Fix:" in str(error)  # noqa: PT017
            ends["said"] += 1
        else:
            ends["counted" if dropped else "read"] += 1
        path.unlink()
    assert sum(ends.values()) == 120
    assert ends["counted"]
