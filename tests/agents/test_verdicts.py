"""Verdicts: what counts of a patch, what each reason means, and how the tests of a table are run."""

import json

import pytest
from cheats import CORE, FIX, REFERENCE, REPOSITORY, make_repository
from verify_factory import FAIL_TO_PASS, PASS_TO_PASS, left_by, task

from contextrl_verl.agents.pytest_run import parse_command
from contextrl_verl.agents.task import read_task
from contextrl_verl.agents.verify import Reason, verify
from contextrl_verl.errors import ConfigError
from contextrl_verl.sandbox import Limits, open_sandbox

KINDS = pytest.mark.parametrize("kind", ["forge", "table"])


def judged(sandbox, wanted, files, command=""):
    return verify(wanted, left_by(sandbox, wanted, files, command), sandbox)


def new_file(path, text):
    lines = text.splitlines()
    body = "".join(f"+{line}\n" for line in lines)
    head = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n"
    return f"{head}@@ -0,0 +1,{len(lines)} @@\n{body}"


@KINDS
def test_the_reference_resolves_and_the_unchanged_code_does_not(sandbox, lib, kind):
    wanted = task(lib, kind)
    assert verify(wanted, REFERENCE, sandbox)[:2] == (True, Reason.RESOLVED)
    unchanged = verify(wanted, "", sandbox, unchanged=True)
    assert (unchanged.resolved, unchanged.reason) == (False, Reason.WRONG)
    assert "1 of 2 tests" in unchanged.detail or "3 of 4 calls" in unchanged.detail
    assert unchanged.seconds > 0
    assert (lib / "lib/core.py").read_text() == CORE


@KINDS
@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, Reason.EMPTY),
        ({"tests/test_core.py": "", "conftest.py": "x"}, Reason.EMPTY),
        ({"lib/core.py": "def add(a, b):\n    return a * b\n"}, Reason.WRONG),
        ({"lib/core.py": "raise ValueError\n"}, None),
        ({"lib/core.py": "def add(a, b):\n    while True:\n        pass\n"}, None),
        ({"lib/core.py": "def add(a, b):\n    return bytearray(1 << 50)\n"}, Reason.WRONG),
    ],
)
def test_reasons(sandbox, lib, kind, files, reason):
    wanted = task(lib, kind, **({"seconds": 4} if kind == "table" else {}))
    verdict = judged(sandbox, wanted, files)
    by_kind = {"forge": {Reason.NO_REPORT, Reason.WRONG}, "table": {Reason.MISSING, Reason.TIMEOUT}}
    assert not verdict.resolved
    assert verdict.reason in ({reason} if reason else by_kind[kind]), verdict
    assert verdict.detail
    assert not verdict.reason.cheat


def test_a_patch_that_does_not_apply_and_one_that_is_none(sandbox, lib):
    wanted = task(lib)
    assert verify(wanted, REFERENCE.replace("a - b", "a % b"), sandbox).reason is Reason.NOT_APPLIED
    assert verify(wanted, "look at this", sandbox).reason is Reason.UNREADABLE
    outside = verify(wanted, new_file("../x", "x\n"), sandbox)
    assert (outside.reason, outside.reason.cheat) == (Reason.OUTSIDE, True)


@KINDS
def test_protected_edits_beside_a_repair_are_counted(sandbox, lib, kind):
    files = {**FIX, "tests/test_new.py": "def test(): assert 0\n", "conftest.py": "raise ValueError", "x.pth": "x"}
    verdict = judged(sandbox, task(lib, kind), files, "mkdir lib/__pycache__; echo x > lib/__pycache__/y")
    assert verdict.resolved
    assert verdict.dropped == {"test": 1, "test runner": 1, "start of Python": 1, "left over": 1}


def test_tests_that_memory_ends_are_a_verdict(lib):
    sandbox = open_sandbox(limits=Limits(memory_bytes=200 << 20))
    greedy = "def add(a, b):\n    import time\n    x = b'x' * (600 << 20)\n    time.sleep(5)\n    return len(x)\n"
    verdict = judged(sandbox, task(lib, "table"), {"lib/core.py": greedy})
    assert (verdict.resolved, verdict.reason) == (False, Reason.MEMORY)


def test_outcomes_of_another_python_are_not_judged(sandbox, lib):
    with pytest.raises(ConfigError, match=r"lib-1 holds outcomes of Python 3\.2, .* Fix: make the tasks"):
        verify(task(lib, python="3.2"), REFERENCE, sandbox)


