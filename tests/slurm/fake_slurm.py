"""srun, scontrol and sbatch in miniature: nodes are names on this machine, Ray and the job script are real."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).parent.parent.parent
SUBMIT = REPOSITORY / "recipes" / "slurm" / "submit.sh"

# As srun does: the command's output to --output, signals passed on, the command's exit status.
SRUN = """#!/bin/bash
output=/dev/stdout
while [[ $1 == --* ]]; do
  case $1 in
    --nodelist=*) node=${1#*=} ;;
    --output=*) output=${1#*=} ;;
  esac
  printf '%s ' "$1" >>"$FAKE_SLURM/srun.log"
  shift
done
printf '\\n' >>"$FAKE_SLURM/srun.log"
[[ $output == /dev/stdout ]] || exec >>"$output" 2>&1
if [[ -e $FAKE_SLURM/absent.$node && $* == *"ray_node $node"* ]]; then
  echo "$node sleeps"
  exec sleep 600
fi
SLURMD_NODENAME=$node "$@" &
pid=$!
trap 'kill -TERM $pid' TERM
wait $pid
status=$?
while kill -0 $pid 2>/dev/null; do wait $pid; status=$?; done
exit $status
"""
SCONTROL = """#!/bin/bash
echo "$*" >>"$FAKE_SLURM/scontrol.log"
case "$1 $2" in
  "show hostnames") tr ',' '\\n' <<<"$3" ;;
  "show job") echo "JobId=$4 JobName=x JobState=$(cat "$FAKE_SLURM/state") Reason=None" ;;
esac
"""
SBATCH = """#!/bin/bash
echo "$*" >>"$FAKE_SLURM/sbatch.log"
echo "Submitted batch job 4711"
"""


class FakeSlurm:
    """One allocation. ``folder`` holds the run, ``tmp`` (short, for sockets) Ray's files."""

    def __init__(self, folder: Path, hosts: list[str]) -> None:
        self.folder, self.hosts, self.mark = folder, hosts, uuid.uuid4().hex
        self.tmp = Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp"))
        self.run = folder / "run"
        self.state("RUNNING")
        commands = folder / "bin"
        commands.mkdir()
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("sbatch", SBATCH)):
            (commands / name).write_text(text)
            (commands / name).chmod(0o755)
        scripts = Path(sys.executable).parent
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "SLURM_"))},
            "PATH": f"{commands}:{scripts}:{os.environ['PATH']}",
            "FAKE_SLURM": str(folder),
            "CONTEXTRL_TEST_MARK": self.mark,
            "VERL_PLATFORM": "cpu",
            "RUN_DIR": str(self.run),
            "RAY_TMP": str(self.tmp),
            "RAY_START_ARGS": "--object-store-memory=80000000",
            "NODES": str(len(hosts)),
            "GPUS_PER_NODE": "1",
            "CPUS_PER_NODE": "3",
            "JOIN_SECONDS": "120",
            "CHECK": "0",
        }

    def state(self, name: str) -> None:
        """What ``scontrol show job`` tells from now on."""
        (self.folder / "state").write_text(name)

    def log(self, command: str) -> str:
        """The arguments a command was called with, one call a line."""
        path = self.folder / f"{command}.log"
        return path.read_text() if path.exists() else ""

    def submit(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """Run submit.sh."""
        return subprocess.run(
            ["bash", str(SUBMIT), *arguments],
            env={**self.environment, **environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def start(self, **environment: str) -> subprocess.Popen:
        """Run the written job script as slurmd would, in the background; its output goes to ``job.out``."""
        slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": ",".join(self.hosts)}
        with (self.folder / "job.out").open("a") as stream:
            return subprocess.Popen(
                ["bash", str(self.run / "job.sbatch")],
                env={**self.environment, **slurm, **environment},
                cwd=self.folder,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        """What the job has said so far."""
        return (self.folder / "job.out").read_text()

    def until(self, path: Path, job: subprocess.Popen, seconds: float = 120) -> None:
        """Wait for a file that the job writes."""
        deadline = time.monotonic() + seconds
        while not path.exists():
            assert job.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.2)

    def processes(self) -> list[psutil.Process]:
        """Every living process of this allocation, known by its environment."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and self.mark in process.environ().get(
                    "CONTEXTRL_TEST_MARK", ""
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def close(self) -> None:
        """After a failed test: end what is left of this allocation, and of no other."""
        for process in self.processes():
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue
        shutil.rmtree(self.tmp, ignore_errors=True)
