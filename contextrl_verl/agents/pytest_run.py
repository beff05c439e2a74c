"""The tests of a table's task, run so that neither the repository's settings nor its code report for them.

Own options, no plugin that is not named, settings and conftest.py of the task and never of the agent, a signed report,
tests that are the same before and after, and a file of canaries among them: those that have to fail say whether failing
is still possible.
docs/agents.md names the two cheats that get through.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from contextrl_verl.agents.observe import inside, read_or_nothing
from contextrl_verl.agents.path_policy import Refused, edits, kind_of
from contextrl_verl.agents.task import TableChecks
from contextrl_verl.errors import ConfigError
from contextrl_verl.sandbox.box import Box, Finished

# Options of a table's command that change what is reported, how fast, or which settings are read; those with a value.
_IGNORED = re.compile(
    r"-[qvsxl]+|-r\w*|--(tb|color|cov|durations|junit|log-|show|no-header|no-summary|maxfail|exitfirst|verbose|quiet"
    r"|capture|report|dist|numprocesses|timeout|forked|lf|ff|nf|sw|last-failed|failed-first|stepwise|cache|html|json|basetemp"
    r"|rootdir|config-file|confcutdir|noconftest|disable-|strict|instafail|benchmark|randomly|reruns)[\w-]*(=.*)?"
)
_IGNORED_WITH_VALUE = set("-n -c -k --maxfail --rootdir --tb --dist --timeout --durations --cov".split())
_WITH_VALUE = set("-p -W -o -m --override-ini --pythonwarnings --ignore --deselect --import-mode".split())
_OF_TESTS = ("test", "test runner")
_SETTINGS = ("pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")


class Command(NamedTuple):
    """What of a table's test command is used."""

    variables: tuple[str, ...]
    paths: tuple[str, ...]  # of the variable PYTHONPATH
    python: str
    options: tuple[str, ...]
    places: tuple[str, ...]  # the files and folders it names


class Report(NamedTuple):
    """How each test ended, by pytest's id, unless it is ``broken``: no_report, tampered or canary."""

    outcomes: dict[str, str]
    broken: str
    detail: str
    finished: Finished


def parse_command(command: str) -> Command:
    """``A=1 python -m pytest -rA tests`` or ``pytest tests`` in its parts. Raises ConfigError for any other program."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise _not_pytest(command, str(error)) from None
    count = next((n for n, word in enumerate(words) if not re.fullmatch(r"[A-Za-z_]\w*=.*", word)), len(words))
    variables, words = words[:count], words[count:]
    paths = [path for word in variables if word.startswith("PYTHONPATH=") for path in word[11:].split(":") if path]
    variables = [word for word in variables if not word.startswith("PYTHON")]
    if words[:1] in (["pytest"], ["py.test"]):
        python, rest = "python", words[1:]
    elif re.fullmatch(r"(/.*/)?python[\d.]*", words[0] if words else "") and words[1:3] == ["-m", "pytest"]:
        python, rest = words[0], words[3:]
    else:
        raise _not_pytest(command, "it begins with neither pytest nor python -m pytest")
    if any(re.search(r"[;&|<>`$()]", word) for word in rest if not word.startswith("-")):
        raise _not_pytest(command, "it is more than one command")
    options, places, left = [], [], iter(rest)
    for word in left:
        if word in _IGNORED_WITH_VALUE:
            next(left, None)
        elif word in _WITH_VALUE:
            options += [word, next(left, "")]
        elif not word.startswith("-"):
            places.append(word)
        elif not _IGNORED.fullmatch(word) and not re.fullmatch(r"-n\d+|-nauto|-c.+", word):
            options.append(word)
    return Command(tuple(variables), tuple(paths), python, tuple(options), tuple(places))


def _not_pytest(command: str, why: str) -> ConfigError:
    return ConfigError(
        f"test_command is {command!r}, and only pytest's own report is read here: {why}. Fix: give a command of "
        "pytest; what has to come before it goes into setup"
    )


def run_tests(box: Box, checks: TableChecks) -> Report:
    """Run the tests of a box in which the repair and the task's tests are in place."""
    command = parse_command(checks.test_command)
    ids = (*checks.fail_to_pass, *checks.pass_to_pass)
    files = list(dict.fromkeys(name.split("::")[0] for name in ids if "::" in name)) or list(command.places) or ["."]
    draw = secrets.SystemRandom()
    canary = _canary(files, draw)
    try:
        box.write(canary.path, canary.text.encode())
    except OSError as error:
        return Report({}, "no_report", f"no test can be put beside the repository's: {error}", Finished(1, "", "", 0))
    files.insert(draw.randint(0, len(files)), canary.path)
    key, report = secrets.token_bytes(32), f"/tmp/{secrets.token_hex(8)}"
    given = {"key": key.hex(), "files": files, "plugins": checks.plugins, "paths": command.paths}
    given["arguments"] = [*_OWN, *_settings(box), *command.options]
    variables = [*command.variables, "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", "PYTEST_ADDOPTS=", "PYTEST_PLUGINS="]
    words = ["env", *variables, command.python, "-s", "-c", inside("run_tests"), report]
    text = f"{checks.setup}\n{shlex.join(words)}"
    before = box.diff()
    done = box.run(text, stdin=json.dumps(given), seconds=checks.seconds)
    outcomes = _signed(read_or_nothing(box, report), key)
    if outcomes is None:
        return Report({}, "no_report", f"no signed report of the tests: {done.output[-500:].strip()}", done)
    if changed := _changed(before, box.diff()):
        return Report({}, "tampered", f"{changed} was changed while the tests ran", done)
    wrong = [name for name, outcome in canary.outcomes.items() if outcomes.pop(name, None) != outcome]
    return Report(outcomes, "canary" if wrong else "", "a test that has to fail did not, or the reverse", done)


