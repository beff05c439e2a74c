"""A judge inside ``contextrl pairs trajectories``: verdicts, review, interruption, cost; against a real server."""

from __future__ import annotations

import json
import re

import pytest
from chat_server import KEY, failure, verdict
from made_runs import made_run, write_runs
from typer.testing import CliRunner

from contextrl_verl.cli import app
from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.files import PairFile
from data_prep.models.spec import read_spec
from data_prep.verify.write import UNJUDGED


@pytest.fixture
def run(server, tmp_path):
    source = write_runs(tmp_path / "runs.jsonl", [made_run(number) for number in range(16)])

    def call(*arguments, judge=True):
        command = ["pairs", "trajectories", "--input", str(source), "--out", str(tmp_path / "p.parquet")]
        command += ["--issue", "related", "--overlap-cap", "1", "--workers", "1"]
        command += ["--set", "cascade.commit=any", "--set", "cascade.related=[0, 1]"]
        command += ["--report", str(tmp_path / "report")]
        if judge:
            for item in (f"base_url={server.url}", "key_variable=CONTEXTRL_TEST_KEY", f"cache={tmp_path / 'cache'}"):
                command += ["--judge", item]
            command += ["--judge", "m", "--judge", "tries=1"]
        return CliRunner().invoke(app, [*command, *arguments])

    return call


def ids(path):
    return [pair.pair_id for pair in PairFile(path)]


def test_the_judge_decides_and_the_report_shows_what_it_dropped(run, server, tmp_path):
    assert run(judge=False).exit_code == 0
    before = ids(tmp_path / "p.parquet")
    bad = before[0]

    def reply(number, body):
        marker = "+" + next(
            line[1:] for line in pair_of[bad].answer.splitlines() if line.startswith("+ ") and "repaired" in line
        )
        return verdict("INVALID" if marker in str(body["messages"]) else "VALID", "the evidence <b>is</b> missing")

    pair_of = {pair.pair_id: pair for pair in PairFile(tmp_path / "p.parquet")}
    server.reply = reply
    done = run()
    assert done.exit_code == 0, done.output
    kept = ids(tmp_path / "p.parquet")
    assert bad not in kept
    assert set(kept) < set(before)
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    stage = next(stage for stage in summary["stages"] if stage["name"] == "judge")
    assert stage["in"] == len(before)
    assert stage["out"] == len(kept) == summary["pairs"]
    assert stage["dropped"]["INVALID"] >= 1
    assert sum(stage["dropped"].values()) == len(before) - len(kept)
    assert summary["judge"]["requests"] == len(server.requests) == len(before)
    page = (tmp_path / "report" / "index.html").read_text()
    assert "INVALID" in page
    assert "the evidence &lt;b&gt;is&lt;/b&gt; missing" in page
    assert KEY not in page + json.dumps(summary) + done.output

    # The answers are in the cache: the same again, without a request.
    again = (tmp_path / "p.parquet").read_bytes()
    assert run().exit_code == 0
    assert len(server.requests) == len(before)
    assert (tmp_path / "p.parquet").read_bytes() == again


def test_uncertain_pairs_wait_for_a_person(run, server, tmp_path):
    review = tmp_path / "review.jsonl"
    server.reply = lambda number, body: verdict("UNCERTAIN" if number == 0 else "VALID", "hard to say")
    done = run("--review", str(review))
    assert "1 pairs wait in" in done.output
    first = set(ids(tmp_path / "p.parquet"))
    line = json.loads(review.read_text())
    assert line["pair_id"] not in first
    review.write_text(json.dumps({**line, "decision": "VALID"}) + "\n")
    asked = len(server.requests)
    assert run("--review", str(review)).exit_code == 0
    assert line["pair_id"] in ids(tmp_path / "p.parquet")
    assert len(server.requests) == asked


def test_a_dry_run_asks_nothing_and_a_judge_that_fails_leaves_no_file_and_is_not_paid_twice(run, server, tmp_path):
    done = run("--dry-run", "--judge", "price_in=2", "--judge", "price_out=8")
    assert done.exit_code == 0, done.output
    calls = int(re.search(r"(\d+) calls to make, 0 answers already in the cache", done.output).group(1))
    assert "without retries" in done.output
    assert not server.requests
    assert not (tmp_path / "p.parquet").exists()
    assert not (tmp_path / "report").exists()

    server.reply = lambda number, body: verdict() if number < 5 else failure(500)
    done = run("--judge", "concurrency=1")
    assert done.exit_code in (1, UNJUDGED), done.output
    assert "Fix:" in done.output
    assert not (tmp_path / "p.parquet").exists()
    server.reply = lambda number, body: verdict()
    asked = len(server.requests)
    assert run().exit_code == 0
    assert len(server.requests) - asked == calls - 5 == len(ids(tmp_path / "p.parquet")) - 5


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (["model=m", "prise=3"], "--judge names 'prise', and there is no such setting. Fix: model, base_url, "),
        (["model=m", "tries=0"], "--judge tries is '0'. Fix: input should be greater than or equal to 1."),
        (["m", "model=n"], "--judge gives model twice, 'm' and 'n'. Fix:"),
        (["max_cost=3"], "model is not set. Fix: --judge model=VALUE."),
    ],
)
def test_mistakes_in_a_role(items, said):
    with pytest.raises(ConfigError) as error:
        read_spec("--judge", items)
    assert said in str(error.value)


def test_a_model_is_read_and_one_price_is_not_enough():
    spec = read_spec("--judge", ["m price_in=1.5", "concurrency=3", 'extra={"seed": 1}', "cache=/a folder"])
    assert (spec.model, spec.concurrency, spec.extra, str(spec.cache)) == ("m", 3, {"seed": 1}, "/a folder")
    with pytest.raises(ConfigError, match=r"price_in=1.5, price_out=None.* Fix: give both prices"):
        spec.budget()
    assert read_spec("--judge", []) is None