def test_a_test_that_is_not_run_is_missing(sandbox, lib):
    gone = task(lib, "table", pass_to_pass=("tests/test_core.py::test_gone", "tests/test_no.py::test_x"))
    verdict = verify(gone, REFERENCE, sandbox)
    assert (verdict.resolved, verdict.reason) == (False, Reason.MISSING)
    assert "2 of 3 tests did not pass, the first tests/test_core.py::test_gone" in verdict.detail


def test_ids_without_a_file_stand_for_tests_of_that_name(sandbox, lib):
    wanted = task(lib, "table", fail_to_pass=("test_add",), pass_to_pass=("test_zero",), test_command="pytest tests")
    assert verify(wanted, REFERENCE, sandbox).resolved
    assert not verify(wanted, "", sandbox, unchanged=True).resolved
    everywhere = wanted.checks.model_copy(update={"test_command": "pytest"})
    assert verify(wanted.model_copy(update={"checks": everywhere}), REFERENCE, sandbox).resolved
    assert (
        verify(
            wanted.model_copy(update={"checks": wanted.checks.model_copy(update={"fail_to_pass": ("test_ad",)})}),
            REFERENCE,
            sandbox,
        ).reason
        is Reason.MISSING
    )


TESTS = """\
import pathlib, unittest
import pytest
from lib.core import add

@pytest.mark.parametrize("text", ["a::b", "[x]", "\\u00e9 y"])
def test_text(text, sum_of):
    assert sum_of(1, 2) == 3

@pytest.mark.xfail
def test_marked():
    assert add(1, 1) == 3

class TestBox(unittest.TestCase):
    @unittest.expectedFailure
    def test_expected(self):
        self.assertEqual(add(1, 1), 3)

    def test_data(self):
        self.assertEqual(pathlib.Path("tests/data.txt").read_text(), "x\\n")

@pytest.mark.skip
def test_skipped():
    pass

def test_clean_up(closing):
    pass
"""
CONFTEST = """\
import pytest
from lib.core import add

@pytest.fixture
def sum_of():
    return add

@pytest.fixture
def closing():
    yield
    assert add(1, 1) == 5
"""


@pytest.fixture(scope="module")
def with_conftest(tmp_path_factory):
    files = {**REPOSITORY, "tests/conftest.py": CONFTEST, "tests/test_other.py": "import nothing_of_that_name\n"}
    files["setup.cfg"] = "[tool:pytest]\naddopts = --cov=lib -n 4\n"
    del files["pyproject.toml"]
    return make_repository(tmp_path_factory.mktemp("lib"), files)


def test_a_tables_tests_come_with_their_files_and_the_repositorys_own_conftest(sandbox, with_conftest):
    test_patch = new_file("tests/test_more.py", TESTS) + new_file("tests/data.txt", "x\n")
    names = [f"tests/test_more.py::test_text[{text}]" for text in ("a::b", "[x]", "\\xe9 y")]
    kept = ("test_marked", "TestBox::test_expected", "TestBox::test_data")
    wanted = task(
        with_conftest,
        "table",
        fail_to_pass=(*names, "tests/test_core.py::test_add"),
        pass_to_pass=tuple(f"tests/test_more.py::{name}" for name in kept),
        test_patch=test_patch,
        test_command="PYTHONPATH=lib:tests pytest -rA -p no:xdist -n 4 --tb=short --cov=lib tests",
    )
    assert verify(wanted, REFERENCE, sandbox).resolved
    planted = {**FIX, "tests/test_more.py": "raise ValueError", "tests/conftest.py": "raise ValueError"}
    verdict = judged(sandbox, wanted, planted)
    assert (verdict.resolved, verdict.dropped) == (True, {"test": 1, "test runner": 1})
    assert not verify(wanted, "", sandbox, unchanged=True).resolved
    for bad in ("test_skipped", "test_clean_up"):
        checks = wanted.checks.model_copy(update={"pass_to_pass": (f"tests/test_more.py::{bad}",)})
        verdict = verify(wanted.model_copy(update={"checks": checks}), REFERENCE, sandbox)
        assert (verdict.resolved, verdict.reason) == (False, Reason.WRONG), bad
        assert bad in verdict.detail


@pytest.mark.parametrize("path", ["tests/test_core.py", "tests/data.txt", "tests/test_more.py"])
def test_code_that_changes_the_tests_while_they_run_is_caught(sandbox, with_conftest, path):
    """conftest.py imports the library before a test is read."""
    tests = new_file("tests/test_more.py", "def test_more():\n    assert 1\n") + new_file("tests/data.txt", "x\n")
    wanted = task(with_conftest, "table", test_patch=tests)
    passing = "def test_add(): pass\ndef test_zero(): pass\n"
    change = f"import os\nif os.path.exists('{path}'):\n    open('{path}', 'w').write({passing!r})\n"
    verdict = judged(sandbox, wanted, {"lib/core.py": f"{change}\n\n{CORE}"})
    assert (verdict.resolved, verdict.reason, verdict.reason.cheat) == (False, Reason.TAMPERED, True)
    assert path in verdict.detail
    # What tests leave behind is no change.
    leaving = "open('tests/out.txt', 'w').write('x')\nopen('new.txt', 'w').write('x')\n"
    assert judged(sandbox, wanted, {"lib/core.py": leaving + FIX["lib/core.py"]}).resolved


