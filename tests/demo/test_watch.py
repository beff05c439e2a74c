"""A watched trainer does not outlive its watcher."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import psutil

# Stands for a trainer with a process of its own; what is tested is whether both are ended.
TRAINER = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
pathlib.Path(sys.argv[1]).write_text(f"{child.pid}")
time.sleep(300)
"""
WATCHER = """
import os, pathlib, sys
from contextrl_verl.launch import watch
folder = pathlib.Path(sys.argv[1])
watch([sys.executable, str(folder / "trainer.py"), str(folder / "child")], folder, os.environ)
"""


def test_sigterm_ends_the_trainer_and_its_processes(tmp_path):
    (tmp_path / "trainer.py").write_text(TRAINER)
    watcher = subprocess.Popen([sys.executable, "-c", WATCHER, str(tmp_path)])
    child = tmp_path / "child"
    while not (child.exists() and child.read_text()):
        assert watcher.poll() is None
        time.sleep(0.05)
    pids = [int(child.read_text()), *(process.pid for process in psutil.Process(watcher.pid).children())]
    assert len(pids) == 2
    watcher.send_signal(signal.SIGTERM)
    assert watcher.wait(timeout=60) == 128 + signal.SIGTERM
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
