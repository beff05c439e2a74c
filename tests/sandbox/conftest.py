"""A repository to start boxes from, and the sandbox that this machine has."""

from __future__ import annotations

import subprocess

import pytest

from contextrl_verl.sandbox import Limits, rungs
from contextrl_verl.sandbox.bubblewrap import Bubblewrap, find_bubblewrap


@pytest.fixture(scope="session")
def made_repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "repository"
    (folder / "package").mkdir(parents=True)
    (folder / "code.py").write_text("one = 1\ntwo = 2\nthree = 3\n")
    (folder / "package" / "__init__.py").write_text("")
    (folder / "picture.bin").write_bytes(bytes(range(256)))
    (folder / "run.sh").write_text("echo hello\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("code.py")
    commit = "git init -q && git add -A && git -c user.name=n -c user.email=e commit -qm all"
    subprocess.run(commit, shell=True, cwd=folder, check=True)
    return folder


@pytest.fixture(scope="session")
def bubblewrap():
    """Makes boxes with the limits given."""
    first = rungs()[0]
    if not first.usable:
        pytest.skip(f"no bubblewrap here: {first.detail}")
    return lambda limits=Limits(): Bubblewrap(limits, find_bubblewrap())
