"""Tables of repair tasks: which columns each has, and how a row becomes an instance that all of them share.

A record says what a table calls things; columns are those of the sets' cards and of public code that reads them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any

from data_prep.common.reverse_diff import DiffError, reverse_diff
from data_prep.images.sources.base import RowRejected
from data_prep.images.sources.values import label_of
from data_prep.tasks.readers import tests_of
from data_prep.tasks.sets import PublicSet

Row = Mapping[str, Any]
_TEST_FILE = re.compile(r"(?:^|/)(?:tests?|testing|r2e_tests)/|(?:^|/)(?:test_[^/]*|[^/]*_test|conftest)\.py$")


@dataclass(frozen=True)
class Instance:
    """A row of any table.

    Attributes:
        commit: the state before the change, ``""``: that of the checkout or the image as it is.
        bug: a diff that makes the state to start from out of ``commit``; ``""``: it is that state.
        reference: the diff that resolves it.
        tests: a diff that brings the tests of the change; ``""``: they are there.
        must, keep: ids of tests that the change makes pass, and that pass before and after it.
        command: that runs the tests; ``""``: pytest.
    """

    instance_id: str
    repo: str
    issue: str
    reference: str
    commit: str = ""
    bug: str = ""
    tests: str = ""
    must: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    command: str = ""
    image: str = ""
    hidden: tuple[str, ...] = ()


class SweTable(PublicSet):
    """A public set whose ``read`` takes a row and gives one :class:`Instance`; raises RowRejected."""


def _text(row: Row, name: str) -> str:
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise RowRejected(f"no {name}")
    return value


def _diff(row: Row, name: str) -> str:
    """A diff with the end of its last line, which tools that apply it want; a damaged one is refused."""
    text = _text(row, name).strip("\n") + "\n"
    try:
        reverse_diff(text)
    except DiffError as error:
        raise RowRejected(f"the {name} cannot be read", str(error)) from None
    return text


def _common(row: Row) -> dict[str, Any]:
    named = {"instance_id": label_of(row["instance_id"]), "repo": label_of(row["repo"])}
    for name, value in named.items():
        if not value:
            raise RowRejected(f"no {name}")
    must, keep = (tuple(tests_of(row[name])) for name in ("FAIL_TO_PASS", "PASS_TO_PASS"))
    return {**named, "issue": _text(row, "problem_statement"), "must": must, "keep": keep}


def _smith(row: Row) -> Instance:
    """``patch`` makes the bug; its branch in the mirror, and so the original, would be in the history."""
    bug = _diff(row, "patch")
    return Instance(**_common(row), bug=bug, reference=reverse_diff(bug), image=label_of(row.get("image_name")))


def _bench(image: Callable[[str], str] = lambda _: "") -> Callable[[Row], Instance]:
    def read(row: Row) -> Instance:
        known, config = _common(row), _json(row, "install_config") if row.get("install_config") else {}
        command = config.get("test_cmd") or ""
        command = " && ".join(command) if isinstance(command, list) else command
        named = next(filter(None, (label_of(row.get(name)) for name in ("image_name", "docker_image"))), "")
        return Instance(
            **known, commit=label_of(row["base_commit"]), reference=_diff(row, "patch"), command=command,
            tests=_diff(row, "test_patch") if label_of(row["test_patch"]) else "",
            image=named or image(known["instance_id"]),
        )  # fmt: skip

    return read


def _r2e(row: Row) -> Instance:
    """Tests and their expected outcomes are those of the image; the change is told as whole files, old and new."""
    image = _text(row, "docker_image")
    expected, content = (_json(row, name) for name in ("expected_output_json", "parsed_commit_content"))
    passing = [name for name, status in expected.items() if status == "PASSED"]
    repo, commit = label_of(row["repo_name"]), label_of(row["commit_hash"])
    return Instance(
        f"{repo}-{commit}", repo, _text(row, "problem_statement"), _whole_files(content.get("file_diffs")),
        must=tuple(passing), image=image, hidden=("/r2e_tests", "/testbed/r2e_tests"),
    )  # fmt: skip


def _json(row: Row, name: str) -> dict[str, Any]:
    value = row[name]
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RowRejected(f"{name} is no JSON object")
    return value


def _whole_files(files: Any) -> str:
    """The diff of a commit's files that are no tests."""
    made = []
    for file in files if isinstance(files, list) else ():
        try:
            path = file["header"]["file"]["path"]
            old, new = (file[side] or "" for side in ("old_file_content", "new_file_content"))
        except (KeyError, TypeError):
            raise RowRejected("the commit's files cannot be read") from None
        if _TEST_FILE.search(path) or old == new:
            continue
        made.append(file_diff(path, old, new))
    if not made:
        raise RowRejected("the commit changes nothing but tests")
    return "".join(made)


def file_diff(path: str, old: str, new: str) -> str:
    """As git writes it; an empty side is no file."""
    names = (f"a/{path}" if old else "/dev/null", f"b/{path}" if new else "/dev/null")
    mode = "" if old and new else f"{'deleted' if old else 'new'} file mode 100644\n"
    lines = unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), *names)
    body = (line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    return f"diff --git a/{path} b/{path}\n{mode}{''.join(body)}"


def _dockerhub(owner: str, between: str) -> Callable[[str], str]:
    return lambda name: f"docker.io/{owner}/sweb.eval.x86_64.{name.replace('__', between).lower()}:latest"


_SMITH = ("instance_id", "repo", "patch", "problem_statement", "FAIL_TO_PASS", "PASS_TO_PASS")
_BENCH = (*_SMITH, "base_commit", "test_patch")
_NAMES = ("image_name", "docker_image")
_KINDS = {"domain": "agentic", "kinds": ("patch",)}
_R2E = (
    "repo_name", "docker_image", "commit_hash", "parsed_commit_content", "expected_output_json", "problem_statement",
)  # fmt: skip
_ALL = [
    SweTable("swe_smith", "SWE-bench/SWE-smith", columns=_SMITH, read=_smith, optional=("image_name",), **_KINDS),
    SweTable(
        "swe_gym", "SWE-Gym/SWE-Gym", columns=_BENCH, read=_bench(_dockerhub("xingyaoww", "_s_")), optional=_NAMES,
        **_KINDS,
    ),
    SweTable(
        "swe_bench", "princeton-nlp/SWE-bench", columns=_BENCH, read=_bench(_dockerhub("swebench", "_1776_")),
        optional=_NAMES, **_KINDS,
    ),
    SweTable(
        "swe_rebench", "nebius/SWE-rebench", columns=_BENCH, read=_bench(), optional=(*_NAMES, "install_config"),
        train="filtered", **_KINDS,
    ),
    SweTable("r2e_gym", "R2E-Gym/R2E-Gym-Subset", columns=_R2E, read=_r2e, **_KINDS),
]  # fmt: skip
TABLES: dict[str, SweTable] = {one.name: one for one in _ALL}
