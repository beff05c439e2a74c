"""Rows with pictures: right answers, pictures in one split only, and verl's own data set reads them."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_factory import image_pair
from job_factory import compose_job, verl_loaders
from PIL import Image
from typer.testing import CliRunner

from contextrl_verl.cli import app
from contextrl_verl.demo.tiny_vision import make_processor
from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.files import write_pairs
from contextrl_verl.pairs.prompting import images_of
from data_prep.images.sources.base import SourceOptions
from data_prep.tasks.build import TaskSettings, vqa_rows
from data_prep.tasks.rows import COLUMNS, validation_file
from reward_fns.dispatch import compute_score


def make(out, seed=1, limit=300, **settings):
    source = SourceOptions(split="test", limit=limit, seed=seed)
    settings = TaskSettings(source=source, seed=seed, **{"per_picture": 2, "validation": 0.3} | settings)
    return vqa_rows("easy_vqa", out, settings, workers=1, progress=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("vqa") / "rows.parquet"
    summary = make(out)
    rows = {"train": pq.read_table(out).to_pylist(), "validation": pq.read_table(validation_file(out)).to_pylist()}
    return rows, summary, out


def test_answers_and_pictures_are_those_of_the_package(made):
    from easy_vqa import get_test_image_paths, get_test_questions

    questions, answers, images = get_test_questions()
    pixels = {image: pixels_of(Path(path).read_bytes()) for image, path in get_test_image_paths().items()}
    truth = {(pixels[image], q): answer for q, answer, image in zip(questions, answers, images, strict=True)}
    for row in made[0]["train"][:60] + made[0]["validation"][:60]:
        (image,) = row["images"]
        assert row["reward_model"]["ground_truth"] == truth[pixels_of(image["bytes"]), row["extra_info"]["question"]]
        (message,) = row["prompt"]
        assert message["content"].count("<image>") == 1
        assert row["extra_info"]["question"] in message["content"]


def test_no_picture_is_in_both_files(made):
    rows, *_ = made
    pictures = {split: {row["images"][0]["bytes"] for row in table} for split, table in rows.items()}
    assert min(map(len, pictures.values())) > 20
    assert not pictures["train"] & pictures["validation"]
    for split, table in rows.items():
        assert {row["extra_info"]["split"] for row in table} == {split}
        assert [row["extra_info"]["index"] for row in table] == list(range(len(table)))
        assert max(Counter(row["extra_info"]["picture"] for row in table).values()) == 2
        assert len({row["extra_info"]["picture"] for row in table}) == len(pictures[split])


def test_counts_add_up(made):
    rows, summary, out = made
    assert json.loads(out.with_suffix(".summary.json").read_text()) == summary
    assert summary["splits"] == {split: len(table) for split, table in rows.items()}
    stages = {stage["name"]: stage for stage in summary["stages"]}
    before = None
    for stage in summary["stages"]:
        assert stage["in"] == stage["out"] + sum(stage["dropped"].values())
        assert before in (None, stage["in"])
        before = stage["out"]
    assert summary["rows"] == before
    assert stages["read"]["out"] == 300
    names = ["rows.parquet", "rows.summary.json", "rows.validation.parquet"]
    assert sorted(path.name for path in out.parent.iterdir()) == names


def test_own_answers_score_one_and_others_zero(made):
    table = made[0]["train"]
    truths = sorted({row["reward_model"]["ground_truth"] for row in table})
    for row in table:
        truth = row["reward_model"]["ground_truth"]
        for answer in truths:
            result = compute_score(row["data_source"], f"so\n<answer>{answer}</answer>", truth, row["extra_info"])
            assert (result["score"], result["reward_fn"]) == (float(answer == truth), "contextrl/vqa*")


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(made, tmp_path):
    _, _, out = made
    files = []
    for name, seed in (("a", 1), ("b", 2)):
        again = tmp_path / name / "rows.parquet"
        make(again, seed)
        files.append([again.read_bytes(), validation_file(again).read_bytes()])
    assert files[0] == [out.read_bytes(), validation_file(out).read_bytes()]
    assert files[0] != files[1]


def test_verl_reads_them_with_pairs_and_with_rows_of_text(made, tmp_path, verl_tokenizer):
    rows, _, out = made
    text = {
        "data_source": "contextrl/exact_match/trace_qa",
        "prompt": [{"role": "user", "content": "what?"}],
        "ability": "long_context",
        "reward_model": {"style": "rule", "ground_truth": "x"},
        "extra_info": {"index": 0, "run_id": "r", "kind": "k", "split": "train", "question": "what?"},
    }
    pq.write_table(pa.Table.from_pylist([text] * 6, pa.schema(COLUMNS)), tmp_path / "text.parquet")
    train = shutil.copy(out, tmp_path / "train.parquet")
    pairs = [image_pair(number, [[(56, 56)], [(84, 56)]]) for number in range(4)]
    write_pairs(pairs, tmp_path / "pairs.parquet")
    config = compose_job(
        f"data.train_files=[{train},{tmp_path}/text.parquet]", f"data.val_files=[{validation_file(out)}]",
        "data.train_batch_size=6", "data.max_prompt_length=1024", "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.model.path=not-needed-here", "contextrl.pairs.per_batch=2",
        f"contextrl.pairs.train_files=[{tmp_path}/pairs.parquet]",
    )  # fmt: skip
    processor = make_processor(verl_tokenizer)
    job = verl_loaders(config, processor.tokenizer, processor)
    assert len(job.train_dataset.dataframe) == len(rows["train"]) + 6
    assert len(job.val_dataset) == len(rows["validation"])
    truth = defaultdict(set)
    for row in rows["train"]:
        truth[row["extra_info"]["question"]].add((row["images"][0]["bytes"], row["reward_model"]["ground_truth"]))
    shown = {key: {(pixels_of(data), answer) for data, answer in both} for key, both in truth.items()}
    kinds = Counter()
    for batch in job.train_dataloader:
        for source, messages, info, reward in zip(
            batch["data_source"], batch["raw_prompt"], batch["extra_info"], batch["reward_model"], strict=True
        ):
            kinds[source] += 1
            pictures = images_of(messages)
            if source == "contextrl/vqa/shapes":
                (picture,) = pictures
                found = np.asarray(picture.convert("RGB")).tobytes(), reward["ground_truth"]
                assert found in shown[info["question"]]
            else:
                assert len(pictures) == (2 if source == "contextrl/selection" else 0)
    assert set(kinds) == {"contextrl/vqa/shapes", "contextrl/selection", "contextrl/exact_match/trace_qa"}


def pixels_of(data: bytes) -> bytes:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).tobytes()


def test_answers_that_cannot_be_compared_are_counted(tmp_path):
    rng = np.random.default_rng(1)
    rows = []
    for number, answer in enumerate(["yes", "...", "a b c d e f g", "two words"] * 5):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "question": "q", "answer": answer})
    table = tmp_path / "t.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = CliRunner().invoke(
        app, ["tasks", "vqa", "--source", str(table), "--out", str(tmp_path / "o" / "rows.parquet"),
              "--validation", "0.4", "--set", "max_words=3", "--domain", "noise", "--set", "tolerance=0.05",
              "--workers", "1"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    stages = json.loads((tmp_path / "o" / "rows.summary.json").read_text())["stages"]
    (dropped,) = (stage["dropped"] for stage in stages if stage["name"] == "answers")
    reason = "the answer has no letter or digit that a comparison would see"
    assert dropped == {"the answer has more than 3 words": 5, reason: 5}
    table = pq.read_table(tmp_path / "o" / "rows.parquet").to_pylist()
    assert {row["data_source"] for row in table} == {"contextrl/vqa/noise"}
    assert {row["extra_info"]["tolerance"] for row in table} == {0.05}
    assert sorted(path.name for path in (tmp_path / "o").iterdir())[0] == "rows.parquet"


def test_what_the_user_can_mend(tmp_path):
    out = tmp_path / "rows.parquet"
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"image": "none.png", "question": "q", "answer": "a"}\n')
    runner = CliRunner()
    for arguments, words in [
        (["--source", "easy_vqa", "--out", str(tmp_path / "rows.csv")], "ends in .parquet"),
        (["--source", "easy_vqa", "--out", str(out), "--validation", "1"], "validation is 1.0. Fix: "),
        (["--source", "easy_vqa", "--out", str(out), "--set", "max_word=3"], "there is no such setting. Fix: "),
        (["--source", "easy_vqa", "--out", str(out), "--column", "x"], "'source.columns.x' names no value"),
        (["--source", "nothing", "--out", str(out)], "no known source"),
        (["--source", str(bad), "--out", str(out)], "no row for train; read: no such file (1). Fix:"),
    ]:
        result = runner.invoke(app, ["tasks", "vqa", *arguments, "--workers", "1"])
        assert result.exit_code == 1
        assert words in " ".join(result.output.split()), result.output
    assert not out.exists()
    with pytest.raises(ConfigError, match=r"no row for validation.*raise --validation"):
        make(out, limit=20, validation=1e-9)
    assert not out.exists()
    validation_file(out).write_text("of another run")
    with pytest.raises(ConfigError, match="from another run"):
        make(out, validation=0)
