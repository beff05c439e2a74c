import os
import random
import re
from pathlib import Path

import pytest

pytest.importorskip("unidiff")

from data_prep.trajectories.mini_swe_agent import AgentRun, Message, read_runs
from data_prep.trajectories.simple_pairs import (
    PATCH_MASK,
    cut,
    elision,
    is_test_file,
    shorten,
    simple_pairs,
)

MARK = re.compile(r"\[\.\.\. ([\d,]+) characters left out \.\.\.\]")


def patch_of(file, added, new_file=False):
    old = "/dev/null" if new_file else f"a/{file}"
    body = f"@@ -0,0 +1,1 @@\n+{added}\n" if new_file else f"@@ -1,2 +1,3 @@\n first\n+{added}\n last\n"
    return f"diff --git a/{file} b/{file}\n--- {old}\n+++ b/{file}\n{body}"


def run_of(number, file="lib/core.py", patch=None, chatter=200):
    added = f"    value_{number} = compute({number})"
    content = [
        ("system", "the system prompt"),
        ("user", f"<pr_description>\nTitle of issue {number}\n</pr_description>"),
        ("assistant", f"THOUGHT: look at {file}, run {number}"),
        ("user", "x" * chatter),
        ("assistant", f"Title of issue {number} needs an edit of {file}: {added.strip()} and done"),
        ("assistant", "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"),
        ("user", patch_of(file, added)),
    ]
    return AgentRun(
        instance_id=f"own__repo-{number}",
        repository="own/repo",
        issue=f"Title of issue {number}\nmore",
        messages=tuple(Message(role=role, content=text) for role, text in content),
        patch=patch_of(file, added) if patch is None else patch,
        resolved=True,
    )


def text_of(context):
    return "\n".join(message["content"] for message in context["messages"])


def check_counts(counts, pairs):
    dropped_runs = sum(count for name, count in counts.items() if name.startswith("run dropped: "))
    dropped = sum(count for name, count in counts.items() if name.startswith("couple dropped: "))
    assert counts["runs"] == counts["runs: usable"] + dropped_runs
    assert counts["couples"] == counts["couples: kept"] + dropped
    assert len(pairs) == 2 * counts["couples: kept"]


def check_pairs(pairs, runs, room):
    by_name = {run.instance_id: run for run in runs}
    assert len({pair["pair_id"] for pair in pairs}) == len(pairs)
    for one, other in zip(pairs[::2], pairs[1::2], strict=True):
        assert one["supporting"] == other["confounders"][0]
        assert other["supporting"] == one["confounders"][0]
        assert one["query"] == other["query"]
        assert one["answer"] != other["answer"]
    for pair in pairs:
        names = pair["provenance"]["supporting_run"], pair["provenance"]["confounding_run"]
        added = [
            line[1:].strip()
            for name in names
            for line in by_name[name].patch.splitlines()
            if line.startswith("+") and not line.startswith("+++ ")
        ]
        for context in (pair["supporting"], *pair["confounders"]):
            assert context["kind"] == "messages"
            assert 0 < sum(len(message["content"]) for message in context["messages"]) <= room
            text = text_of(context)
            assert not [line for line in added if len(line) >= 8 and line in text]
            assert "COMPLETE_TASK_AND_SUBMIT" not in text
            assert "<pr_description>" not in text


def test_two_runs_on_one_file_give_both_directions():
    runs = [run_of(1), run_of(2)]
    pairs, counts = simple_pairs(runs, 2000)
    assert counts == {"runs": 2, "runs: usable": 2, "couples": 1, "couples: kept": 1}
    check_pairs(pairs, runs, 2000)
    assert {pair["answer"] for pair in pairs} == {run.patch for run in runs}
    for pair in pairs:
        number = pair["provenance"]["supporting_run"][-1]
        assert f"compute({number})" in pair["answer"]
        assert f"run {number}" in text_of(pair["supporting"])
        assert PATCH_MASK in text_of(pair["supporting"])
        assert "Title of issue" not in text_of(pair["supporting"]) + pair["query"]


