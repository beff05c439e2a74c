"""Tables, folders of pictures and easy_vqa: every row is an item or counted under a reason."""

from __future__ import annotations

import base64
import csv
import json
import os
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_pictures import bombs, encoded, noise, noisy
from PIL import Image
from scanned import lines, picture_folder, read, row, scan

from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import Funnel
from data_prep.common.pipeline import total
from data_prep.common.seeded import draw
from data_prep.images.decode import ImageRejected
from data_prep.images.item import VqaItem
from data_prep.images.sources import load_items, plan_source, read_columns, scan_images
from data_prep.images.sources.base import RowRejected
from data_prep.images.sources.values import answer_of, picture_of
from data_prep.images.store import ImageStore


@pytest.fixture
def pictures(tmp_path):
    return picture_folder(tmp_path / "data")


def test_every_way_to_hold_a_picture(pictures, tmp_path):
    data = encoded(noisy(9))
    plain = base64.b64encode(data).decode()
    held = [
        "deep/0.png", "./deep/../deep/0.png", {"path": "deep/0.png"}, {"bytes": plain, "path": "x"}, plain,
        f"data:image/png;base64,{plain}", f"data:;base64,{plain}", ["deep/0.png"], [{"bytes": plain}],
    ]  # fmt: skip
    table = lines(pictures / "t.jsonl", *(row(image, f"q{n}") for n, image in enumerate(held)))
    items, dropped, store = read(table, tmp_path)
    assert dropped == {}
    shown = [np.array_equal(np.asarray(store.open(item.image)), noise(9)) for item in items]
    assert shown == [False, False, False, True, True, True, True, False, True]
    assert len({item.image for item in items}) == 2
    assert items[0] == VqaItem(
        "t.jsonl:0", items[0].image, "q0", "this", "image", "t.jsonl",
        {"source": "t.jsonl", "file": "t.jsonl", "row": 0, "path": "deep/0.png"},
    )  # fmt: skip


def test_what_is_dropped_is_counted(pictures, tmp_path):
    (tmp_path / "secret.png").write_bytes(encoded(noisy(1)))
    (pictures / "outside.png").symlink_to(tmp_path / "secret.png")
    (pictures / "circle.png").symlink_to(pictures / "circle.png")
    (pictures / "text.png").write_text("no picture")
    (pictures / "bomb.png").write_bytes(bombs()["PNG"])
    os.mkfifo(pictures / "pipe.png")
    good = "deep/0.png"
    expected = {
        "path leaves the folder": ["../secret.png", str(tmp_path / "secret.png"), "outside.png", "/etc/hostname",
                                   "deep/../../secret.png", str(pictures / "deep/0.png"), {"path": "../secret.png"}],
        "no such file": ["none.png", "deep", "pipe.png", "circle.png", "a\0b.png", "x" * 5000 + ".png", "."],
        "picture is a link": ["https://example.org/a.png", "file:///etc/hostname"],
        "no picture": [None, "", [], {}, {"path": None}, 7, True, "data:text/plain,hm"],
        "several pictures": [[good, good]],
        "damaged base64": [{"bytes": "%%%"}, "data:image/png;base64,iVBORw0KGgo*"],
        "unknown format": ["text.png"],
        "too many pixels": ["bomb.png"],
    }  # fmt: skip
    rows = [row(image) for images in expected.values() for image in images]
    texts = {
        "no question": ["", "  ", None, "<image>"],
        "question is no text": [3, {"a": 1}, ["a"]],
        "question holds a mark for media": ["<image> and <image> what?", "see <video> what?"],
        "question is a conversation": [[{"role": "user", "content": "a"}] * 3],
    }
    rows += [row(good, question) for questions in texts.values() for question in questions]
    answers = {
        "no answer": ["", " \n", None, float("nan"), float("inf")],
        "answer is a list": [["yes"], []],
        "answer is no text": [True, {"a": "yes"}],
    }
    rows += [row(good, "q", answer) for group in answers.values() for answer in group]
    broken = ["{", "[1, 2]", "not json", '"text"']
    kept = [row(good, "<image>\nwhat is this? "), row(good, "one", 3), row(good, "two", 2.5), row(good, "three", 4.0)]
    table = lines(pictures / "t.jsonl", *rows, *broken, "", *kept, row(good, "x" * 3000))
    items, dropped, _ = read(table, tmp_path, max_record_bytes=2900)
    counts = Counter({reason: len(group) for part in (expected, texts, answers) for reason, group in part.items()})
    counts["no such file"] -= 1
    assert dropped == {**counts, "not JSON": len(broken), "record too large": 2}
    assert [(item.question, item.answer) for item in items] == [
        ("what is this?", "this"), ("one", "3"), ("two", "2.5"), ("three", "4"),
    ]  # fmt: skip


