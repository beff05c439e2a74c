"""The difficulty filter against a real server, and against a tiny model in vLLM."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter

import pytest
from chat_server import KEY, completion, failure
from judged_pairs import couples
from PIL import Image
from typer.testing import CliRunner

from contextrl_verl.cli import app
from contextrl_verl.pairs import Context, ContrastivePair, ImageRef
from contextrl_verl.pairs.files import PairFile, write_pairs
from contextrl_verl.pairs.prompting import PromptConfig
from data_prep.probe.questions import Questions
from data_prep.verify.write import UNJUDGED


@pytest.fixture
def run(server, tmp_path):
    write_pairs(couples(4), tmp_path / "pairs.parquet")

    def call(*arguments):
        command = ["difficulty", str(tmp_path / "pairs.parquet"), "--out", str(tmp_path / "kept.parquet")]
        for item in ("m", f"base_url={server.url}", "key_variable=CONTEXTRL_TEST_KEY", f"cache={tmp_path / 'cache'}"):
            command += ["--solver", item]
        return CliRunner().invoke(app, [*command, "--solver", "tries=2", *arguments])

    return call


def right_label(body) -> tuple[str, str]:
    """(pair, label of the supporting context), read from the question alone: its answer's words name the side."""
    text = str(body["messages"])
    number, side = re.search(r"distinctive line (\d) (\d)", text).groups()
    first = re.search(r"===== Context A =====.{0,40}?look at part (\d)\.(\d)", text, re.S)
    return f"c{number}-{side}", "A" if first.group(2) == side else "B"


class Model:
    """Solves pair ``p`` as often as ``skill[p]`` says; each label equally often."""

    def __init__(self, skill):
        self.skill, self.asked = skill, Counter()

    def __call__(self, number, body):
        from aiohttp import web

        pair, right = right_label(body)
        self.asked[pair] += 1
        good = self.asked[pair] <= self.skill.get(pair, 0)
        label = right if good else {"A": "B", "B": "A"}[right]
        return web.json_response(completion(f"<think>perhaps {right}</think>\nThe answer is {label}."))


def kept(tmp_path):
    return {pair.pair_id: pair for pair in PairFile(tmp_path / "kept.parquet")}


def test_pairs_between_the_bounds_stay_couple_by_couple(run, server, tmp_path):
    skill = {"c0-0": 2, "c0-1": 5, "c1-0": 8, "c1-1": 3, "c2-0": 1, "c2-1": 0, "c3-0": 3, "c3-1": 4}
    server.reply = Model(skill)
    done = run("--report", str(tmp_path / "report"))
    assert done.exit_code == 0, done.output
    found = kept(tmp_path)
    assert set(found) == {"c0-0", "c0-1", "c3-0", "c3-1"}
    assert {key: pair.provenance["difficulty"]["solved"] for key, pair in found.items()} == {
        key: skill[key] for key in found
    }
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["stages"][0]["dropped"] == {
        "another direction is dropped": 1,
        "too easy: solved more than 5 of 8": 1,
        "too hard: solved fewer than 2 of 8": 2,
    }
    assert summary["solved"] == {str(n): Counter(skill.values())[n] for n in range(9)}
    assert summary["accuracy"] == pytest.approx(sum(skill.values()) / 64, abs=1e-4)
    assert KEY not in done.output + (tmp_path / "report" / "index.html").read_text()
    for body in server.requests:
        fields = {**body, **body.get("extra_body", {})}
        assert fields["temperature"] == 1
        assert "response_format" not in fields
    # Eight draws of each pair, four with the supporting context first.
    shown = Counter(right_label(body) for body in server.requests)
    assert set(shown.values()) == {4}
    assert len(shown) == 16

    asked = len(server.requests)
    assert run().exit_code == 0
    assert len(server.requests) == asked


def test_replies_that_name_nothing_are_counted_and_not_solved(run, server, tmp_path):
    from aiohttp import web

    server.reply = lambda number, body: web.json_response(completion("either could be right"))
    done = run("--keep", "0", "5", "--report", str(tmp_path / "report"))
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert (summary["unparsed"], summary["accuracy"]) == (64, 0)
    assert "name no option" in (tmp_path / "report" / "index.html").read_text()


