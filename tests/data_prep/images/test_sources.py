"""Tables, folders of pictures and easy_vqa: every row is an item or counted under a reason."""

from __future__ import annotations

import base64
import csv
import json
import os
import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.csv
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
from data_prep.common.splits import draw
from data_prep.images.item import VqaItem, read_items, write_records
from data_prep.images.sources import scan as scan_module
from data_prep.images.sources.base import RowRejected, SourceOptions
from data_prep.images.sources.scan import distinct, plan_source, scan_images
from data_prep.images.sources.values import answer_of, picture_of
from data_prep.images.store import ImageRejected, ImageStore


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
                                   "deep/../../secret.png", {"path": "../secret.png"}],
        "no such file": ["none.png", "deep", "pipe.png", "circle.png", "a\0b.png", "x" * 5000 + ".png", "."],
        "picture is a link": ["https://example.org/a.png", "file:///etc/hostname"],
        "no picture": [None, "", [], {}, {"path": None}, 7, True, "data:text/plain,hm", "data:image/png"],
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
    kept = [row(good, "<image>\nwhat is this? "), row(good, "one", 3), row(good, "two", 2.5)]
    kept += [row(str(pictures / good), "three", 4.0)]
    table = lines(pictures / "t.jsonl", *rows, *broken, "", *kept)
    items, dropped, _ = read(table, tmp_path)
    counts = Counter({reason: len(group) for part in (expected, texts, answers) for reason, group in part.items()})
    assert dropped == {**counts, "unreadable row": len(broken)}
    assert [(item.question, item.answer, item.provenance["path"]) for item in items] == [
        ("what is this?", "this", good), ("one", "3", good), ("two", "2.5", good), ("three", "4", good),
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
    assert [payload["span"]["count"] for payload in plan_source(str(path), SourceOptions())] == [20, 20, 10]


def test_damage_costs_its_own_rows(tmp_path):
    path = tmp_path / "rows.parquet"
    rows = [row(encoded(noisy(n)), f"q{n}") for n in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=10)
    plan = [{**part, "store": str(tmp_path / "store")} for part in plan_source(str(path), SourceOptions())]
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
    assert stage.dropped == {"unreadable row": 10}
    assert "the file is damaged" in stage.samples["unreadable row"][0]["detail"]


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
        plan_source(str(pictures), SourceOptions())


def test_columns_of_other_names_and_pictures_elsewhere(pictures, tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        lines(tables / name, {"shot": "0.png", "ask": "q", "meta": {"gold": name}})
    columns = {"image": "shot", "question": "ask", "answer": "meta.gold"}
    items, dropped, _ = read(tables, tmp_path, columns=columns, root=str(pictures / "deep"))
    assert dropped == {}
    assert [(item.item_id, item.answer) for item in items] == [
        ("tables:a.jsonl:0", "a.jsonl"), ("tables:b.jsonl:0", "b.jsonl"),
    ]  # fmt: skip


def test_what_the_user_can_mend(pictures, tmp_path):
    table = lines(pictures / "t.jsonl", {"image": "x", "text": "q", "answer": "a"})
    (tmp_path / "empty").mkdir()
    (pictures / "t.txt").write_text("x")
    (pictures / "bad.csv").write_bytes(b"image,question,answer\n\xff\xff,a,b\n")
    (pictures / "bad.parquet").write_bytes(b"PAR1 but no more")
    lines(pictures / "none.jsonl", "")
    cases = [
        (table, {}, r"no column question or .* for the question; columns are \['answer', 'image', 'text'\]. Fix:"),
        (table, {"columns": {"question": "txt"}}, r"no column txt for the question; columns are .*question=COLUMN"),
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
            plan_source(str(source), SourceOptions(**options))


def test_easy_vqa_is_what_the_package_says(tmp_path):
    from easy_vqa import get_test_image_paths, get_test_questions

    questions, answers, images = get_test_questions()
    paths = get_test_image_paths()
    done = scan("easy_vqa", tmp_path, split="test", limit=400, part_rows=3000)
    assert len(done) > 2
    (stage,) = (funnel := total(done))
    assert stage.summary()["dropped"] == {"left out by the limit": len(questions) - 400}
    items = distinct(read_items([part.path for part in done]), funnel)
    assert len(items) == 400
    store = ImageStore(tmp_path / "store")
    for item in items:
        at = item.provenance["row"]
        assert (item.question, item.answer, item.domain) == (questions[at], answers[at], "shapes")
        with Image.open(paths[images[at]]) as picture:
            assert np.array_equal(np.asarray(store.open(item.image)), np.asarray(picture.convert("RGB")))
    keys = sorted(range(len(questions)), key=lambda at: draw(1, f"test:{at}"))[:400]
    assert sorted(keys) == [item.provenance["row"] for item in items]


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

    write_records([item("1", "a", "What?", "x"), item("2", "a", "what? ", "X"), item("3", "b", "what?", "y")],
                tmp_path / "1")  # fmt: skip
    write_records(
        [item("4", "a", "who?", "x"), item("5", "b", "who?", "x"), item("6", "a", "who?", "z")], tmp_path / "2"
    )
    funnel = Funnel()
    assert [found.item_id for found in distinct(read_items([tmp_path / "1", tmp_path / "2"]), funnel)] == [
        "1",
        "3",
        "5",
    ]
    funnel.check()
    assert dict(funnel.stage("distinct").dropped) == {
        "the same question about the same picture": 1, "answered differently elsewhere": 2,
    }  # fmt: skip


def test_a_changed_table_or_option_is_another_job(pictures):
    table = lines(pictures / "t.jsonl", row("deep/0.png"))
    first = plan_source(str(table), SourceOptions())
    assert json.loads(json.dumps(first)) == first == plan_source(str(table), SourceOptions())
    assert plan_source(str(table), SourceOptions(seed=2)) != first
    os.utime(table, (1, 1))
    assert plan_source(str(table), SourceOptions()) != first


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
    for number in range(45):
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
    assert sum(ends.values()) == 45
    assert ends["counted"]


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


@settings(max_examples=30)
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


@settings(max_examples=150)
@given(values | st.binary(max_size=40) | st.text())
def test_any_value_is_a_picture_inside_the_folder_or_a_reason(tmp_path_factory, value):
    root = (tmp_path_factory.getbasetemp() / "root").resolve()
    (root / "deep").mkdir(parents=True, exist_ok=True)
    (root / "deep" / "0.png").write_bytes(b"x")
    try:
        found = picture_of(value, root)
    except ImageRejected:
        return
    assert isinstance(found[0], bytes) or found == (root / "deep" / "0.png", "deep/0.png")