def test_half_characters_are_dropped_not_written(pictures, tmp_path):
    table = pictures / "t.jsonl"
    text = json.dumps(row("deep/0.png", "QQ")).replace("QQ", "\\ud800 what?")
    table.write_text(text + "\n")
    items, _, _ = read(table, tmp_path)
    assert all(item.question.encode() for item in items)
    with pytest.raises(RowRejected, match="undecodable"):
        answer_of("\ud800")


def test_parquet_with_bytes_and_verls_own_rows(tmp_path):
    data = encoded(noisy(5))
    rows = [
        {
            "images": [{"bytes": data, "path": None}],
            "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "<image>what is it?"}],
            "reward_model": {"style": "rule", "ground_truth": f"a{number}"},
            "domain": "charts" if number % 2 else None,
            "id": number,
        }
        for number in range(50)
    ]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=20)
    items, dropped, store = read(path, tmp_path, domain="plots")
    assert dropped == {}
    assert [(item.question, item.answer) for item in items] == [("what is it?", f"a{n}") for n in range(50)]
    assert [item.domain for item in items[:2]] == ["plots", "charts"]
    assert [item.provenance["id"] for item in items] == [str(n) for n in range(50)]
    assert len(list(store.folder.rglob("*.png"))) == 1
    assert [payload["span"]["count"] for payload in plan_source(str(path), {})] == [20, 20, 10]


def test_damage_costs_its_own_rows(tmp_path):
    path = tmp_path / "rows.parquet"
    rows = [row(encoded(noisy(n)), f"q{n}") for n in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=10)
    plan = plan_source(str(path), {"store": str(tmp_path / "store")})
    data = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    data[start : start + 100] = bytes(100)
    path.write_bytes(data)
    funnel = Funnel()
    for number, payload in enumerate(plan):
        funnel.add(scan_images(payload, tmp_path / f"{number}.parquet"))
    funnel.check()
    (stage,) = funnel
    assert stage.entered == 40
    assert stage.dropped == {"damaged file": 10}


def test_folders_with_a_table(pictures, tmp_path):
    with (pictures / "metadata.csv").open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", "question", "answer", "domain"])
        for number in range(4):
            writer.writerow([f"deep/{number}.png", "with a\nline end, and a comma?", number, "natural"])
        writer.writerow(["../secret.png", "q", "a", ""])
    items, dropped, store = read(pictures, tmp_path / "csv", part_rows=3)
    assert dropped == {"path leaves the folder": 1}
    assert [(item.answer, item.domain, item.source) for item in items] == [
        (str(n), "natural", "data") for n in range(4)
    ]
    for number, item in enumerate(items):
        assert np.array_equal(np.asarray(store.open(item.image)), noise(number))
    (pictures / "metadata.csv").unlink()
    lines(pictures / "metadata.jsonl", {"file_name": "deep/1.png", "question": "q", "answer": "a"})
    assert len(read(pictures, tmp_path / "jsonl")[0]) == 1
    (pictures / "metadata.csv").write_text("file_name\n")
    with pytest.raises(ConfigError, match="several tables"):
        plan_source(str(pictures), {})