def test_an_endpoint_that_fails_leaves_no_file_and_a_rerun_asks_the_rest(run, server, tmp_path):
    model = Model({f"c{n}-{s}": 3 for n in range(4) for s in (0, 1)})
    server.reply = lambda number, body: model(number, body) if number < 20 else failure(500)
    done = run("--solver", "concurrency=1")
    assert done.exit_code == 1
    assert "does not answer" in done.output
    assert not (tmp_path / "kept.parquet").exists()
    server.reply = model
    asked = len(server.requests)
    assert run("--keep", "0", "8").exit_code == 0
    assert len(server.requests) - asked == 64 - 20


def test_a_cap_stops_and_the_rest_can_be_left_out(run, server, tmp_path):
    server.reply = Model({f"c{n}-{s}": 3 for n in range(4) for s in (0, 1)})
    body = completion("A", tokens=(1_000_000, 0))
    prices = [part for item in ("price_in=1", "price_out=0", "max_cost=20") for part in ("--solver", item)]
    from aiohttp import web

    server.reply = lambda number, _: web.json_response(body)
    done = run(*prices, "--keep", "0", "8", "--solver", "concurrency=1")
    assert done.exit_code == UNJUDGED
    assert "could not be tried" in done.output
    assert not (tmp_path / "kept.parquet").exists()
    again = run(*prices, "--keep", "0", "8", "--solver", "concurrency=1", "--allow-untried")
    assert again.exit_code == 0, again.output
    assert 0 < len(kept(tmp_path)) < 8


def test_a_dry_run_and_mistakes(run, server, tmp_path):
    done = run("--dry-run")
    assert "64 calls to make" in done.output
    assert not server.requests
    assert "--keep is 5 2 of 8 tries" in run("--keep", "5", "2").output
    assert "--tries is 7, and pair 'c0-0' has 2 contexts" in run("--tries", "7", "--keep", "0", "7").output
    neither = CliRunner().invoke(app, ["difficulty", str(tmp_path / "pairs.parquet"), "--dry-run"])
    assert "Give either --solver or --local" in neither.output


def test_images_travel_as_shown():
    def png(colour):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
        return Context(kind="images", images=[ImageRef(bytes=buffer.getvalue())])

    pair = ContrastivePair(
        pair_id="p", domain="image", query="colour?", answer="red", supporting=png("red"), confounders=[png("blue")]
    )
    shown = list(Questions(PromptConfig()).of(pair, 0))
    assert {question.right for question in shown} == {0, 1}
    for question in shown:
        urls = [part["image_url"]["url"] for part in question.sent()[0]["content"] if part["type"] == "image_url"]
        images = [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]
        assert [image.getpixel((0, 0)) == (255, 0, 0) for image in images].index(True) == question.right


# tests/probe/test_probe_vllm.py asks the same model.
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_model_in_vllm_is_tried_and_its_replies_are_kept(tmp_path):
    from contextrl_verl.demo.tiny_model import make_model, make_tokenizer

    make_model(tmp_path / "model", make_tokenizer())
    write_pairs(couples(2, words=3), tmp_path / "pairs.parquet")
    command = ["difficulty", str(tmp_path / "pairs.parquet"), "--out", str(tmp_path / "kept.parquet")]
    command += ["--local", str(tmp_path / "model"), "--cache", str(tmp_path / "cache"), "--template", "short"]
    command += ["--keep", "0", "8", "--report", str(tmp_path / "report")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert (summary["solver"]["backend"], summary["solver"]["known_before"]) == ("vllm", 0)
    assert summary["replies"] == 32
    first = (tmp_path / "kept.parquet").read_bytes()
    assert CliRunner().invoke(app, command).exit_code == 0
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["solver"]["known_before"] == 8
    assert (tmp_path / "kept.parquet").read_bytes() == first
