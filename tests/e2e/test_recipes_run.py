"""SMOKE=1: two real steps of a recipe's yaml on a CPU, for every arm of a text recipe, two of an image recipe, agents.

For ``make test-all``: each starts Ray and vLLM for some minutes. ``make test`` composes and checks every recipe and arm
up to that point (tests/recipes), and runs both trainers on jobs of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from contextrl_verl.arms import ARMS, StepSize, arm_keys

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1500)]
RECIPES = Path(__file__).parents[2] / "recipes"
TEXT, IMAGES = RECIPES / "text" / "run_qwen2_5_1_5b_fsdp.sh", RECIPES / "multimodal" / "run_qwen3_vl_8b_fsdp.sh"
# What common.sh takes for a rehearsal.
ITEMS, PAIRS, ROLLOUTS = 8, 2, 2
HELD_OUT = "val-core/contextrl/selection/acc/mean@1"


@pytest.mark.parametrize(
    ("script", "arm"),
    [*((TEXT, arm) for arm in ARMS), (IMAGES, "contextrl"), (IMAGES, "grpo")],
    ids=lambda value: getattr(getattr(value, "parent", None), "name", value),
)
def test_two_steps_of_an_arm(script, arm, tmp_path):
    steps, trained = _rehearse(script, tmp_path, ARM=arm)
    # The same questions in every arm: two held-out pairs in both orders.
    assert steps[-1][HELD_OUT] * 4 == pytest.approx(round(steps[-1][HELD_OUT] * 4))
    pairs = arm_keys(arm, StepSize(ITEMS, PAIRS, ROLLOUTS))["contextrl.pairs.per_batch"]
    for step, metrics in enumerate(trained, start=1):
        assert ("actor/contextrl/loss" in metrics) == (arm == "contextrl")
        # Nearly no update lies between policy and reference, and both compute in the same precision.
        assert 0 <= metrics["actor/kl_loss"] < 1e-6
        rows = [json.loads(line) for line in (tmp_path / "rollouts" / f"{step}.jsonl").read_text().splitlines()]
        asked = [row for row in rows if "supports" in row["input"] or "from the context" in row["input"]]
        each = 1 if arm == "contextrl" else ROLLOUTS
        assert len(asked) == pairs * each
        assert len(rows) == (ITEMS - pairs) * ROLLOUTS + pairs * each
        if arm == "da_rl":
            # A random model hardly ever names an option; where it does, the reward is the strict parser's.
            assert {row["score"] for row in asked} <= {0.0, 1.0}
            assert all(row["gts"] in row["output"] for row in asked if row["score"])
    if arm == "da_sft":
        record = json.loads((tmp_path / "smoke" / "sft" / "selection_sft.json").read_text())
        assert record["steps"] == 2
        assert (tmp_path / "smoke" / "sft" / record["model"] / "config.json").exists()


def test_two_steps_with_adapters(tmp_path):
    _, trained = _rehearse(TEXT, tmp_path, ARM="contextrl", LORA_RANK="8")
    for metrics in trained:
        assert metrics["actor/contextrl/pairs"] == PAIRS
        assert metrics["actor/grad_norm"] > 0
        # The reference is the policy without its adapters, which have hardly moved.
        assert 0 <= metrics["actor/kl_loss"] < 1e-6
    assert "'lora_rank': 8" in (tmp_path / "log").read_text()


def test_two_steps_of_agents_on_tasks_of_the_forge(tmp_path):
    script = RECIPES / "agentic" / "run_qwen3_8b_fsdp.sh"
    _, trained = _rehearse(script, tmp_path, TASK="swe", ARM="contextrl")
    for metrics in trained:
        assert metrics["contextrl/agent/episodes"] == (ITEMS - PAIRS) * ROLLOUTS
        assert (metrics["contextrl/agent/infrastructure"], metrics["contextrl/agent/resolved"]) == (0, 0)
        # A model of random weights writes no command, and is told so until its turns are used up.
        assert (metrics["contextrl/agent/endings/turns"], metrics["contextrl/agent/turns"]) == (1, 3)
        assert metrics["actor/contextrl/pairs"] == PAIRS
    records = [json.loads(path.read_bytes()) for path in (tmp_path / "smoke" / "episodes").rglob("*.traj.json")]
    assert len(records) >= 2 * (ITEMS - PAIRS) * ROLLOUTS
    assert {record["repo"] for record in records} == {"forge/rich"}
    assert all(record["contextrl"]["metrics"]["format_errors"] == 3 for record in records)


def _rehearse(script: Path, folder: Path, **variables: str) -> tuple[list[dict], list[dict]]:
    """Run a recipe with SMOKE=1: what verl logged, and the two training steps of it."""
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": str(folder), "SMOKE": "1", **variables}
    environment["VERL_FILE_LOGGER_PATH"] = str(folder / "metrics.jsonl")
    log = folder / "log"
    with log.open("w") as stream:
        command = ["bash", str(script), f"trainer.rollout_data_dir={folder / 'rollouts'}"]
        done = subprocess.run(command, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    assert done.returncode == 0, log.read_text()[-4000:]
    steps = [json.loads(line)["data"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    trained = [metrics for metrics in steps if "actor/pg_loss" in metrics]
    assert len(trained) == 2
    return steps, trained
