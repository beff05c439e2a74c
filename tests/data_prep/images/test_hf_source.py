"""Hugging Face data sets without a network: saved on disk, and a local folder streamed as one by name would be."""

from __future__ import annotations

import numpy as np
import pytest
from made_pictures import encoded, noise, noisy
from scanned import read

from contextrl_verl.errors import ConfigError
from data_prep.images.sources.base import SourceOptions
from data_prep.images.sources.scan import plan_source

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _caches(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def made(count: int, *, several: bool = False) -> datasets.Dataset:
    data = [encoded(noisy(n // 3), ("PNG", "TIFF")[n % 2]) for n in range(count)]
    images = [{"bytes": one, "path": f"/somewhere/{n}.png"} for n, one in enumerate(data)]
    if count > 5:
        images[5] = {"bytes": images[5]["bytes"][:100], "path": None}
    kind = datasets.Image()
    if several:
        images, kind = [[image] for image in images], datasets.List(datasets.Image())
        images[1] = images[1] * 2
    features = datasets.Features(
        {
            "view": kind,
            "query": datasets.Value("string"),
            "answer": datasets.ClassLabel(names=["no", "yes"]),
            "thumbnail_path": datasets.Value("string"),
        }
    )
    columns = {
        "view": images, "query": [f"<image>q{n}?" for n in range(count)], "answer": [n % 2 for n in range(count)],
        "thumbnail_path": ["/etc/hostname"] * count,
    }  # fmt: skip
    return datasets.Dataset.from_dict(columns, features=features)


def check(items, store) -> None:
    for item in items:
        number = int(item.question[1:-1])
        assert item.answer == ("no", "yes")[number % 2]
        assert np.array_equal(np.asarray(store.open(item.image)), noise(number // 3))


@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_saved_on_disk(tmp_path, prefix):
    made(30).save_to_disk(tmp_path / "saved")
    source = f"{prefix}{tmp_path / 'saved'}"
    items, dropped, store = read(source, tmp_path / "a", part_rows=7)
    assert dropped == {"damaged picture": 1}
    assert len(items) == 29
    check(items, store)
    assert {item.source for item in items} == {"saved"}
    items, dropped, store = read(source, tmp_path / "b", limit=10, part_rows=7)
    assert dropped["left out by the limit"] == 20
    check(items, store)


def test_lists_of_one_picture(tmp_path):
    made(12, several=True).save_to_disk(tmp_path / "saved")
    items, dropped, store = read(tmp_path / "saved", tmp_path)
    assert dropped == {"damaged picture": 1, "several pictures": 1}
    check(items, store)


def test_splits(tmp_path):
    both = datasets.DatasetDict({"test": made(3), "dev": made(4)})
    both.save_to_disk(tmp_path / "saved")
    for options in (SourceOptions(), SourceOptions(split="train")):
        with pytest.raises(ConfigError, match=r"no split 'train'. Fix: one of \['dev', 'test'\]"):
            plan_source(str(tmp_path / "saved"), options)
    assert len(read(tmp_path / "saved", tmp_path, split="dev")[0]) == 4


def test_streamed_file_by_file(tmp_path):
    folder = tmp_path / "named"
    (folder / "data").mkdir(parents=True)
    whole = made(30)
    for shard in range(3):
        part = whole.shard(3, shard, contiguous=True)
        part.to_parquet(folder / "data" / f"train-{shard:05d}-of-00003.parquet")
    source = f"hf:{folder}"
    assert len(plan_source(source, SourceOptions())) == 3
    items, dropped, store = read(source, tmp_path / "a")
    assert dropped == {"damaged picture": 1}
    assert [item.question for item in items] == [f"q{n}?" for n in range(30) if n != 5]
    check(items, store)
    # A stream is not read on, and nobody knows how long it is; the reason stands there all the same.
    items, dropped, _ = read(source, tmp_path / "b", limit=14)
    assert [item.question for item in items] == [f"q{n}?" for n in range(14) if n != 5]
    assert dropped == {"damaged picture": 1, "left out by the limit": 0}


def test_a_streamed_folder_of_pictures(tmp_path):
    folder = tmp_path / "named"
    (folder / "train").mkdir(parents=True)
    for number in range(3):
        (folder / "train" / f"{number}.png").write_bytes(encoded(noisy(number)))
    rows = "".join(f'{{"file_name": "{n}.png", "question": "q{3 * n}?", "answer": "a"}}\n' for n in range(3))
    (folder / "train" / "metadata.jsonl").write_text(rows)
    items, dropped, store = read(f"hf:{folder}", tmp_path / "a")
    assert dropped == {}
    assert [np.array_equal(np.asarray(store.open(i.image)), noise(n)) for n, i in enumerate(items)] == [True] * 3


def test_paths_of_a_data_set_do_not_lead_out_of_it(tmp_path):
    outside = tmp_path / "outside.png"
    outside.write_bytes(encoded(noisy(1)))
    rows = {"image": [{"bytes": None, "path": str(outside)}], "question": ["q"], "answer": ["a"]}
    struct = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features(
        {"image": struct, "question": datasets.Value("string"), "answer": datasets.Value("string")}
    )
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    items, dropped, _ = read(tmp_path / "saved", tmp_path)
    assert (items, dropped) == ([], {"path leaves the folder": 1})


def test_what_the_user_can_mend(tmp_path, monkeypatch):
    two = made(3).add_column("other", [{"bytes": encoded(noisy(1)), "path": None}] * 3)
    two = two.cast_column("other", datasets.Image())
    two.save_to_disk(tmp_path / "two")
    with pytest.raises(
        ConfigError, match=r"no column of its own for the image; columns are .*'other', .*'view'\]. Fix: .*image=COL"
    ):
        plan_source(str(tmp_path / "two"), SourceOptions())
    assert len(read(tmp_path / "two", tmp_path, columns={"image": "other"})[0]) == 3
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"hf:.*nowhere: cannot be loaded .*Fix:"):
        plan_source(f"hf:{tmp_path}/nowhere", SourceOptions())
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text("raise SystemExit('executed')\n")
    with pytest.raises(ConfigError, match=r"cannot be loaded .*Fix:"):
        plan_source(f"hf:{tmp_path}/script", SourceOptions())