_OWN = ["-p", "no:cacheprovider", "--continue-on-collection-errors", "-q", "--tb=no", "-o", "addopts=", "--color=no"]


def _settings(box: Box) -> list[str]:
    """The repository's own settings and conftest.py where it has them; the repair's were left out."""
    script = (
        f"ls {' '.join(_SETTINGS)} 2>/dev/null; "
        r"grep -lE '^\[(tool[.:])?pytest' tox.ini setup.cfg pyproject.toml 2>/dev/null | sed s/^/+/; "
        "find . -name conftest.py -not -path './.git/*' | head -n 1"
    )
    lines = box.run(script).output.split("\n")
    found = [name for name in _SETTINGS if name in lines and ("pytest.ini" in name or f"+{name}" in lines)]
    conftest = any(line.endswith("conftest.py") for line in lines)
    settings = found[0] if found else "/dev/null"
    return ["--rootdir=.", "-c", settings, *([] if conftest else ["--noconftest"])]


def _changed(before: str, after: str) -> str:
    """A file of the tests that is not what it was; "" where there is none. New files are what tests leave behind."""
    try:
        old, new = ({edit.paths[0]: edit.text for edit in edits(diff)} for diff in (before, after))
    except Refused as error:
        return error.detail
    differ = [path for path in {**old, **new} if old.get(path) != new.get(path) and kind_of(path) in _OF_TESTS]
    return next((path for path in differ if path in old or "\nnew file mode " not in new[path]), "")


class _Canary(NamedTuple):
    path: str
    text: str
    outcomes: Mapping[str, str]


def _canary(files: Sequence[str], draw: secrets.SystemRandom) -> _Canary:
    """A file of tests with names drawn at random, some of which have to fail, next to the first of the files."""
    folder = PurePosixPath(next((file for file in files if file.endswith(".py")), "x.py")).parent
    path = str(folder / f"test_{secrets.token_hex(6)}.py")
    lines, outcomes = [], {}
    for right in draw.sample([True, True, False, False], 4):
        name, one, other = f"test_{secrets.token_hex(5)}", draw.randint(2, 999), draw.randint(2, 999)
        given = one + other + (0 if right else draw.randint(1, 9))
        lines.append(f"def {name}():\n    assert {one} + {other} == {given}\n")
        outcomes[f"{path}::{name}"] = "passed" if right else "failed"
    return _Canary(path, "\n\n".join(lines), outcomes)


def _signed(report: bytes, key: bytes) -> dict[str, str] | None:
    """The outcomes of a report that carries the key's signature."""
    try:
        found = json.loads(report)
        signed, signature = found["signed"], found["signature"]
        if not hmac.compare_digest(hmac.digest(key, signed.encode(), "sha256").hex(), signature):
            return None
        outcomes: dict[str, str] = json.loads(signed)
        return outcomes
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def outcome_of(name: str, outcomes: Mapping[str, str]) -> str:
    """How a test ended; an id without a file, as ``TestBox.test_grow``, stands for every test of that name."""
    if name in outcomes or "::" in name:
        return outcomes.get(name, "missing")
    found = {outcome for known, outcome in outcomes.items() if ".".join(known.split("::")[1:]) == name}
    return found.pop() if len(found) == 1 else "failed" if found else "missing"


def not_passed(names: Iterable[str], outcomes: Mapping[str, str], allowed: Sequence[str]) -> dict[str, str]:
    """The tests that did not end in one of the ``allowed`` ways."""
    return {name: found for name in names if (found := outcome_of(name, outcomes)) not in allowed}
