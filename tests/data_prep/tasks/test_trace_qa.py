"""Questions over runs: right answers, by code that shares nothing with the ones that made them."""

import json
import lzma
import os
import random
import re
from collections import Counter
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from contextrl_verl.cli import app
from contextrl_verl.errors import ConfigError
from data_prep.tasks.questions import KINDS, Question
from data_prep.tasks.rows import token_counter
from data_prep.tasks.trace_qa import TraceSettings, split_of, trace_rows
from data_prep.tasks.transcript import Step, elided, steps_of
from data_prep.trajectories.run import AgentRun, Message
from reward_fns.dispatch import compute_score

REAL = "swebench_trajectories_dev.jsonl.xz"
RUNS = 100


@pytest.fixture(scope="session")
def real(repository, tmp_path_factory) -> Path:
    """The first real runs, as JSON lines."""
    named = os.environ.get("CONTEXTRL_TRAJECTORIES")
    path = Path(named) if named else repository.parent / "shared" / "data" / REAL
    if not path.is_file():
        pytest.skip(f"{path} is not there; name the file of runs in CONTEXTRL_TRAJECTORIES")
    runs = tmp_path_factory.mktemp("runs") / "runs.jsonl"
    with lzma.open(path, "rt", encoding="utf-8") as file:
        runs.write_text("".join(islice(file, RUNS)), encoding="utf-8")
    return runs


def first(real, count, path):
    """A file of the first of them."""
    path.write_text("".join(real.read_text(encoding="utf-8").splitlines(True)[:count]), encoding="utf-8")
    return path


def step(number, command, code=0, output="", cut=False):
    return Step(number, "", command, code, output, cut)


def numbered(*items):
    return [step(number, *item) for number, item in enumerate(items, 1)]


def asked(kind, steps, seed=1):
    made = list(KINDS[kind](steps, random.Random(seed)))
    questions = [item for item in made if isinstance(item, Question)]
    return questions, [item for item in made if isinstance(item, str)]


def answers(kind, steps):
    return [question.answer for question in asked(kind, steps)[0]]


FAILING = numbered(
    ("ls",), ("grep -n 'x' a.py", 1), ("python check.py", 0), ("python check.py", 2), ("cat setup.cfg", 1)
)  # fmt: skip


def test_failures():
    assert answers("first_failure", FAILING) == ["2"]
    assert answers("failures", FAILING) == ["3"]
    assert answers("before_failure", FAILING[1:]) == []
    assert answers("before_failure", [step(1, "git status"), *FAILING[1:]]) == ["git status"]
    quiet = numbered(("ls",), ("ls",))
    for kind in ("first_failure", "failures", "before_failure"):
        assert asked(kind, quiet)[0] == []
        assert asked(kind, quiet)[1]


def test_runs_of_a_script():
    (question,), _ = asked("nth_exit_code", FAILING)
    place = int(re.search(r"run number (\d+) of the script check.py", question.text)[1])
    assert question.answer == ["0", "2"][place - 1]
    assert answers("script_runs", FAILING) == ["2"]
    both = [*FAILING, step(6, "cd sub && python check.py", 1)]
    assert asked("script_runs", both) == ([], ["it is not clear which steps run the script"])
    assert asked("nth_exit_code", both) == ([], ["it is not clear which steps run the script"])


def test_what_a_script_printed():
    steps = numbered(("python show.py", 0, "total: 12\nitem: a\nitem: b\nflag = True"))
    seen = {(q.text.split("'")[1], q.answer) for seed in range(30) for q in asked("printed", steps, seed)[0]}
    assert seen == {("total", "12"), ("flag", "True")}


def test_where_something_is_defined():
    output = "src/a.py:3:class Thing:\nsrc/b.py:9:    def other(self):\nsrc/c.py:1:def other():\nsrc/d.py:7:x = Thing()"
    questions, reasons = asked("definition_file", numbered(('grep -rn "Thing" src', 0, output)))
    assert [q.answer for q in questions] == ["src/a.py"]
    assert reasons == ["the name is defined in several files"]
    plain = numbered(('grep -r "class Thing" .', 0, "./src/a.py:class Thing:"))
    assert answers("definition_file", plain) == ["src/a.py"]
    assert asked("definition_file", numbered(("ls", 0, output)))[0] == []


def test_line_numbers_of_a_search():
    steps = numbered(("grep -n total a.py", 0, "12:    total = compute(1)\n90:    total = 0"))
    seen = {(re.search("`(.*)`", q.text)[1], q.answer) for s in range(20) for q in asked("grep_line", steps, s)[0]}
    assert seen == {("total = compute(1)", "12"), ("total = 0", "90")}
    again = [*steps, step(2, "grep -n total a.py", 0, "14:    total = compute(1)\n92:    total = 0")]
    assert asked("grep_line", again)[0] == []