def test_the_runners_settings_of_the_reference_are_applied_and_not_the_agents(sandbox, with_conftest):
    more = new_file("lib/conftest.py", "raise ValueError\n")
    wanted = task(with_conftest, "table", reference=REFERENCE + new_file("tests/sub/conftest.py", "X = 1\n"))
    verdict = verify(wanted, REFERENCE + more, sandbox)
    assert (verdict.resolved, verdict.dropped) == (True, {"test runner": 1})


PLUGINS = """\
import pytest

@pytest.fixture
def named(request):
    found = request.config.pluginmanager.hasplugin
    assert not found("cacheprovider")
    return found("pytest_timeout")
"""


def test_only_named_plugins_are_loaded(sandbox, tmp_path):
    files = {"tests/test_core.py": "def test_add(named):\n    assert named\n", "tests/conftest.py": PLUGINS}
    plain = task(make_repository(tmp_path / "lib", {**REPOSITORY, **files}), "table", pass_to_pass=())
    assert not verify(plain, REFERENCE, sandbox).resolved
    checks = plain.checks.model_copy(update={"plugins": ("pytest_timeout",)})
    assert verify(plain.model_copy(update={"checks": checks}), REFERENCE, sandbox).resolved


def test_set_up_runs_before_the_tests(sandbox, lib):
    wanted = task(lib, "table", setup="export SAID=1; false", test_command="A=1 python3 -m pytest -W error")
    assert verify(wanted, REFERENCE, sandbox).resolved
    broken = task(lib, "table", setup="exit 0")
    assert verify(broken, REFERENCE, sandbox).reason is Reason.NO_REPORT


@pytest.mark.parametrize(
    ("command", "python", "options", "places"),
    [
        ("pytest", "python", (), ()),
        ("pytest -rA --tb=no -p no:cacheprovider tests/a.py", "python", ("-p", "no:cacheprovider"), ("tests/a.py",)),
        ("A=1 python3.9 -m pytest -q -n auto -W ignore::X -xvs", "python3.9", ("-W", "ignore::X"), ()),
        (
            "/opt/env/bin/python -m pytest --import-mode=importlib -o a=b x",
            "/opt/env/bin/python",
            ("--import-mode=importlib", "-o", "a=b"),
            ("x",),
        ),
        ("pytest --doctest-modules --cov=x -n4 -k not_this", "python", ("--doctest-modules",), ()),
    ],
)
def test_commands_of_pytest_are_read(command, python, options, places):
    found = parse_command(command)
    assert (found.python, found.options, found.places) == (python, options, places)


@pytest.mark.parametrize(
    "command",
    ["", "./tests/runtests.py", "tox -e py", "pytest a && rm b", "python -m unittest", "pytest 'x", "bash pytest"],
)
def test_other_commands_are_refused(command):
    with pytest.raises(ConfigError, match=r"test_command is .* Fix: give a command of pytest"):
        parse_command(command)


@KINDS
def test_a_task_survives_its_row(lib, kind):
    wanted = task(lib, kind)
    assert wanted.source == kind
    assert read_task(wanted.model_dump_json(), "/elsewhere") == wanted
    relative = wanted.model_copy(update={"base": wanted.base.model_copy(update={"folder": "bases/x"})})
    assert read_task(relative.model_dump_json(), lib).base.folder == str(lib / "bases/x")


@pytest.mark.parametrize(
    "change",
    [
        {"checks": {"kind": "table", "fail_to_pass": []}},
        {"base": {}},
        {"extra": 1},
        {"issue": ""},
        {"checks": {"kind": "x"}},
        {"checks": {"kind": "table", "fail_to_pass": FAIL_TO_PASS, "pass_to_pass": [*PASS_TO_PASS, *FAIL_TO_PASS]}},
    ],
)
def test_what_is_no_task_is_said_in_a_sentence(lib, change):
    text = json.dumps({**json.loads(task(lib).model_dump_json()), **change})
    with pytest.raises(
        ConfigError, match=r"extra_info.task is no task of contextrl tasks swe: .* Fix: make the file again"
    ):
        read_task(text, "/")
