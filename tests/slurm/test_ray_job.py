"""The generated job script with real Ray: two nodes, a failing recipe, signals, a node that never comes."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from fake_slurm import SUBMIT, FakeSlurm

pytestmark = pytest.mark.timeout(300)

PAYLOAD = """
import json, os, pathlib, resource, sys, time
files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
import ray

ray.init(log_to_driver=False)
group = ray.util.placement_group([{"CPU": 1, "GPU": 1}] * len(ray.nodes()), strategy="STRICT_SPREAD")
ray.get(group.ready(), timeout=60)

@ray.remote(num_cpus=1, num_gpus=1)
def look():
    names = ("HOOK", "VERL_FILE_LOGGER_PATH", "WANDB_RUN_ID", "ROCR_VISIBLE_DEVICES")
    return ray.get_runtime_context().get_node_id(), *(os.environ.get(name) for name in names)

strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy
seen = ray.get([look.options(scheduling_strategy=strategy(group, index)).remote() for index in range(len(ray.nodes()))])
pathlib.Path("seen.json").write_text(json.dumps({
    "names": sorted(node["NodeName"] for node in ray.nodes()), "resources": ray.cluster_resources(), "seen": seen,
    "arguments": sys.argv[1:], "files": files,
    "environment": {name: os.environ.get(name) for name in ("ARM", "MODEL", "WANDB_RESUME", "ROCR_VISIBLE_DEVICES")}}))
"""


@pytest.fixture
def slurm(tmp_path, request):
    allocation = FakeSlurm(tmp_path, request.param)
    (tmp_path / "payload.py").write_text(PAYLOAD)
    (tmp_path / "setup.sh").write_text("export HOOK='set on the node'\nulimit -Sn 1024\n")
    yield allocation
    allocation.close()


def recipe(slurm: FakeSlurm, *lines: str) -> None:
    (slurm.folder / "recipe.sh").write_text("#!/bin/bash\nset -e\n" + "\n".join(lines) + "\n")
    slurm.environment["RECIPE"] = "recipe.sh"


def nothing_left(slurm: FakeSlurm) -> None:
    # A sleep of the recipe's, or of the script's own pause, ends by itself; Slurm would end it with its step.
    deadline = time.monotonic() + 8
    while (left := slurm.processes()) and time.monotonic() < deadline:
        assert {process.name() for process in left} <= {"sleep"}
        time.sleep(0.2)
    assert left == []
    assert list(slurm.tmp.iterdir()) == []


both = pytest.mark.parametrize("slurm", [["alpha", "beta"]], indirect=True)
one = pytest.mark.parametrize("slurm", [["alpha"]], indirect=True)


@both
def test_two_nodes_one_cluster(slurm):
    recipe(slurm, 'python payload.py "$@"')
    assert slurm.submit("a.b=[1, 'x y']", SETUP="setup.sh", ARM="grpo", MODEL="a model/$HOME").returncode == 0
    assert slurm.log("sbatch").strip() == str(slurm.run / "job.sbatch")
    job = slurm.start(CUDA_VISIBLE_DEVICES="0", ROCR_VISIBLE_DEVICES="0")
    assert job.wait(240) == 0, slurm.output()
    told = json.loads((slurm.folder / "seen.json").read_text())
    assert told["names"] == ["alpha", "beta"]
    assert (told["resources"]["CPU"], told["resources"]["GPU"]) == (6, 2)
    assert len({node for node, *_ in told["seen"]}) == 2
    metrics, number = str(slurm.run / "metrics.0.jsonl"), slurm_job(slurm)
    # verl's workers refuse ROCR_VISIBLE_DEVICES beside CUDA_VISIBLE_DEVICES; W&B runs in one of them.
    assert [rest for _, *rest in told["seen"]] == [["set on the node", metrics, f"slurm-{number}", None]] * 2
    assert told["files"] == min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert told["arguments"][-1] == "a.b=[1, 'x y']"
    assert {"trainer.nnodes=2", "trainer.n_gpus_per_node=1", "trainer.resume_mode=auto"} <= set(told["arguments"])
    assert told["environment"] == {
        "ARM": "grpo", "MODEL": "a model/$HOME", "WANDB_RESUME": "allow", "ROCR_VISIBLE_DEVICES": None,
    }  # fmt: skip
    assert "all nodes have joined Ray: alpha (1 GPUs), beta (1 GPUs)" in slurm.output()
    logs = {path.name for path in (slurm.run / "logs").glob("*/*")}
    assert logs == {"node-alpha.log", "node-beta.log"}
    assert "requeue" not in slurm.log("scontrol")
    nothing_left(slurm)


def prepared(before: str, after: str) -> list[str]:
    """Words that ``after`` prints once ray_job.sh has prepared a node that begins with ``before``."""
    body = SUBMIT.with_name("ray_job.sh").read_text()
    prepare = body[body.index("prepare() {") :].partition("\n}\n")[0] + "\n}\n"
    command = ["bash", "-c", f"SETUP=; {before}\n{prepare}prepare; {after}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_a_node_is_prepared():
    devices = "echo ${CUDA_VISIBLE_DEVICES-none} ${ROCR_VISIBLE_DEVICES-none}"
    assert prepared("export ROCR_VISIBLE_DEVICES=0 CUDA_VISIBLE_DEVICES=0", devices) == ["0", "none"]
    assert prepared("export ROCR_VISIBLE_DEVICES=0 HIP_VISIBLE_DEVICES=0", devices) == ["none", "none"]
    assert prepared("export ROCR_VISIBLE_DEVICES=0", devices) == ["none", "0"]
    # As far as the hard limit lets it, and without a word.
    assert prepared("ulimit -Sn 100; ulimit -Hn 500", "ulimit -Sn") == ["500"]


@one
def test_a_wandb_run_of_the_users_own_and_one_of_an_array(slurm):
    # Cut off before Ray starts.
    recipe(slurm, "exit 0")
    assert slurm.submit().returncode == 0
    script = slurm.run / "job.sbatch"
    script.write_text(script.read_text().replace("# ---- on each node", 'echo "$WANDB_RUN_ID $WANDB_RESUME"; exit\n#'))
    for environment, said in (
        ({"WANDB_RUN_ID": "mine", "WANDB_RESUME": "must"}, "mine must"),
        ({"SLURM_ARRAY_JOB_ID": "77"}, "slurm-77 allow"),
    ):
        assert slurm.start(**environment).wait(60) == 0
        assert slurm.output().splitlines()[-1] == said


@both
def test_a_failing_recipe_passes_its_exit_status_on(slurm):
    recipe(slurm, "exit 37")
    # As where another job takes the port while Ray starts.
    (slurm.folder / "bin" / "ray").write_text(f"""#!/bin/bash