def test_edits_and_created_files():
    steps = numbered(
        ("cat <<'EOF' > new.py\nx = 1\nEOF",),
        ("sed -i 's/a/b/' src/one.py",),
        ("cat > other.py <<'EOF'\nx\nEOF",),
        ("sed -i 's/a/b/' src/two.py",),
        ("cat <<'EOF' > new.py\nx = 2\nEOF",),
    )
    assert answers("first_sed", steps) == ["src/one.py"]
    assert answers("created", steps) == ["2"]
    assert asked("created", [*steps, step(6, "cat <<'EOF' | python")])[1] == ["some here-document goes elsewhere"]
    hidden = [step(1, "cd src && sed -i 's/x/y/' zero.py"), *steps[1:]]
    assert asked("first_sed", hidden) == ([], ["it is not clear which file came first"])
    assert answers(
        "first_mention", [step(1, "ls"), step(2, "ls"), step(3, "cat src/one.py"), step(4, "cat src/one.py")]
    ) == ["3"]


texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",), exclude_characters="\0"), max_size=60)
command_texts = st.one_of(
    texts,
    st.sampled_from(["sed -i 's/a/b/' x.py", "grep -rn def .", "cat <<'EOF' > a.py\nx\nEOF", "python a.py", "cat >"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(command_texts, st.integers(-2, 300), texts, st.booleans()), max_size=8), st.integers(0, 9))
def test_any_steps_can_be_asked_about(items, seed):
    steps = [Step(n, "", command, code, output, cut) for n, (command, code, output, cut) in enumerate(items, 1)]
    for kind in KINDS.values():
        for item in kind(steps, random.Random(seed)):
            assert isinstance(item, Question | str)
            if isinstance(item, Question):
                assert set(item.evidence) <= {s.number for s in steps}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(command_texts, st.integers(0, 255), texts), min_size=1, max_size=6))
def test_steps_are_what_was_written(items):
    """The parser gives back the commands, codes and outputs that a transcript was written from."""
    items = [(c, n, o) for c, n, o in items if "```" not in c and "</output>" not in o and c.strip()]
    messages = [Message(role="user", content="issue")]
    for command, code, output in items:
        messages.append(Message(role="assistant", content=f"THOUGHT: hm\n\n```bash\n{command}\n```"))
        content = f"<returncode>{code}</returncode>\n<output>\n{output}\n</output>"
        messages.append(Message(role="user", content=content))
    run = AgentRun(instance_id="a__b-1", repository="a/b", issue="", messages=tuple(messages), source="test")
    found = steps_of(run)
    assert [(s.command, s.code, s.output) for s in found] == [(c, n, o.strip("\n")) for c, n, o in items]
    assert [s.number for s in found] == list(range(1, len(items) + 1))


@settings(max_examples=200, deadline=None)
@given(st.lists(texts, max_size=30), st.integers(0, 200), st.data())
def test_eliding_keeps_what_must_stay(lines, limit, data):
    text = "\n".join(lines)
    keep = data.draw(st.lists(st.sampled_from(text.split("\n")), max_size=3))
    shown = elided(text, limit, keep)
    assert set(keep) <= set(shown.split("\n"))
    if len(text) <= limit:
        assert shown == text


# The real runs


@pytest.fixture(scope="session")
def rows(real, tmp_path_factory):
    out = tmp_path_factory.mktemp("rows") / "rows.parquet"
    summary = trace_rows(real, out, TraceSettings(), progress=False)
    return pq.read_table(out).to_pylist(), summary, out


def test_many_rows_of_every_kind(rows):
    table, summary, out = rows
    kinds = Counter(row["extra_info"]["kind"] for row in table)
    assert len(table) >= 3 * RUNS
    assert set(kinds) == set(KINDS)
    assert max(kinds.values()) <= 2.5 * min(kinds.values())
    assert max(Counter(row["extra_info"]["run_id"] for row in table).values()) <= 4
    assert [row["extra_info"]["index"] for row in table] == list(range(len(table)))
    assert json.loads(out.with_suffix(".summary.json").read_text()) == summary
    assert summary["rows"] == len(table)
    assert summary["kinds"] == dict(sorted(kinds.items()))
    for stage in summary["stages"]:
        assert stage["in"] == stage["out"] + sum(stage["dropped"].values())
    assert sorted(path.name for path in out.parent.iterdir()) == ["rows.parquet", "rows.summary.json"]


def test_own_answers_score_one_and_others_zero(rows):
    table, *_ = rows
    every = [row["reward_model"]["ground_truth"] for row in table]
    for number, row in enumerate(table):
        truth = row["reward_model"]["ground_truth"]
        other = next(a for a in every[number:] + every if a.lower().strip("./") != truth.lower().strip("./"))
        for text, score in (
            (f"so\n<answer>{truth}</answer>", 1.0),
            (f"<answer>{other} or not</answer>", 0.0),
            ("", 0.0),
        ):
            result = compute_score(row["data_source"], text, truth, row["extra_info"])
            assert (result["score"], result["reward_fn"]) == (score, "contextrl/exact_match*")


