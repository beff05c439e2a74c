"""The contextrl command, run in this process."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from pair_factory import text_pair
from typer.testing import CliRunner

from contextrl_verl.cli import app
from contextrl_verl.pairs.files import write_pairs

COMMANDS = [[], ["demo"], ["doctor"], ["pairs"], ["pairs", "validate"]]


def call(*arguments: str):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_answers(command):
    result = call(*command, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["bogus"], "bogus"),
        (["pairs", "bogus"], "bogus"),
        (["pairs", "validate"], "files"),
        (["demo", "--steps", "1"], "--steps"),
        (["demo", "--seed", "x"], "--seed"),
    ],
)
def test_wrong_usage_is_an_error_that_names_it(command, named):
    result = call(*command)
    assert result.exit_code == 2
    assert named in result.output
    assert "Traceback" not in result.output


def test_help_imports_nothing_heavy():
    code = (
        "import sys, contextrl_verl.cli as cli\n"
        "try: cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pyarrow', 'pandas', 'verl', 'ray'}\n"
        "print('LOADED', *(heavy & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert "Usage" in printed
    assert printed.splitlines()[-1].strip() == "LOADED"


def test_validate_counts_what_is_there(tmp_path):
    write_pairs([text_pair(n, confounders=1 + n % 2) for n in range(5)], tmp_path / "a.parquet")
    write_pairs([text_pair(n) for n in range(3)], tmp_path / "b.jsonl")
    result = call("pairs", "validate", str(tmp_path / "a.parquet"), str(tmp_path / "b.jsonl"))
    assert result.exit_code == 0
    lines = [re.sub(" +", " ", line).strip() for line in result.stdout.splitlines()]
    assert lines == [
        f"{tmp_path / 'a.parquet'}: 5 valid pairs",
        "3 train, test, text, 2 contexts",
        "2 train, test, text, 3 contexts",
        f"{tmp_path / 'b.jsonl'}: 3 valid pairs",
        "3 train, test, text, 2 contexts",
    ]


def test_validate_stops_at_the_first_bad_row(tmp_path):
    write_pairs([text_pair(n) for n in range(3)], tmp_path / "p.jsonl")
    lines = (tmp_path / "p.jsonl").read_text().splitlines()
    lines[1] = lines[1].replace('"split":"train"', '"split":"test"')
    (tmp_path / "p.jsonl").write_text("\n".join(lines) + "\n")
    result = call("pairs", "validate", str(tmp_path / "p.jsonl"))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert re.search(r"p\.jsonl: row 1: field 'split' has value 'test': .* Fix: .*\.\n$", result.stderr)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("name", "told"), [("none.parquet", "no such file"), ("notes.txt", ".parquet or .jsonl")])
def test_validate_of_what_is_no_pair_file(tmp_path, name, told):
    (tmp_path / "notes.txt").write_text("notes")
    result = call("pairs", "validate", str(tmp_path / name))
    assert result.exit_code == 1
    assert told in result.stderr
    assert "Traceback" not in result.output


def test_demo_names_a_missing_trajectory_file_before_it_trains(tmp_path):
    result = call("demo", "--out", str(tmp_path / "out"), "--trajectories", str(tmp_path / "none.jsonl"))
    assert result.exit_code == 1
    assert "contextrl demo: --trajectories names" in result.stderr
    assert str(tmp_path / "none.jsonl") in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_the_installed_script_is_this_app(tmp_path):
    script = f"{sys.prefix}/bin/contextrl"
    result = subprocess.run([script, "pairs", "validate", str(tmp_path / "x.parquet")], capture_output=True, text=True)
    assert result.returncode == 1
    assert "no such file" in result.stderr
