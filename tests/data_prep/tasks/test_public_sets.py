"""Every public set from files with exactly its columns: rows, rewards, splits, counts; no network."""

from __future__ import annotations

import io
import json
from collections import Counter

import datasets
import pyarrow.parquet as pq
import pytest
from image_factory import color_of
from job_factory import compose_job, verl_loaders
from PIL import Image
from public_examples import EXAMPLES, shown
from typer.testing import CliRunner

from contextrl_verl.cli import app
from contextrl_verl.demo.tiny_vision import make_processor
from contextrl_verl.pairs.prompting import images_of
from data_prep.tasks.rows import EXTRA_INFO, validation_file
from data_prep.tasks.sets import SETS, SHARES
from reward_fns.dispatch import compute_score


@pytest.fixture(autouse=True)
def _caches(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def run(*arguments: object):
    return CliRunner().invoke(app, ["tasks", "public", *map(str, arguments)], env={"COLUMNS": "400"})


def made(name, path, out, *arguments):
    """Rows by split, and the summary."""
    result = run(name, "--path", path, "--out", out, "--workers", "1", *arguments)
    assert result.exit_code == 0, result.output
    files = {"train": out, "validation": validation_file(out)}
    rows = {split: pq.read_table(file).to_pylist() for split, file in files.items() if file.exists()}
    return rows, json.loads(out.with_suffix(".summary.json").read_text())


def number_of(row) -> int:
    """Which example a row is of: numbers stand in its question, and in its instance."""
    text = row["extra_info"]["instance_id"] or row["extra_info"]["question"]
    return int("".join(letter if letter.isdigit() else " " for letter in text.replace("project", "")).split()[-1])


def write_pictures(folder) -> None:
    (folder / "images").mkdir(parents=True)
    for number in (*range(12), *range(100, 112)):
        (folder / "images" / f"{number}.png").write_bytes(shown(number)["bytes"])


@pytest.mark.parametrize(
    ("name", "layout"), [*((name, "files") for name in SETS), *((name, "saved") for name in ("icon_qa", "swe_gym"))]
)
def test_a_set_becomes_rows_that_its_own_answers_solve(name, layout, tmp_path):
    record, example = SETS[name], EXAMPLES[name]
    folder = tmp_path / "set"
    if layout == "files":
        example.write_files(folder, record.subset)
    else:
        example.tables().save_to_disk(folder)
    if name == "virl39k":
        write_pictures(folder)
    share = [] if record.validation else ["--validation", "0.25"]
    rows, summary = made(name, folder, tmp_path / "out" / "rows.parquet", *share)
    numbers = {split: sorted(number_of(row) for row in table) for split, table in rows.items()}
    if record.validation:
        assert numbers == {"train": list(range(12)), "validation": [50, 51, 52]}
    else:
        assert sorted(numbers["train"] + numbers["validation"]) == list(example.splits[record.train])
        assert len(numbers["validation"]) == 3
    dropped = Counter()
    for stage in summary["stages"]:
        assert stage["in"] == stage["out"] + sum(stage["dropped"].values())
        dropped.update(stage["dropped"])
    assert dropped == dict.fromkeys(example.bad, 1)
    assert summary["rows"] == sum(map(len, rows.values())) == summary["stages"][-1]["out"]
    for table in rows.values():
        for index, row in enumerate(table):
            source, right, wrong = example.truth(number_of(row))
            truth, info = row["reward_model"]["ground_truth"], row["extra_info"]
            assert row["data_source"] == source
            assert compute_score(source, right, truth, info)["score"] == 1.0
            assert compute_score(source, wrong, truth, info)["score"] < 0.5
            assert info["index"] == index
            (message,) = row["prompt"]
            assert message["content"].count("<image>") == len(row.get("images") or [])
            assert ("images" in row) == (not record.issues)
            assert list(info) == [entry.name for entry in EXTRA_INFO]


def test_every_set_has_a_fixture_a_share_and_is_listed():
    assert set(EXAMPLES) == set(SETS)
    result = run("--list")
    assert result.exit_code == 0
    for record in SETS.values():
        assert record.domain in SHARES
        assert record.name in result.output
        assert record.hub in result.output


def test_pictures_stand_in_the_order_of_their_marks(tmp_path):
    folder = EXAMPLES["icon_qa"].write_files(tmp_path / "set", "")
    rows, _ = made("icon_qa", folder, tmp_path / "rows.parquet", "--validation", "0")
    (row,) = (row for row in rows["train"] if row["extra_info"]["question"].endswith("How many in 5?"))
    assert row["prompt"][0]["content"].startswith("<image>\nHow many in 5?\nA. <image>\nB. <image>\n")
    assert [color_of(image) for image in pictures(row)] == [(5, 0, 7), (105, 0, 7), (205, 0, 7)]
    assert row["extra_info"]["num_options"] == 2


def pictures(row):
    return [Image.open(io.BytesIO(image["bytes"])) for image in row["images"]]


def test_no_picture_is_in_both_files(tmp_path):
    """Pairs of examples share a picture; one of validation has one of training."""
    example = EXAMPLES["chartqa"]
    table = example.tables()
    table["train"] = datasets.Dataset.from_list(
        [{**example.good(n), "image": shown(n // 2)} for n in range(12)], features=table["train"].features
    )
    table["val"] = datasets.Dataset.from_list(
        [{**example.good(n), "image": shown(n)} for n in (3, 60)], features=table["val"].features
    )
    table.save_to_disk(tmp_path / "set")
    rows, summary = made("chartqa", tmp_path / "set", tmp_path / "a.parquet")
    assert [number_of(row) for row in rows["validation"]] == [60]
    assert summary["stages"][-1]["dropped"] == {"for validation, but also in training": 1}
    rows, _ = made("chartqa", tmp_path / "set", tmp_path / "b.parquet", "--validation", "0.3", "--set", "per_picture=1")
    names = {split: {row["extra_info"]["picture"] for row in table} for split, table in rows.items()}
    assert len(names["train"] | names["validation"]) == len(rows["train"] + rows["validation"]) == 6
    rows, _ = made("chartqa", tmp_path / "set", tmp_path / "c.parquet", "--validation", "0.3")
    names = {split: {row["extra_info"]["picture"] for row in table} for split, table in rows.items()}
    assert not names["train"] & names["validation"]
    assert len(rows["train"] + rows["validation"]) == 12


def test_a_map_is_asked_about_with_other_choices(tmp_path):
    """The same words with other choices are another question; the same with another answer are dropped."""
    example = EXAMPLES["scienceqa"]
    asked = [
        (["Ohio", "Utah"], 0),
        (["Utah", "Iowa"], 1),
        (["Iowa", "Ohio"], 0),
        (["Iowa", "Ohio"], 1),
        (["Ohio", "Utah"], 0),
    ]
    rows = [{**example.good(5), "choices": choices, "answer": answer} for choices, answer in asked]
    datasets.Dataset.from_list(rows, features=datasets.Features(example.features)).to_parquet(tmp_path / "t.parquet")
    rows, summary = made("scienceqa", tmp_path / "t.parquet", tmp_path / "rows.parquet", "--validation", "0")
    (kept,) = rows.values()
    assert [row["reward_model"]["ground_truth"] for row in kept] == ["A", "B"]
    assert "A. Utah\nB. Iowa" in kept[1]["prompt"][0]["content"]
    stages = {stage["name"]: stage["dropped"] for stage in summary["stages"]}
    assert stages["distinct"] == {"answered differently elsewhere": 2, "the same question about the same picture": 1}


def test_one_example_may_ask_several_questions(tmp_path):
    example = EXAMPLES["dvqa"]
    turns = [
        {"user": f"What is {n}?", "assistant": answer, "source": "s"}
        for n, answer in enumerate(("1.", "", "Answer: no"))
    ]
    rows = [{"images": [shown(3)], "texts": turns}]
    datasets.Dataset.from_list(rows, features=datasets.Features(example.features)).to_parquet(tmp_path / "t.parquet")
    rows, summary = made("dvqa", tmp_path / "t.parquet", tmp_path / "rows.parquet", "--validation", "0")
    assert [row["reward_model"]["ground_truth"] for row in rows["train"]] == ["1", "no"]
    assert summary["stages"][0]["out"] == 1
    assert summary["stages"][1]["dropped"] == {"no answer": 1}


def test_the_limit_and_the_seed_choose_examples(tmp_path):
    folder = EXAMPLES["geometry3k"].write_files(tmp_path / "set", "")
    drawn = []
    for seed in (1, 1, 2):
        more = ["--limit", "8", "--seed", seed, "--validation", "0.4"]
        rows, summary = made("geometry3k", folder, tmp_path / f"{len(drawn)}.parquet", *more)
        assert summary["stages"][0]["out"] + sum(summary["stages"][0]["dropped"].values()) == 14
        drawn.append({split: [number_of(row) for row in table] for split, table in rows.items()})
    assert drawn[0] == drawn[1] != drawn[2]
    rows, _ = made("geometry3k", folder, tmp_path / "test.parquet", "--split", "validation", "--validation", "0")
    assert [number_of(row) for row in rows["train"]] == [50, 51, 52]


def test_issues_carry_what_an_agent_loop_needs(tmp_path):
    folder = EXAMPLES["swe_gym"].write_files(tmp_path / "set", "")
    rows, _ = made("swe_gym", folder, tmp_path / "a.parquet", "--validation", "0.3", "--split-by", "repository")
    repos = {split: {row["extra_info"]["repo"] for row in table} for split, table in rows.items()}
    assert not repos["train"] & repos["validation"]
    row = rows["train"][0]
    assert "agent_name" not in row
    assert row["extra_info"]["instance"] is None
    assert "unified diff" in row["prompt"][0]["content"]
    rows, _ = made("swe_gym", folder, tmp_path / "b.parquet", "--agent-loop", "my_containers")
    row = rows["train"][0]
    number = number_of(row)
    info, expected = row["extra_info"], EXAMPLES["swe_gym"].good(number)
    assert row["agent_name"] == "my_containers"
    assert row["prompt"] == [{"role": "user", "content": expected["problem_statement"]}]
    image = f"docker.io/xingyaoww/sweb.eval.x86_64.owner_s_project{number % 4}-{number}:latest"
    assert (info["base_commit"], info["image_name"]) == (expected["base_commit"], image)
    instance = json.loads(info["instance"])
    assert instance["FAIL_TO_PASS"] == ["tests/t.py::f"]
    assert instance["PASS_TO_PASS"] == ["tests/t.py::a"]
    assert instance["problem_statement"] == expected["problem_statement"]
    example = EXAMPLES["swe_bench"]
    rows, _ = made("swe_bench", example.write_files(tmp_path / "bench", ""), tmp_path / "c.parquet", "--instance")
    assert json.loads(rows["train"][0]["extra_info"]["instance"])["FAIL_TO_PASS"] == ["tests/t.py::f"]
    assert "agent_name" not in rows["train"][0]


def test_long_issues_are_dropped_and_counted(tmp_path, demo_tokenizer):
    example = EXAMPLES["swe_gym"]
    table = example.tables()["train"].to_list()
    table[-1]["problem_statement"] = "very long " * 400
    features = datasets.Features(example.features)
    datasets.Dataset.from_list(table, features=features).to_parquet(tmp_path / "t.parquet")
    demo_tokenizer.save_pretrained(tmp_path / "tokenizer")
    for number, extra in enumerate(([], ["--tokenizer", tmp_path / "tokenizer"])):
        rows, summary = made(
            "swe_gym", tmp_path / "t.parquet", tmp_path / f"{number}.parquet", "--max-tokens", 600, *extra
        )
        stages = {stage["name"]: stage for stage in summary["stages"]}
        assert stages["answers"]["dropped"] == {"the prompt has more than 600 tokens": 1}
        assert sum(map(len, rows.values())) == 11


def test_verl_reads_text_and_pictures_together(tmp_path, verl_tokenizer):
    out = {}
    for name in ("swe_smith", "scienceqa"):
        folder = EXAMPLES[name].write_files(tmp_path / name, "")
        out[name] = tmp_path / f"{name}.parquet"
        extra = ["--agent-loop", "single_turn_agent"] if name == "swe_smith" else []
        made(name, folder, out[name], "--validation", "0.25", *extra)
    files = {"train": list(out.values()), "val": [validation_file(file) for file in out.values()]}
    config = compose_job(
        *(f"data.{part}_files=[{','.join(map(str, paths))}]" for part, paths in files.items()),
        "data.train_batch_size=6", "data.max_prompt_length=1024", "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.model.path=not-needed-here", "contextrl.objective=none",
    )  # fmt: skip
    processor = make_processor(verl_tokenizer)
    job = verl_loaders(config, processor.tokenizer, processor)
    assert (len(job.train_dataset), len(job.val_dataset)) == (18, 6)
    seen = Counter()
    for batch in job.train_dataloader:
        for source, messages, info, agent in zip(
            batch["data_source"], batch["raw_prompt"], batch["extra_info"], batch["agent_name"], strict=True
        ):
            kind = source.rpartition("/")[2]
            seen[kind] += 1
            assert agent == "single_turn_agent"
            assert len(images_of(messages)) == (kind == "scienceqa")
            if kind == "scienceqa":
                assert color_of(images_of(messages)[0]) == (number_of({"extra_info": info}), 0, 7)
                assert info["num_options"] == 3
            else:
                assert json.loads(info["instance"])["FAIL_TO_PASS"] == ["tests/t.py::f"]
    assert seen == {"swe_smith": 9, "scienceqa": 9}


def test_what_the_user_can_mend(tmp_path, monkeypatch):
    folder = EXAMPLES["chartqa"].write_files(tmp_path / "charts", "")
    saved = tmp_path / "saved"
    EXAMPLES["chartqa"].tables().save_to_disk(saved)
    out = tmp_path / "rows.parquet"
    (tmp_path / "empty").mkdir()
    for arguments, words in [
        (["nothing", "--out", out], "no public set that is known here. Fix: one of geometry3k,"),
        (["chartqa", "--out", tmp_path / "rows.csv"], "ends in .parquet"),
        (
            ["chartqa", "--out", out, "--path", tmp_path / "none"],
            "hf download HuggingFaceM4/ChartQA --repo-type dataset",
        ),
        (["chartqa", "--out", out, "--path", tmp_path / "empty"], "holds no table of the split 'train'. Fix:"),
        (["chartqa", "--out", out, "--path", folder, "--split", "dev"], "it has ['test', 'train', 'val']"),
        (["chartqa", "--out", out, "--path", saved, "--split", "dev"], "it has ['test', 'train', 'val'], see --split"),
        (["geometry3k", "--out", out, "--path", folder], "has no column 'answer', which geometry3k needs; it has"),
        (["geo170k", "--out", out, "--path", tmp_path / "none"], '--include "geo170k(qa)/*"'),
        (["virl39k", "--out", out], "row by row. Fix: run `hf download TIGER-Lab/ViRL39K"),
        (["chartqa", "--out", out, "--path", folder, "--validation", "1"], "validation is 1.0. Fix: "),
        (["chartqa", "--out", out, "--path", folder, "--agent-loop", "x"], "swe_smith, swe_gym, swe_bench"),
        (["chartqa", "--out", out, "--path", folder, "--set", "source.max_pixels=9"], "no row for train; examples: "),
    ]:
        result = run(*arguments, "--workers", "1")
        assert result.exit_code == 1, arguments
        assert words in " ".join(result.output.split()), result.output
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    result = run("chartqa", "--out", out)
    assert result.exit_code == 1
    assert "hf:HuggingFaceM4/ChartQA: cannot be loaded" in result.output
    assert "where there is a network, run `hf download HuggingFaceM4/ChartQA" in result.output
    assert not out.exists()
