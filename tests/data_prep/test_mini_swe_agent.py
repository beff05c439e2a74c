import gzip
import json
import lzma

import pytest

from data_prep.trajectories.mini_swe_agent import TrajectoryError, read_runs


def record(**changes):
    base = {
        "instance_id": "django__django-10097",
        "trajectory_format": "mini-swe-agent-1",
        "resolved": True,
        "info": {"exit_status": "Submitted", "submission": "diff --git a/x b/x\n"},
        "messages": [
            {"role": "system", "content": "be good"},
            {
                "role": "user",
                "content": "<pr_description>\nConsider the following PR description:\nA title\nA text</pr_description>",
            },
            {"role": "assistant", "content": "THOUGHT: hm"},
        ],
    }
    return base | changes


@pytest.mark.parametrize(("name", "opener"), [("a.jsonl", open), ("a.jsonl.gz", gzip.open), ("a.jsonl.xz", lzma.open)])
def test_reads_plain_and_compressed_files(tmp_path, name, opener):
    path = tmp_path / name
    with opener(path, "wt", encoding="utf-8") as file:
        file.write(json.dumps(record()) + "\n\n" + json.dumps(record(instance_id="a__b-c-2", resolved=None)) + "\n")
    first, second = read_runs(path)
    assert (first.repository, first.issue, first.resolved) == ("django/django", "A title\nA text", True)
    assert first.patch == "diff --git a/x b/x\n"
    assert [message.role for message in first.messages] == ["system", "user", "assistant"]
    assert (second.repository, second.resolved) == ("a/b-c", None)


def test_a_run_without_a_submission_or_an_issue_is_still_a_run(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record(info={"exit_status": "LimitsExceeded"}, messages=[])))
    (run,) = read_runs(path)
    assert (run.patch, run.issue) == ("", "")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON .* write one object a line"),
        ("[1]", "trajectory_format is None; convert the run"),
        (json.dumps(record(trajectory_format="mini-swe-agent-2")), "'mini-swe-agent-2'; convert the run"),
        (json.dumps(record(messages=[{"role": "user"}])), r"field messages\.0\.content: .* correct the field"),
        (json.dumps(record(instance_id="django")), "write it as owner__repository-number"),
    ],
)
def test_a_bad_line_names_file_line_and_fix(tmp_path, line, says):
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(record()) + "\n" + line + "\n")
    runs = read_runs(path)
    next(runs)
    with pytest.raises(TrajectoryError, match=f"runs.jsonl, line 2: .*{says}"):
        next(runs)


@pytest.mark.parametrize(("suffix", "compress"), [(".xz", lzma.compress), (".gz", gzip.compress)])
def test_a_damaged_file_is_an_error_and_not_an_early_end(tmp_path, suffix, compress):
    path = tmp_path / f"runs.jsonl{suffix}"
    path.write_bytes(compress(json.dumps(record()).encode())[:-12])
    with pytest.raises(TrajectoryError, match="the copy is damaged"):
        list(read_runs(path))
