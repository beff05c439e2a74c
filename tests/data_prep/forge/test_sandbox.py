"""The scratch folder: limits hold, and nothing gets out."""

import os
import time
from pathlib import Path

import pytest

from data_prep.forge.mutate import functions
from data_prep.forge.probe import Call, Outcome, Probe, observe
from data_prep.forge.sandbox import Limits, Sandbox


@pytest.fixture
def sandbox(tmp_path):
    return Sandbox(tmp_path / "scratch", Limits(seconds=3, memory=400 << 20, file_bytes=1 << 20))


def python(sandbox, code):
    return sandbox.run(f"python - <<'EOF'\n{code}\nEOF")


@pytest.mark.parametrize("command", ["while true; do :; done", "python -c 'while True: pass'", "sleep 60"])
def test_a_command_for_ever_is_ended(sandbox, command):
    started = time.monotonic()
    done = sandbox.run(command)
    assert done.returncode != 0
    assert time.monotonic() - started < 50


def test_what_is_left_in_the_background_is_ended(sandbox):
    sandbox.run("sleep 300 & echo $! > pid")
    number = int((sandbox.work / "pid").read_text())
    for _ in range(200):
        if not alive(number):
            return
        time.sleep(0.05)
    raise AssertionError("the process is still there")


def alive(number):
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_memory_and_output_are_bounded(sandbox):
    done = python(sandbox, "x = bytearray(1 << 30)")
    assert done.returncode == 1
    assert "MemoryError" in done.output
    done = sandbox.run("yes")
    assert done.returncode != 0
    assert len(done.output) <= 1 << 20


@pytest.mark.parametrize(
    "code",
    [
        "open({outside!r}, 'w')",
        "import os; os.open({outside!r}, os.O_CREAT | os.O_WRONLY)",
        "import os; os.mkdir({outside!r})",
        "import os; os.rename('here', {outside!r})",
        "import os; os.symlink('here', {outside!r})",
        "import os; os.remove({victim!r})",
        "import pathlib; pathlib.Path({victim!r}).unlink()",
        "import shutil; shutil.rmtree({folder!r})",
        "import os; os.link({victim!r}, 'linked')",
        "import os; os.truncate({victim!r}, 0)",
        "import os; os.chmod({victim!r}, 0)",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import os; os.fork()",
        "import os; os.kill(os.getppid(), 9)",
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')",
        "import ctypes; ctypes.CDLL(None)",
        "import os; os.symlink({folder!r}, 'way'); open('way/new', 'w')",
    ],
)
def test_python_cannot_leave_the_folder(sandbox, tmp_path, code):
    folder = tmp_path / "precious"
    folder.mkdir()
    victim = folder / "file"
    victim.write_text("kept")
    mode = victim.stat().st_mode
    (sandbox.work / "here").write_text("")
    names = {"outside": str(tmp_path / "new"), "victim": str(victim), "folder": str(folder)}
    done = python(sandbox, code.format(**names))
    assert done.returncode != 0
    assert "is not allowed here" in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious", "scratch"]
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert (victim.read_text(), victim.stat().st_mode) == ("kept", mode)


def test_writing_inside_is_allowed(sandbox):
    done = python(sandbox, "import tempfile, os\nopen('a', 'w').write('x')\nos.remove('a')\nprint(tempfile.mkdtemp())")
    assert done.returncode == 0
    assert done.output.startswith("/scratch/tmp/")


def test_the_environment_and_the_folders_names_are_clean(sandbox, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    output = sandbox.run("env; pwd; python -c 'import os; print(os.getcwd(), os.__file__)'").output
    assert "hunter2" not in output
    assert str(sandbox.root) not in output
    assert "/testbed" in output
    assert output.rstrip().endswith("/os.py")
    assert os.path.realpath(os.__file__).rpartition("/")[0] not in output


def test_an_edit_within_the_second_is_seen(sandbox):
    """Byte code is checked by content: size and time of change may be the same."""
    module = sandbox.work / "thing.py"
    module.write_text("def f():\n    return 1 < 2\n")
    stamp = module.stat()
    sandbox.compile(["thing.py"])
    module.write_text("def f():\n    return 1 > 2\n")
    os.utime(module, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert python(sandbox, "import thing; print(thing.f())").output == "False\n"


MODULE = """\
import sys


def spin(n):
    while n > 0:
        n = n + 0
    return "done"


def fill(n):
    return len("x" * n)


def label(text, width=4):
    if len(text) < width:
        text = text + "."
    return text


class Box:
    side = 3

    @property
    def area(self):
        return self.side * 2

    def grown(self, by=1):
        return super().__repr__() and self.side + by
"""


@pytest.fixture
def library(sandbox):
    (sandbox.work / "thing.py").write_text(MODULE)
    return {function.qualname: (function, mutations) for function, mutations in functions("thing.py", MODULE)}


def call(text, *imports):
    return Call(imports or ("import thing",), text)


def test_observed_calls_are_ended_one_by_one(sandbox, library):
    calls = [call("thing.spin(0)"), call("thing.spin(1)"), call("thing.fill(1 << 40)"), call("thing.label('a')")]
    outcomes = observe(sandbox, calls)
    assert outcomes[0] == Outcome("value", "'done'")
    assert outcomes[1] == Outcome("bad", "timeout")
    assert outcomes[2].text.startswith("MemoryError")
    assert outcomes[3] == Outcome("value", "'a.'")


def test_calls_that_hang_often_are_not_all_waited_for(sandbox, library):
    outcomes = observe(sandbox, [call("thing.spin(1)")] * 200 + [call("thing.spin(0)")])
    assert {outcome.text for outcome in outcomes} == {"timeout"}
    assert len(outcomes) == 201


def test_a_probe_gives_what_the_mutated_file_gives(sandbox, library):
    calls = [
        call("thing.label('a')"),
        call("thing.label('abcd')"),
        call("thing.Box().area"),
        call("thing.Box().grown()"),
    ]
    checked = 0
    for name in ("label", "Box.area", "Box.grown"):
        function, mutations = library[name]
        with Probe(sandbox, function, MODULE) as probe:
            plain = probe.observe(calls, [])
            for mutation in mutations:
                swapped = probe.observe(calls, [mutation])
                text = MODULE[: mutation.start] + mutation.new + MODULE[mutation.start + len(mutation.old) :]
                (sandbox.work / "thing.py").write_text(text)
                assert swapped == observe(sandbox, calls)
                (sandbox.work / "thing.py").write_text(MODULE)
                checked += 1
            assert probe.observe(calls, []) == plain == observe(sandbox, calls)
    assert checked >= 12


def test_a_probe_survives_what_it_asks(sandbox, library):
    function, _ = library["fill"]
    with Probe(sandbox, function, MODULE) as probe:
        assert probe.observe([call("__import__('os')._exit(3)")], []) is None
        assert probe.observe([call("thing.label('abc')")], []) == [Outcome("value", "'abc.'")]
        invented = probe.invent("1", 200, 20)
    assert invented
    assert all(outcome.usable and item.text.startswith("fill(") for item, outcome in invented)
