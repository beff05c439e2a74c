"""The scratch folder: limits hold, and nothing gets out."""

import os
import time
from pathlib import Path

import pytest

from data_prep.forge.mutate import apply, functions
from data_prep.forge.sandbox import Call, Outcome, Sandbox


@pytest.fixture
def sandbox(tmp_path):
    return Sandbox(tmp_path / "scratch", seconds=3, memory=400 << 20, file_bytes=1 << 20)


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
    sandbox.write({"thing.py": module.read_text()})
    stamp = module.stat()
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
    sandbox.write({"thing.py": MODULE})
    return {function.qualname: mutations for function, mutations in functions("thing.py", MODULE)}


def call(text, *imports):
    return Call(imports or ("import thing",), text)


def observed(sandbox, *calls, changed=None):
    (found,) = sandbox.observe("thing", [(changed or {}, [call(text) for text in calls])])
    return found


def test_calls_are_ended_one_by_one(sandbox, library):
    found = observed(sandbox, "thing.spin(0)", "thing.spin(1)", "thing.fill(1 << 40)", "thing.label('a')")
    assert found[0] == Outcome("value", "'done'")
    assert found[1] == Outcome("bad", "timeout")
    assert found[2].text.startswith("MemoryError")
    assert found[3] == Outcome("value", "'a.'")
    # Calls that hang often are not all waited for.
    found = observed(sandbox, *["thing.spin(1)"] * 200, "thing.spin(0)")
    assert found == [Outcome("bad", "timeout")] * 201


def test_a_changed_text_gives_what_the_changed_file_gives(sandbox, library):
    calls = "thing.label('a')", "thing.label('abcd')", "thing.Box().area", "thing.Box().grown()"
    plain = observed(sandbox, *calls)
    texts = [apply(MODULE, [mutation]) for name in ("label", "Box.area", "Box.grown") for mutation in library[name]]
    assert len(texts) >= 12
    asked = [({"thing.py": text}, [call(item) for item in calls]) for text in texts]
    swapped = sandbox.observe("thing", [*asked, ({}, asked[0][1])])
    # Nothing of one question is seen by the next.
    assert swapped.pop() == plain == observed(sandbox, *calls)
    assert any(found != plain for found in swapped)
    for text, found in zip(texts, swapped, strict=True):
        sandbox.write({"thing.py": text})
        assert observed(sandbox, *calls) == found


def test_a_question_that_ends_its_process_has_no_answer(sandbox, library):
    asked = ["__import__('os')._exit(3)", "thing.label('abc')", "__import__('time').sleep(60)"]
    found = sandbox.observe("thing", [*(({}, [call(text)]) for text in asked), ({"thing.py": "def ("}, [])])
    assert found == [None, [Outcome("value", "'abc.'")], [Outcome("bad", "timeout")], None]
    # A module of that name that is not of this folder.
    assert sandbox.observe("json", [({}, [call("1")])]) == [None]


def test_invented_calls_say_something(sandbox, library):
    invented = sandbox.invent("thing", "label", ("abc", 4), "1")
    (found,) = sandbox.observe("thing", [({}, invented)])
    assert len(found) > 10
    assert all(outcome.usable for outcome in found)
    assert all(item.text.startswith("label(") and item.imports == ("from thing import label",) for item in invented)
    assert sandbox.invent("thing", "spin", (), "1") == sandbox.invent("thing", "nowhere", (), "1") == []
    methods = sandbox.invent("thing", "Box.grown", (), "1")
    assert len(methods) > 3
    assert all(item.text.startswith("Box().grown(") for item in methods)
