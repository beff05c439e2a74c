"""verl's trainer on a coding agent's episodes beside pairs: real sandboxes, a real server, a model of nonsense."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import small_job
from job_factory import agent_row

from contextrl_verl.agents.task import SweTask
from contextrl_verl.launch import run_trainer
from data_prep.trajectories.readers import open_source
from data_prep.trajectories.run import AgentRun

# Each takes minutes; loop, buffer and workers are tested by themselves in tests/agents.
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1500)]

STEPS, TURNS, TURN_TOKENS, VAL = 2, 5, 16, 2
EPISODES = small_job.ROWS * small_job.ROLLOUTS


def write_tasks(folder: Path) -> None:
    """A library with a bug, tasks on it, and wording that a short context holds."""
    repository = folder / "repository"
    repository.mkdir()
    (repository / "calc.py").write_text("def add(a, b):\n    return a - b\n")
    question = {
        "call": {"imports": ["import calc"], "text": "calc.add(1, 2)"},
        "expected": {"kind": "value", "text": "3"},
    }
    wording = folder / "templates"
    wording.mkdir()
    for name, text in {
        "system": "",
        "issue": "{{ issue }}",
        "format_error": "one command",
        "observation": "ok",
    }.items():
        (wording / f"{name}.jinja").write_text(text)
    for name, first, count in (("swe", 0, STEPS * small_job.ROWS), ("swe_val", 100, VAL)):
        rows = []
        for number in range(first, first + count):
            task = SweTask.model_validate(
                {
                    "instance_id": f"owner__name-{number}",
                    "repository": "owner/name",
                    "base": {"folder": "repository"},
                    "issue": f"say {number}",
                    "checks": {"kind": "forge", "module": "calc", "questions": [question]},
                    "reference": "",
                }
            )
            rows.append(agent_row(task, number))
        pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    small_job.write_data(folder)
    write_tasks(folder)
    return folder


def job_keys(data: Path, out: Path, **agent: Any) -> dict[str, Any]:
    block = {
        "turns": 9,
        "turn_tokens": TURN_TOKENS,
        "format_errors": TURNS,
        "records": str(out / "records"),
        "concurrent": 4,
    }
    block |= {"templates": str(data / "templates"), **agent}
    return small_job.job_keys(data, out) | {
        "data.train_files": [str(data / "swe.parquet")],
        "data.val_files": [str(data / "swe_val.parquet")],
        "data.max_response_length": 300,
        "actor_rollout_ref.rollout.max_model_len": 448,
        "actor_rollout_ref.rollout.val_kwargs.n": 1,
        "trainer.total_training_steps": STEPS,
        "trainer.test_freq": STEPS,
        "trainer.save_freq": -1,
        **{f"contextrl.agent.{key}": value for key, value in block.items()},
    }


def test_two_steps_of_episodes_beside_pairs_and_the_episodes_are_read_back(data, tmp_path):
    history = run_trainer(job_keys(data, tmp_path), tmp_path, timeout=900)
    steps = [metrics for _, metrics in history if "actor/contextrl/loss" in metrics]
    assert len(steps) == STEPS
    for metrics in steps:
        own = {name.removeprefix("contextrl/agent/"): value for name, value in metrics.items()}
        assert (own["episodes"], own["infrastructure"]) == (EPISODES, 0)
        assert (own["endings/format"], own["resolved"], own["turns"]) == (1, 0, TURNS)
        assert 0 < own["model_tokens"] <= TURNS * TURN_TOKENS
        assert own["seconds_sandbox"] > 0
        assert metrics["num_turns/mean"] > 2
        # What the server saw is what is trained: else the trainer would find other probabilities.
        assert metrics["training/rollout_probs_diff_max"] < 1e-3
        assert metrics["actor/contextrl/pairs"] == small_job.PAIRS / 2
    assert history[-1][1]["val-core/contextrl/swe/acc/mean@1"] == 0
    found = [located.run for located in open_source(tmp_path / "records")]
    assert len(found) == STEPS * EPISODES + VAL
    assert all(isinstance(run, AgentRun) and run.outcome != "resolved" for run in found)
    assert {sum(message.role == "assistant" for message in run.messages) for run in found} == {TURNS}
    assert sorted({run.instance_id for run in found}) == sorted(
        f"owner__name-{number}" for number in (*range(STEPS * small_job.ROWS), *range(100, 100 + VAL))
    )


def loop_workers(folder: Path) -> list[psutil.Process]:
    """Agent loop workers of the job in ``folder``, and of no other job on this machine."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            if (process.info["cmdline"] or [""])[0].startswith("ray::AgentLoopWorkerTQ"):
                logged = process.environ().get("VERL_FILE_LOGGER_PATH", "")
                found += [process] if logged.startswith(str(folder)) else []
        except psutil.Error:
            continue
    return found


def in_sandboxes(worker: psutil.Process) -> bool:
    found = worker.children(recursive=True)
    return any("keeper.box" in part for process in found for part in process.cmdline())


def test_a_worker_killed_in_mid_episode_is_counted_and_leaves_nothing_behind(data, tmp_path):
    inside: list[psutil.Process] = []
    survivors: list[psutil.Process] = []
    over = threading.Event()

    def kill() -> None:
        """Once one of the two workers has sandboxes open, and again a while later: pairs are done by then."""
        while not over.wait(0.1):
            for worker in loop_workers(tmp_path):
                with suppress(psutil.Error):
                    if in_sandboxes(worker) and not over.wait(6) and in_sandboxes(worker):
                        inside.extend(worker.children(recursive=True))
                        worker.kill()
                        time.sleep(5)
                        survivors.extend(process for process in inside if process.is_running())
                        return

    keys = job_keys(data, tmp_path, turns=60, format_errors=60, turn_tokens=8, max_infrastructure_share=1.0)
    keys |= {"actor_rollout_ref.rollout.agent.num_workers": 2, "data.max_response_length": 2000}
    keys |= {"actor_rollout_ref.rollout.max_model_len": 2200, "trainer.test_freq": -1}
    micro = "micro_batch_size_per_gpu"
    keys |= {f"actor_rollout_ref.{key}_{micro}": 2 for key in ("actor.ppo", "rollout.log_prob")}
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        history = run_trainer(keys, tmp_path, timeout=900)
    finally:
        over.set()
        killer.join()
    assert inside
    assert not survivors
    steps = [metrics for _, metrics in history if "actor/contextrl/loss" in metrics]
    assert len(steps) == STEPS
    assert sum(metrics["contextrl/agent/infrastructure/worker"] for metrics in steps) > 0
    assert "another one takes its place" in (tmp_path / "trainer.log").read_text()
    assert steps[-1]["contextrl/agent/episodes"] == EPISODES