def test_columns_of_other_names_and_pictures_elsewhere(pictures, tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        lines(tables / name, {"shot": "0.png", "ask": "q", "meta": {"gold": name}})
    columns = read_columns(["image=shot", "question=ask", "answer=meta.gold"])
    items, dropped, _ = read(tables, tmp_path, columns=columns, root=str(pictures / "deep"), name="mine")
    assert dropped == {}
    assert [(item.item_id, item.answer) for item in items] == [
        ("mine:a.jsonl:0", "a.jsonl"), ("mine:b.jsonl:0", "b.jsonl"),
    ]  # fmt: skip


def test_what_the_user_can_mend(pictures, tmp_path):
    table = lines(pictures / "t.jsonl", {"image": "x", "text": "q", "answer": "a"})
    (tmp_path / "empty").mkdir()
    (pictures / "t.txt").write_text("x")
    (pictures / "bad.csv").write_bytes(b"image,question,answer\n\xff\xff,a,b\n")
    (pictures / "bad.parquet").write_bytes(b"PAR1 but no more")
    lines(pictures / "none.jsonl", "")
    cases = [
        (
            table,
            {},
            r"no column is known to be the question; columns are \['answer', 'image', 'text'\].*question=COLUMN",
        ),
        (table, {"columns": {"question": "txt"}}, r"no column 'txt' for the question; columns are .*Fix:"),
        (table, {"columns": {"picture": "x"}}, r"there is no 'picture'. Fix:"),
        (table, {"limit": -1}, r"option 'limit' is -1: .*Fix:"),
        (table, {"colums": {}}, r"option 'colums' .*Fix:"),
        (table, {"root": "nowhere"}, r"root is 'nowhere'. Fix:"),
        ("nowhere", {}, r"'nowhere' is no known source or path. Fix: .*easy_vqa.*hf:NAME"),
        (tmp_path / "empty", {}, r"holds nothing that is read here. Fix:"),
        (pictures / "t.txt", {}, r"no table that is read here. Fix:"),
        (pictures / "bad.csv", {}, r"bad.csv: cannot be read .*Fix:.*UTF-8"),
        (pictures / "bad.parquet", {}, r"bad.parquet: cannot be read .*Fix:"),
        (pictures / "none.jsonl", {}, r"holds no row. Fix:"),
        ("easy_vqa", {"split": "validation"}, r"split is 'validation'. Fix: one of train, test"),
    ]
    for source, options, words in cases:
        with pytest.raises(ConfigError, match=words):
            plan_source(str(source), options)
    with pytest.raises(ConfigError, match="ROLE=COLUMN"):
        read_columns(["question"])


def test_easy_vqa_is_what_the_package_says(tmp_path):
    from easy_vqa import get_test_image_paths, get_test_questions

    questions, answers, images = get_test_questions()
    paths = get_test_image_paths()
    done = scan("easy_vqa", tmp_path, split="test", limit=400, part_rows=3000)
    assert len(done) > 2
    (stage,) = (funnel := total(done))
    assert stage.summary()["dropped"] == {"left out by the limit": len(questions) - 400}
    items = load_items([part.path for part in done], funnel)
    assert len(items) == 400
    store = ImageStore(tmp_path / "store")
    for item in items:
        at = item.provenance["row"]
        assert (item.question, item.answer, item.domain) == (questions[at], answers[at], "shapes")
        with Image.open(paths[images[at]]) as picture:
            assert np.array_equal(np.asarray(store.open(item.image)), np.asarray(picture.convert("RGB")))
    keys = sorted(range(len(questions)), key=lambda at: draw(1, f"test:{at}"))[:400]
    assert sorted(keys) == [item.provenance["row"] for item in items]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["deep/0.png", "../x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["bytes", "path", "role", "content", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=60)
@given(
    st.lists(st.fixed_dictionaries({}, optional={n: values for n in ("image", "question", "answer", "id", "domain")}))
)
def test_any_json_is_an_item_or_a_reason(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("any")
    (folder / "deep").mkdir()
    (folder / "deep" / "0.png").write_bytes(encoded(noisy(0)))
    table = lines(folder / "t.jsonl", row("deep/0.png"), *records)
    items, dropped, _ = read(table, folder)
    assert len(items) + sum(dropped.values()) == len(records) + 1
    assert items[0].question == "what?"


@settings(max_examples=300)
@given(values | st.binary(max_size=40) | st.text())
def test_any_value_is_a_picture_inside_the_folder_or_a_reason(tmp_path_factory, value):
    root = (tmp_path_factory.getbasetemp() / "root").resolve()
    (root / "deep").mkdir(parents=True, exist_ok=True)
    (root / "deep" / "0.png").write_bytes(b"x")
    try:
        found = picture_of(value, root)
    except ImageRejected:
        return
    assert found.data is not None or found.file == root / "deep" / "0.png"
