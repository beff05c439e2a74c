"""contextrl doctor: all well on a good environment and job; one finding with its fix on a bad one."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from tiny_job import as_overrides, write_job
from typer.testing import CliRunner

from contextrl_verl.cli import app

PREFILL = "contextrl.prompt.prefill"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return write_job(tmp_path_factory.mktemp("job"))


def doctor(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor", "--no-ray", *arguments], env={"COLUMNS": "400"})
    return result.exit_code, result.stdout


def findings(printed: str, mark: str) -> set[str]:
    return set(re.findall(rf"^{mark}  ([^:]+):", printed, re.MULTILINE))


GREEN = {"verl", "transformers", "vllm", "torchvision", "entry point verl.plugins", "registration here"}


def test_this_environment_is_all_well():
    code, printed = doctor()
    assert code == 0, printed
    assert findings(printed, "ok") >= GREEN | {"config composition", "job"}
    assert {"sandbox bubblewrap", "sandbox apptainer", "sandbox docker"} <= findings(printed, "ok")
    assert not findings(printed, "no")
    assert "give the job's overrides" in printed
    assert printed.splitlines()[-1] == "all well"


def test_a_good_job_shows_its_option_tokens_and_its_batches(keys):
    code, printed = doctor(*as_overrides(keys))
    assert code == 0, printed
    assert re.search(r"ok  option tokens: A -> \d+, B -> \d+", printed)
    assert "contextrl: 3 batches of 6 ordinary rows and 4 pairs" in printed
    assert findings(printed, "ok") >= {"option tokens", "data"}


@pytest.mark.parametrize(
    ("changed", "told", "fix"),
    [
        ({"contextrl.pairs.train_files": "[/no/p.parquet]"}, "/no/p.parquet", "correct the path"),
        ({"contextrl.prompt.labels": "[A,zebra]"}, "label 'zebra' is", "contextrl.prompt.labels=[A, B]"),
        ({"contextrl.pairs.per_batch": "10"}, "contextrl.pairs.per_batch is 10", "make it larger"),
        ({"actor_rollout_ref.model.path": "/no/model"}, "'/no/model'", "correct the path"),
        ({"contextrl.objective": "magic"}, "'magic'", "correct the value of contextrl.objective"),
        ({"contextrl.los.coef": "1"}, "contextrl.los", "mend what the message names"),
    ],
    ids=lambda part: "",
)
def test_a_bad_job_is_one_thing_to_mend(keys, changed, told, fix):
    code, printed = doctor(*as_overrides({**keys, **changed}))
    assert code == 1
    assert len(findings(printed, "no")) == 1
    told_at = next(line for line in printed.splitlines() if line.startswith("no  "))
    assert told in printed[printed.index(told_at) :]
    fixes = [line for line in printed.splitlines() if line.startswith("    fix: ")]
    assert len(fixes) == 1
    assert fix in fixes[0]
    assert printed.splitlines()[-1] == "1 thing(s) to mend"
    assert "Traceback" not in printed


def test_five_wrong_overrides_are_five_findings_and_verls_own_check_runs(keys):
    wrong = {
        "data.shuffle": "true",
        "contextrl.pairs.val_files": "[/no/held_out.parquet]",
        "actor_rollout_ref.model.external_lib": "null",
        "reward.reward_manager.name": "batch",
        "trainer.resume_mode": "resume_path",
        "trainer.resume_from_path": "/no/global_step_3",
        # verl's
        "actor_rollout_ref.actor.ppo_micro_batch_size": "2",
    }
    code, printed = doctor(*as_overrides({**keys, **wrong}))
    assert code == 1
    assert findings(printed, "no") == {*(f"job {number}" for number in range(1, 6)), "verl's own check"}
    assert printed.splitlines()[-1] == "6 thing(s) to mend"
    for key in ("data.shuffle", "val_files", "external_lib", "reward_manager.name", "resume_from_path"):
        assert key in printed
    assert "ppo_micro_batch_size" in printed


def test_the_command_itself_with_ray():
    ended = subprocess.run(
        [sys.executable, "-m", "contextrl_verl.cli", "doctor"], capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "ok  registration in a Ray worker: engine ContextRLEngine" in " ".join(ended.stdout.split("\n"))
    assert ended.stdout.rstrip().endswith("all well")
