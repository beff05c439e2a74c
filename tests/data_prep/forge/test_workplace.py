"""The box of the forge: what calls give, what is refused, and that nothing names the machine."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from contextrl_verl.agents.task import Call, Outcome
from data_prep.forge.library import Library
from data_prep.forge.mutate import apply, functions
from data_prep.forge.workplace import workplace

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


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("thing")
    (folder / "thing.py").write_text(MODULE)
    return Library("thing", "1", ("thing.py",), folder)


@pytest.fixture(scope="module")
def box(library):
    with workplace(library) as place:
        yield place


@pytest.fixture
def place(box):
    box.write({"thing.py": MODULE})
    return box


MUTATIONS = {function.qualname: mutations for function, mutations in functions("thing.py", MODULE)}


def call(text, *imports):
    return Call(imports or ("import thing",), text)


def observed(place, *calls, changed=None):
    (found,) = place.observe("thing", [(changed or {}, [call(text) for text in calls])])
    return found


def test_calls_are_ended_one_by_one(place):
    found = observed(place, "thing.spin(0)", "thing.spin(1)", "thing.fill(1 << 40)", "thing.label('a')")
    assert found[0] == Outcome("value", "'done'")
    assert found[1] == Outcome("bad", "timeout")
    assert found[2].text.startswith("MemoryError")
    assert found[3] == Outcome("value", "'a.'")
    # Calls that hang often are not all waited for.
    found = observed(place, *["thing.spin(1)"] * 200, "thing.spin(0)")
    assert found == [Outcome("bad", "timeout")] * 201


def test_a_changed_text_gives_what_the_changed_file_gives(place):
    calls = "thing.label('a')", "thing.label('abcd')", "thing.Box().area", "thing.Box().grown()"
    plain = observed(place, *calls)
    texts = [apply(MODULE, [mutation]) for name in ("label", "Box.area", "Box.grown") for mutation in MUTATIONS[name]]
    assert len(texts) >= 12
    asked = [({"thing.py": text}, [call(item) for item in calls]) for text in texts]
    swapped = place.observe("thing", [*asked, ({}, asked[0][1])])
    # Nothing of one question is seen by the next.
    assert swapped.pop() == plain == observed(place, *calls)
    assert any(found != plain for found in swapped)
    for text, found in zip(texts, swapped, strict=True):
        place.write({"thing.py": text})
        assert observed(place, *calls) == found


def test_a_question_that_ends_its_process_has_no_answer(place):
    asked = ["__import__('os')._exit(3)", "thing.label('abc')", "__import__('time').sleep(60)"]
    found = place.observe("thing", [*(({}, [call(text)]) for text in asked), ({"thing.py": "def ("}, [])])
    assert found == [None, [Outcome("value", "'abc.'")], [Outcome("bad", "timeout")], None]
    # A module of that name that is not of this folder.
    assert place.observe("json", [({}, [call("1")])]) == [None]


def test_invented_calls_say_something(place):
    invented = place.invent("thing", "label", ("abc", 4), "1")
    (found,) = place.observe("thing", [({}, invented)])
    assert len(found) > 10
    assert all(outcome.usable for outcome in found)
    assert all(item.text.startswith("label(") and item.imports == ("from thing import label",) for item in invented)
    assert place.invent("thing", "spin", (), "1") == place.invent("thing", "nowhere", (), "1") == []
    methods = place.invent("thing", "Box.grown", (), "1")
    assert len(methods) > 3
    assert all(item.text.startswith("Box().grown(") for item in methods)


@pytest.mark.parametrize(
    "text",
    [
        "open('/new', 'w')",
        "__import__('os').mkdir('/etc/new')",
        "__import__('os').symlink('/etc', 'way')",
        "open('/proc/self/comm', 'w')",
        "__import__('subprocess').run(['true'])",
        "__import__('os').system('true')",
        "__import__('os').fork()",
        "__import__('os').kill(1, 9)",
        "__import__('socket').create_connection(('127.0.0.1', 9))",
        "__import__('ctypes').CDLL(None)",
    ],
)
def test_a_call_that_works_on_more_than_the_folder_says_nothing(place, text):
    found = observed(place, text, "thing.label('a')")
    assert found in (
        [Outcome("bad", "refused"), Outcome("value", "'a.'")],
        # A link may lead out; a file is not written through it.
        [Outcome("value", "None"), Outcome("value", "'a.'")] if "symlink" in text else None,
    )


def test_writing_in_the_folder_is_a_call_like_others(place):
    assert observed(place, "open('a', 'w').write('xy')") == [Outcome("value", "2")]
    assert place.run("cat a; rm a").output == "xy"


def test_the_environment_and_the_folders_names_are_clean(place, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    code = "import os, pytest; print(os.getcwd(), os.__file__, pytest.__file__)"
    output = place.run(f"env; python -c '{code}'").output
    assert "hunter2" not in output
    version = f"/usr/lib/python{sys.version_info.major}.{sys.version_info.minor}"
    assert output.splitlines()[-1] == f"/testbed {version}/os.py {version}/site-packages/pytest/__init__.py"
    assert os.path.realpath(os.__file__).rpartition("/")[0] not in output.replace(version, "")
    assert observed(place, "__import__('iniconfig').__file__") == [Outcome("bad", "of this machine")]


def test_an_edit_within_the_second_is_seen(place):
    """Byte code is checked by content: size and time of change may be the same."""
    assert place.run("ls __pycache__").output.startswith("thing.")
    place.write({"thing.py": MODULE.replace("side = 3", "side = 4")})
    place.run("touch -d 2020-01-01 thing.py; python -c 'import thing'")
    place.write({"thing.py": MODULE.replace("side = 3", "side = 5")})
    place.run("touch -d 2020-01-01 thing.py")
    assert place.run("python -c 'import thing; print(thing.Box.side)'").output == "5\n"


def test_a_python_below_tmp_is_no_part_of_what_is_restored(library, monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp") as prefix:
        Path(prefix, "pyvenv.cfg").write_text("")
        Path(prefix).chmod(0o755)
        monkeypatch.setattr(sys, "prefix", prefix)
        with workplace(library) as place:
            place.commit("one")
            assert place.run(f"mkdir /tmp/mine && echo > /tmp/mine/file && ls {prefix}").returncode == 0
            place.restore()
            assert place.run("find /tmp -type f").output == "/usr/pyvenv.cfg\n"


def test_a_restored_box_is_as_the_commit_left_it(place):
    place.write({"thing.py": MODULE + "\n\nX = 1\n"})
    name = place.commit("one")
    place.run("echo > new; mkdir ~/home /tmp/there; echo >> thing.py; git rm -q --cached thing.py")
    place.restore()
    # A virtual environment that lies below /tmp is shown there, and is not the box's own.
    seen = place.run("ls; find ~ /tmp -xdev -mindepth 1 ! -type d; ls ~; git status --short; git log --format=%H")
    assert seen.output.split() == ["__pycache__", "thing.py", name]
    assert place.commit("one") == name
