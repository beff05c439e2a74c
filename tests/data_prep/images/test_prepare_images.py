"""From questions about pictures to pairs: right labels, both directions, splits, resuming, faults."""

from __future__ import annotations

import io
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from chat_server import KEY, verdict
from measure_shape import right_answer, shapes_in
from PIL import Image
from typer.testing import CliRunner

from contextrl_verl.cli import app
from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.files import PairFile
from data_prep.audit.run import audit
from data_prep.common.pipeline import PipelineError
from data_prep.images.edit.run import EditSettings
from data_prep.images.prepare import ImageSettings, prepare_images
from data_prep.images.retrieve import RetrieveSettings
from data_prep.images.sources.base import SourceOptions

SMALL = ImageSettings(source=SourceOptions(limit=1500), retrieve=RetrieveSettings(low=0.7), edit=EditSettings(edits=60))
OPTIONS = ["--questions", "1500", "--set", "retrieve.low=0.7", "--set", "edit.edits=60", "--workers", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    summary = prepare_images(
        "easy_vqa", folder / "p.parquet", SMALL, report=folder / "report", workers=1, progress=False
    )
    return folder, summary


def picture(context):
    (image,) = context.images
    return Image.open(io.BytesIO(image.bytes))


def same(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()


def test_every_label_is_right_by_a_second_measurement(made):
    folder, summary = made
    counts = Counter()
    for pair in PairFile(folder / "p.parquet"):
        counts[pair.provenance["method"]] += 1
        right = right_answer(pair.query, shapes_in(picture(pair.supporting)))
        wrong = right_answer(pair.query, shapes_in(picture(pair.confounders[0])))
        assert same(right, pair.answer), pair.pair_id
        assert not same(wrong, pair.answer), pair.pair_id
    assert counts == summary["methods"]
    assert min(counts["retrieve"], counts["edit"]) >= 60, counts


def test_retrieved_answers_are_the_source_s_own(made):
    import easy_vqa

    folder, _ = made
    questions, answers, images = easy_vqa.get_train_questions()
    known = {(question, image): answer for question, answer, image in zip(questions, answers, images, strict=True)}
    looked = 0
    for pair in PairFile(folder / "p.parquet"):
        if pair.provenance["method"] == "retrieve":
            side = pair.provenance["supporting"]
            row = int(side["item"].rsplit(":", 1)[1]) if side["item"].rsplit(":", 1)[1].isdigit() else side["row"]
            assert (questions[row], answers[row]) == (pair.query, pair.answer)
            assert known[pair.query, images[row]] == pair.answer
            looked += 1
    assert looked >= 60


def test_both_directions_one_split_a_picture_and_nothing_in_the_files(made):
    folder, _ = made
    couples, splits = {}, {}
    for pair in PairFile(folder / "p.parquet"):
        couples.setdefault(pair.provenance["couple"], []).append(pair)
        for name in pair.provenance["images"]:
            assert splits.setdefault(name, pair.split) == pair.split
        for context in pair.contexts:
            image = picture(context)
            assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})
    for pairs in couples.values():
        one, other = pairs
        assert one.supporting == other.confounders[0]
        assert other.supporting == one.confounders[0]
        assert one.answer != other.answer
    edited = Counter(
        pair.provenance["supporting"]["edited"]
        for pairs in couples.values()
        for pair in pairs
        if pair.provenance["method"] == "edit"
    )
    assert edited[True] == edited[False] > 0
    assert set(splits.values()) == {"train", "validation", "probe"}


def test_no_shortcut_is_found(made):
    folder, _ = made
    result = audit(PairFile(folder / "p.parquet"), seed=1)
    rows = {row.group: row for row in result.rows if row.sees != "evidence" and row.n}
    assert {"forensics", "edited", "edited x answer", "answer alone", "images x answer"} <= set(rows)
    for row in rows.values():
        assert row.low <= 0.5 <= row.high, row


def test_counts_add_up_and_the_page_shows_pictures(made):
    folder, summary = made
    for stage in summary["stages"]:
        assert stage["in"] == stage["out"] + sum(stage["dropped"].values()), stage
    stages = {stage["name"]: stage for stage in summary["stages"]}
    assert summary["questions_read"] == stages["read"]["in"] == 38575
    assert stages["read"]["out"] == 1500
    assert stages["rules"]["out"] == summary["pairs"] == len(PairFile(folder / "p.parquet"))
    written = json.loads((folder / "report" / "summary.json").read_text())
    assert {"questions_read", "stages", "pairs", "methods", "seconds", "contextrl_verl_version"} <= set(written)
    page = (folder / "report" / "index.html").read_text()
    assert page.count("where they differ") >= 10
    assert "different answers: same answer" in page
    assert not list(folder.glob(".p.parquet*"))