def test_prompts_fit_and_hold_what_the_answer_is_read_from(rows):
    table, *_ = rows
    tokens = token_counter()
    for row in table:
        (message,) = row["prompt"]
        assert message["role"] == "user"
        assert tokens(message["content"]) <= 8000
        assert row["extra_info"]["question"] in message["content"]
        transcript = message["content"].rpartition("\n\nQuestion:")[0]
        if row["extra_info"]["kind"] in ("printed", "definition_file", "grep_line", "before_failure", "first_sed"):
            assert row["reward_model"]["ground_truth"] in transcript


def test_splits_share_no_instance(rows):
    table, *_ = rows
    of = {"train": set(), "validation": set()}
    for row in table:
        of[row["extra_info"]["split"]].add(row["extra_info"]["run_id"].rpartition("@")[0])
    assert of["train"]
    assert of["validation"]
    assert not of["train"] & of["validation"]


def test_answers_again_from_the_raw_records(real, rows):
    """Exit codes and searches, read with nothing but json and two patterns."""
    codes, hits = {}, {}
    with real.open(encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            name = record["instance_id"]
            replies = [m["content"] for m in record["messages"] if m["role"] == "user"]
            codes[name] = [int(found[1]) for r in replies if (found := re.match(r"<returncode>(-?\d+)<", r))]
            hits[name] = "\n".join(replies)
    checked = Counter()
    for row in rows[0]:
        kind, truth = row["extra_info"]["kind"], row["reward_model"]["ground_truth"]
        name = row["extra_info"]["run_id"].rpartition("@")[0]
        checked[kind] += 1
        if kind == "failures":
            assert truth == str(sum(code != 0 for code in codes[name]))
        elif kind == "first_failure":
            assert truth == str(1 + next(i for i, code in enumerate(codes[name]) if code))
        elif kind == "grep_line":
            text = re.search(r"found the line `(.*)`\. What", row["extra_info"]["question"])[1]
            assert re.search(rf"(?m)^(?:[^\n:]*[:-])?{truth}[:-]\s*{re.escape(text)}\s*$", hits[name])
        elif kind == "definition_file":
            what = re.search(r"where the (class|function)[^.]* (\w+) is defined", row["extra_info"]["question"])
            word = "class" if what[1] == "class" else "def"
            found = re.findall(rf"(?m)^([\w./-]+\.\w+):(?:\d+:)?\s*(?:async )?{word} {what[2]}\b", hits[name])
            assert {path.removeprefix("./") for path in found} == {truth}
    assert min(checked[kind] for kind in ("failures", "first_failure", "grep_line", "definition_file")) >= 20


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(real, tmp_path):
    few = first(real, 12, tmp_path / "few.jsonl")
    twice = tmp_path / "twice.jsonl"
    twice.write_text(few.read_text() * 2)
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        trace_rows(few, tmp_path / f"{name}.parquet", TraceSettings(seed=seed), progress=False)
        made.append((tmp_path / f"{name}.parquet").read_bytes())
    assert made[0] == made[1] != made[2]
    summary = trace_rows(twice, tmp_path / "d.parquet", TraceSettings(), progress=False)
    assert (tmp_path / "d.parquet").read_bytes() == made[0]
    assert summary["stages"][0]["dropped"] == {"the same run again": 12}


# Bad input


def test_what_cannot_be_asked_about_is_counted_and_leaves_no_file(tmp_path):
    runs = tmp_path / "runs.jsonl"
    short = {
        "instance_id": "a__b-1", "trajectory_format": "mini-swe-agent-1", "info": {"submission": ""},
        "messages": [{"role": "user", "content": "hm"}],
    }  # fmt: skip
    runs.write_text(json.dumps(short) + "\n" + "not json\n")
    with pytest.raises(ConfigError, match="no question could be asked; runs: "):
        trace_rows(runs, tmp_path / "rows.parquet", TraceSettings(), progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["runs.jsonl"]
    runner = CliRunner()
    for source, out, more, words in [
        (runs, "rows.csv", [], "ends in .parquet"),
        (tmp_path / "none.jsonl", "rows.parquet", [], "none.jsonl"),
        (runs, "rows.parquet", ["--validation", "2"], "validation is 2.0. Fix: "),
    ]:
        arguments = ["--input", str(source), "--out", str(tmp_path / out), *more]
        result = runner.invoke(app, ["tasks", "trace-qa", *arguments])
        assert result.exit_code == 1
        assert words in result.output.replace("\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["runs.jsonl"]


def test_a_budget_that_is_too_small_is_counted(real, tmp_path):
    few = first(real, 4, tmp_path / "few.jsonl")
    with pytest.raises(ConfigError, match="the transcript does not fit the budget"):
        trace_rows(few, tmp_path / "rows.parquet", TraceSettings(max_tokens=300), progress=False)


def test_repository_splits_keep_repositories_together():
    options = TraceSettings(split_by="repository", validation=0.5)
    runs = [
        AgentRun(instance_id=f"o__r{n % 20}-{n}", repository=f"o/r{n % 20}", issue="", messages=(), source="t")
        for n in range(200)
    ]
    splits = {(run.repository, split_of(run, options)) for run in runs}
    assert len(splits) == 20
    assert {split for _, split in splits} == {"train", "validation"}