def test_every_drop_is_counted_by_its_reason():
    runs = [
        run_of(1),
        run_of(1, patch=patch_of("lib/core.py", "another try")),
        run_of(2, patch=""),
        run_of(3, patch="--- a/f\n+++ b/f\n@@ -1,9 +1,9 @@\n one line only\n"),
        run_of(4, patch=patch_of("tests/test_core.py", "assert True")),
        run_of(5, patch=patch_of("lib/new.py", "brand new", new_file=True)),
        run_of(6, file="lib/alone.py"),
        run_of(7).model_copy(update={"messages": run_of(7).messages[:2]}),
    ]
    pairs, counts = simple_pairs(runs, 500)
    assert pairs == []
    assert counts == {
        "runs": 8,
        "runs: usable": 3,
        "run dropped: no patch": 1,
        "run dropped: patch cannot be parsed": 1,
        "run dropped: no existing file edited besides tests": 2,
        "run dropped: no turn between the issue and the submission": 1,
        "couples": 1,
        "couple dropped: same issue": 1,
    }
    check_counts(counts, pairs)


def test_no_run_is_in_more_couples_than_allowed():
    runs = [run_of(number) for number in range(1, 9)]
    pairs, counts = simple_pairs(runs, 400, max_couples_per_run=2)
    check_counts(counts, pairs)
    assert counts["couple dropped: a run is in enough couples"] > 0
    for run in runs:
        assert sum(pair["provenance"]["supporting_run"] == run.instance_id for pair in pairs) <= 2


def test_the_result_depends_on_the_seed_and_not_on_the_order_of_the_runs():
    runs = [run_of(number) for number in range(1, 9)]
    shuffled = runs[:]
    random.Random(1).shuffle(shuffled)
    assert simple_pairs(runs, 400, 5) == simple_pairs(shuffled, 400, 5)
    assert simple_pairs(runs, 400, 5)[0] != simple_pairs(runs, 400, 6)[0]


def test_a_file_never_named_is_no_context():
    silent = run_of(2).model_copy(update={"messages": (*run_of(2).messages[:2], Message(role="user", content="hm"))})
    pairs, counts = simple_pairs([run_of(1), silent], 400)
    assert pairs == []
    assert counts["couple dropped: a run never names the file outside what is hidden"] == 1


@pytest.mark.parametrize("room", [100, 101, 500, 1199])
def test_cut_says_how_much_it_left_out(room):
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 1200)))
    short = cut(text, room)
    (mark,) = MARK.finditer(short)
    shown = len(short) - len(mark.group()) - 2
    assert len(short) <= room
    assert int(mark.group(1).replace(",", "")) == 1200 - shown
    assert text.startswith(short[: mark.start() - 1])
    assert text.endswith(short[mark.end() + 1 :])
    assert cut(text, 1200) == text


@pytest.mark.parametrize("room", [300, 600, 2000])
def test_shortened_run_accounts_for_every_character(room):
    rng = random.Random(room)
    turns = [
        Message(
            role=rng.choice(["user", "assistant"]), content=rng.choice(["f.py ", "other "]) + "y" * rng.randrange(900)
        )
        for _ in range(40)
    ]
    shown = "\n".join(message["content"] for message in shorten(turns, "f.py", room))
    left_out = sum(int(count.replace(",", "")) for count in MARK.findall(shown))
    kept = len(re.sub(r"\n?" + MARK.pattern + r"\n?", "", shown).replace("\n", ""))
    assert left_out + kept == sum(len(turn.content) for turn in turns)
    assert elision(12345) == "[... 12,345 characters left out ...]"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("tests/a/models.py", True),
        ("pkg/tests/b.py", True),
        ("pkg/test_b.py", True),
        ("conftest.py", True),
        ("django/test/client.py", False),
        ("django/db/latest.py", False),
    ],
)
def test_is_test_file(path, expected):
    assert is_test_file(path) is expected


def test_a_room_too_small_says_what_to_use():
    with pytest.raises(ValueError, match="use at least 300"):
        simple_pairs([], 100)


@pytest.fixture(scope="module")
def real_runs():
    repository = Path(__file__).resolve().parents[2]
    default = repository.parent / "shared" / "data" / "swebench_trajectories_dev.jsonl.xz"
    path = Path(os.environ.get("CONTEXTRL_TRAJECTORIES", default))
    if not path.exists():
        pytest.skip("The real agent runs are not here; set CONTEXTRL_TRAJECTORIES to a mini-swe-agent JSONL file.")
    return list(read_runs(path))


@pytest.mark.parametrize("room", [600, 6000])
def test_real_runs(real_runs, room):
    pairs, counts = simple_pairs(real_runs, room, 0)
    check_counts(counts, pairs)
    check_pairs(pairs, real_runs, room)
    assert len(pairs) >= 60
    assert simple_pairs(real_runs[::-1], room, 0) == (pairs, counts)