# tests/data_prep/test_pipeline.py runs parts on Ray, and kills them.
@pytest.mark.slow
def test_killed_and_resumed_the_result_is_the_same_to_the_byte(made, tmp_path):
    folder, _ = made
    out = tmp_path / "p.parquet"
    command = [sys.executable, "-m", "contextrl_verl.cli", "pairs", "images", "--source", "easy_vqa", "--out", str(out)]
    command += OPTIONS
    rng = random.Random(2)
    for _ in range(4):
        job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(2 + 6 * rng.random())
        job.send_signal(signal.SIGKILL)
        job.wait()
        assert not out.exists() or out.read_bytes() == (folder / "p.parquet").read_bytes()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert out.read_bytes() == (folder / "p.parquet").read_bytes()


def test_killed_while_the_work_folder_was_deleted_it_starts_anew(made, tmp_path, monkeypatch):
    folder, _ = made
    out = tmp_path / "p.parquet"
    whole = shutil.rmtree

    def killed(path, **_):
        for part in Path(path).glob("**/part-*.parquet"):
            part.unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare_images("easy_vqa", out, SMALL, workers=1, progress=False)
    monkeypatch.setattr(shutil, "rmtree", whole)
    prepare_images("easy_vqa", out, SMALL, workers=1, progress=False)
    assert out.read_bytes() == (folder / "p.parquet").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


# tests/data_prep/test_pipeline.py runs parts on Ray, and kills them.
@pytest.mark.slow
def test_ray_gives_the_same_bytes(made, tmp_path):
    ray = pytest.importorskip("ray")
    folder, _ = made
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        prepare_images("easy_vqa", tmp_path / "ray.parquet", SMALL, engine="ray", progress=False)
    finally:
        ray.shutdown()
    assert (tmp_path / "ray.parquet").read_bytes() == (folder / "p.parquet").read_bytes()


def test_a_judge_sees_the_pictures_and_decides(server, tmp_path):
    shown = []

    def reply(number, body):
        content = body["messages"][1]["content"]
        shown.append(sum(part["type"] == "image_url" for part in content))
        return verdict("INVALID" if number == 0 else "VALID", "the first one")

    server.reply = reply
    roles = [
        "m",
        f"base_url={server.url}",
        "key_variable=CONTEXTRL_TEST_KEY",
        f"cache={tmp_path / 'c'}",
        "concurrency=1",
    ]
    command = ["pairs", "images", "--source", "easy_vqa", "--method", "edit", "--out", str(tmp_path / "p.parquet")]
    command += ["--questions", "300", "--set", "edit.edits=10", "--workers", "1"]
    done = CliRunner().invoke(app, [*command, *(part for role in roles for part in ("--judge", role))])
    assert done.exit_code == 0, done.output
    assert set(shown) == {2}
    assert len(PairFile(tmp_path / "p.parquet")) == len(shown) - 2
    assert KEY not in done.output


def test_nothing_left_and_mistakes_are_one_paragraph_and_no_file(tmp_path):
    out = tmp_path / "p.parquet"
    with pytest.raises(PipelineError, match=r"no pair is left .*Fix:"):
        prepare_images("easy_vqa", out, replace(SMALL, methods=("retrieve",), retrieve=RetrieveSettings(low=0.9999)),
                       workers=1, progress=False)  # fmt: skip
    with pytest.raises(ConfigError, match="is no known source or path"):
        prepare_images("nowhere", out, SMALL)
    for arguments, said in [
        (["--method", "paint"], "methods.0 is 'paint'. Fix: input should be 'retrieve' or 'edit'."),
        (["--out", "p.csv"], "--out is p.csv"),
        (["--set", "splits=train=2"], "--splits is 'train=2'. Fix:"),
        (["--editor", "photoshop"], "editor 'photoshop' is none"),
        (["--set", "retrieve.low=0.9", "--set", "retrieve.high=0.5"], "band of cosines is 0.9 to 0.5. Fix:"),
        (["--set", "retrieve.engine=numpy"], "retrieve.engine is 'numpy'. Fix:"),
        (["--set", "source.splitt=test"], "'source.splitt', and there is no such setting. Fix: source.max_bytes, "),
        (["--set", "embedder=magic"], "The embedder is 'magic'. Fix:"),
    ]:
        command = ["pairs", "images", "--source", "easy_vqa", "--out", str(out), "--questions", "60", "--workers", "1"]
        done = CliRunner().invoke(app, [*command, *arguments])
        assert done.exit_code == 1, (arguments, done.output)
        assert said in " ".join(done.output.split()), (arguments, done.output)
        assert "Traceback" not in done.output
    assert not out.exists()


def test_a_dry_run_counts_and_writes_nothing(tmp_path):
    command = ["pairs", "images", "--source", "easy_vqa", "--out", str(tmp_path / "p.parquet"), *OPTIONS, "--dry-run"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "60 questions to edit for" in done.output
    assert not (tmp_path / "p.parquet").exists()