if mkdir "$FAKE_SLURM/tried"; then echo "port taken: $*"; exit 1; fi
exec {Path(sys.executable).with_name("ray")} "$@"
""")
    (slurm.folder / "bin" / "ray").chmod(0o755)
    assert slurm.submit().returncode == 0
    job = slurm.start()
    assert job.wait(240) == 37, slurm.output()
    (taken,) = re.findall(r"port taken: .* --port (\d+)", next(slurm.run.glob("logs/*/node-alpha.log")).read_text())
    assert re.search(rf"Ray's head is [0-9.]+:{int(taken) + 2}", slurm.output())
    assert "requeue" not in slurm.log("scontrol")
    # Ray's own logs are kept for reading.
    assert sorted(path.name for path in (slurm.run / "logs").glob("*/ray-*")) == ["ray-alpha", "ray-beta"]
    nothing_left(slurm)


@both
def test_a_node_that_never_joins(slurm):
    recipe(slurm, "touch started")
    (slurm.folder / "absent.beta").touch()
    assert slurm.submit(JOIN_SECONDS="25").returncode == 0
    job = slurm.start()
    assert job.wait(240) == 1
    assert "1 of 2 nodes have joined Ray within" in slurm.output()
    assert "missing: beta. Fix: read " in slurm.output()
    assert not (slurm.folder / "started").exists()
    nothing_left(slurm)


@one
@pytest.mark.parametrize(
    ("sent", "state", "status", "again"),
    [
        (signal.SIGTERM, "PREEMPTED", 143, True),
        pytest.param(signal.SIGTERM, "CANCELLED", 143, False, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, "RUNNING", 138, True, marks=pytest.mark.slow),
    ],
)
def test_signals(slurm, sent, state, status, again):
    checkpoint = slurm.run / "checkpoints" / "latest_checkpointed_iteration.txt"
    recipe(slurm, f"mkdir -p {checkpoint.parent}", f"echo 3 >{checkpoint}", "touch started", "sleep 5",
           f"echo 4 >{checkpoint}", "exec sleep 600")  # fmt: skip
    assert slurm.submit(SIGNAL_SECONDS="90").returncode == 0
    job = slurm.start()
    slurm.until(slurm.folder / "started", job)
    slurm.state(state)
    job.send_signal(sent)
    assert job.wait(120) == status, slurm.output()
    assert (f"requeue {slurm_job(slurm)}" in slurm.log("scontrol")) is again
    step = 4 if sent == signal.SIGUSR1 else 3
    assert (f"the next attempt resumes from step {step}." in slurm.output()) is again
    nothing_left(slurm)


def slurm_job(slurm: FakeSlurm) -> str:
    return next(path.name.split(".")[0] for path in (slurm.run / "logs").iterdir() if path.is_dir())


@one
def test_a_node_lost_on_the_way_and_restarts_that_are_spent(slurm):
    recipe(slurm, "touch started", "exec sleep 600")
    assert slurm.submit(MAX_REQUEUES="2").returncode == 0
    job = slurm.start(SLURM_RESTART_COUNT="2")
    slurm.until(slurm.folder / "started", job)
    raylet = next(process for process in slurm.processes() if process.name() == "raylet")
    raylet.kill()
    assert job.wait(120) == 1, slurm.output()
    assert "Ray on alpha ended before the job did. Fix: read " in slurm.output()
    nothing_left(slurm)

    (slurm.folder / "started").unlink()
    job = slurm.start(SLURM_RESTART_COUNT="2")
    slurm.until(slurm.folder / "started", job)
    job.send_signal(signal.SIGTERM)
    assert job.wait(120) == 143
    assert "not requeued: this was restart 2, and MAX_REQUEUES is 2." in slurm.output()
    nothing_left(slurm)


@one
def test_what_cannot_start(slurm):
    recipe(slurm, "touch started")
    assert slurm.submit().returncode == 0
    job = slurm.start(SLURM_JOB_NODELIST="alpha,beta")
    assert job.wait(60) == 1
    assert "Slurm gave 2 node(s) (alpha beta), and the job was written for 1." in slurm.output()
    (slurm.folder / "bin" / "ray").write_text(
        textwrap.dedent("""\
        #!/bin/bash
        echo "no Ray here"
        exit 1
        """)
    )
    (slurm.folder / "bin" / "ray").chmod(0o755)
    job = slurm.start()
    assert job.wait(60) == 1
    # Each of three tries says so, and the end of the log is shown.
    assert slurm.output().count("no Ray here") == 3
    assert "Ray did not start on alpha. Fix: read " in slurm.output()
    assert not (slurm.folder / "started").exists()
    nothing_left(slurm)
