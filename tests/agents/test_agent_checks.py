"""What a job with coding agents refuses before Ray starts: one paragraph each, with key, value and fix."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import tiny_job
from episode_factory import make_task
from job_factory import agent_row, compose_job

from contextrl_verl.agents.task import AGENT_NAME
from contextrl_verl.errors import ConfigError
from contextrl_verl.grpo import agent_checks
from contextrl_verl.grpo.preflight import check_job
from contextrl_verl.sandbox import InfrastructureError
from contextrl_verl.settings import parse_settings


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    keys = tiny_job.write_job(folder)
    task = make_task(folder)
    base = task.base.model_copy(update={"folder": "repository"})
    rows = [
        agent_row(task.model_copy(update={"base": base, "instance_id": f"a__b-{number}"}), number)
        for number in range(20)
    ]
    pd.DataFrame(rows).to_parquet(folder / "train.parquet")
    pd.DataFrame(rows[:2]).to_parquet(folder / "val.parquet")
    pd.DataFrame([{**row, "agent_name": None} for row in rows]).to_parquet(folder / "without.parquet")
    moved = [
        {
            **row,
            "extra_info": {
                "index": 0,
                "task": row["extra_info"]["task"].replace('"folder":"repository"', '"folder":"gone"'),
            },
        }
        for row in rows
    ]
    pd.DataFrame(moved).to_parquet(folder / "moved.parquet")
    pd.DataFrame([{**row, "extra_info": {"index": 0, "task": "{}"}} for row in rows]).to_parquet(
        folder / "broken.parquet"
    )
    old = []
    for row in rows:
        said = json.loads(row["extra_info"]["task"])
        said["checks"]["python"] = "3.1"
        old.append({**row, "extra_info": {"index": 0, "task": json.dumps(said)}})
    pd.DataFrame(old).to_parquet(folder / "old.parquet")
    (folder / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fits = {"data.max_prompt_length": "2048", "data.max_response_length": "1000", "contextrl.agent.turn_tokens": "100"}
    return folder, keys | fits


@pytest.fixture(autouse=True)
def sandbox(monkeypatch):
    monkeypatch.setattr(agent_checks, "open_sandbox", lambda rung, limits: None)


def problems(files, **changed: str) -> list[str]:
    folder, keys = files
    keys = keys | {key.replace("__", "."): value.replace("FOLDER", str(folder)) for key, value in changed.items()}
    try:
        check_job(parse_settings(compose_job(*tiny_job.as_overrides(keys)).contextrl))
    except ConfigError as error:
        return error.problems
    return []


def test_a_job_of_tasks_beside_pairs_passes(files):
    assert problems(files) == []


def test_rows_of_json_are_looked_through_too(files):
    assert problems(files, data__train_files="[FOLDER/plain.jsonl]") == []
    told = problems(files, data__train_files="[FOLDER/plain.jsonl]", data__max_prompt_length="64")
    assert any("first messages of 20 of 20 tasks" in problem for problem in told)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"trainer__v1__trainer_mode": "colocate_async"}, "trainer.v1.trainer_mode is 'colocate_async', and coding"),
        (
            {"actor_rollout_ref__rollout__agent__agent_loop_manager_class": "mine.Manager"},
            "agent_loop_manager_class is 'mine.Manager', and then the job waits for ever",
        ),
        (
            {"contextrl__agent__turn_tokens": "600"},
            "contextrl.agent.turn_tokens is 600 .* is 1000: two turns do not fit",
        ),
        ({"actor_rollout_ref__rollout__max_model_len": "3000"}, r"max_model_len is 3000, .* = 3048 tokens"),
        (
            {
                "actor_rollout_ref__actor__use_dynamic_bsz": "true",
                "actor_rollout_ref__actor__ppo_max_token_len_per_gpu": "2900",
            },
            "ppo_max_token_len_per_gpu is 2900, .* up to 3048 tokens",
        ),
        ({"data__max_prompt_length": "64"}, r"the first messages of 20 of 20 tasks are longer, those of a__b-\d+"),
        ({"contextrl__agent__records": "here"}, "contextrl.agent.records is 'here', and workers may start"),
        (
            {"contextrl__agent__records": "/proc/none/here"},
            "contextrl.agent.records is '/proc/none/here', which cannot",
        ),
        ({"contextrl__agent__templates": "/nowhere"}, "contextrl.agent.templates is '/nowhere'"),
        (
            {"data__train_files": "[FOLDER/without.parquet]"},
            "20 rows have the data source contextrl/swe and no agent_name",
        ),
        ({"data__train_files": "[FOLDER/moved.parquet]"}, "the repository of a__b-0 is not at .*gone.* 19 more rows"),
        ({"data__train_files": "[FOLDER/broken.parquet]"}, "is no task of contextrl tasks swe"),
        ({"data__train_files": "[FOLDER/old.parquet]"}, r"a__b-0 holds outcomes of Python 3\.1, and this is"),
    ],
)
def test_what_cannot_be_right_is_told_in_a_paragraph_with_a_fix(files, changed, told):
    import re

    found = [problem for problem in problems(files, **changed) if re.search(told, problem)]
    assert len(found) == 1
    assert "Fix: " in found[0]
    assert "\n" not in found[0]


@pytest.mark.parametrize(
    "error", [ConfigError("no sandbox here. Fix: install bubblewrap."), InfrastructureError("start", "no room")]
)
def test_a_sandbox_that_does_not_work_is_told(files, monkeypatch, error):
    def fails(rung, limits):
        raise error

    monkeypatch.setattr(agent_checks, "open_sandbox", fails)
    (told,) = problems(files)
    assert "sandbox" in told
    assert "Fix: " in told


def test_ordinary_rows_are_not_looked_at(files, tmp_path, monkeypatch):
    folder, _ = files
    monkeypatch.setattr(agent_checks, "open_sandbox", lambda *given: pytest.fail("asked for a sandbox"))
    plain = tiny_job.write_job(tmp_path)
    assert Path(folder).exists()
    assert check_job(parse_settings(compose_job(*tiny_job.as_overrides(plain)).contextrl)) is None


def test_the_default_loop_counts_where_a_row_names_none(files):
    found = problems(
        files,
        data__train_files="[FOLDER/without.parquet]",
        actor_rollout_ref__rollout__agent__default_agent_loop=AGENT_NAME,
    )
    assert found == []
