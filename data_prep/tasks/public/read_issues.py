"""Tables of issues, as SWE-bench lays them out, as questions for a patch."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from data_prep.images.sources.columns import label_of
from data_prep.images.sources.types import RowRejected
from data_prep.tasks.public.record import Question, Reader
from data_prep.tasks.public.reverse_diff import DiffError, reverse_diff

COLUMNS = ("instance_id", "repo", "patch", "problem_statement", "FAIL_TO_PASS", "PASS_TO_PASS")
OPTIONAL = (
    "base_commit", "image_name", "test_patch", "version", "environment_setup_commit", "hints_text", "created_at",
)  # fmt: skip
_TESTS = ("FAIL_TO_PASS", "PASS_TO_PASS")
Name = Callable[[str], str]


def issues(*, image: Name | None = None, introduces: bool = False) -> Reader:
    """A reader of such a table.

    Args:
        image: name of the container image of an instance id, where the table has no ``image_name``.
        introduces: whether ``patch`` makes the bug; the answer is then its reverse.
    """

    def read(example: Mapping[str, Any]) -> Iterator[Question]:
        identity, text = label_of(example["instance_id"]), label_of(example["problem_statement"])
        if not identity:
            raise RowRejected("no instance_id")
        if not text:
            raise RowRejected("no problem statement")
        patch = example["patch"]
        if not isinstance(patch, str) or not patch.strip():
            raise RowRejected("no patch")
        try:
            # Also where it is not needed: a diff that cannot be reversed is damaged, or not of text alone.
            backwards = reverse_diff(patch)
        except DiffError as error:
            raise RowRejected("the patch cannot be read", str(error)) from None
        fix = backwards if introduces else patch
        instance: dict[str, Any] = {name: label_of(example.get(name)) for name in OPTIONAL if example.get(name)}
        instance |= {name: tests_of(example[name]) for name in _TESTS}
        instance |= {"instance_id": identity, "repo": label_of(example["repo"]), "problem_statement": text}
        if image and not instance.get("image_name"):
            instance["image_name"] = image(identity)
        # Tools that apply a diff want the end of its last line.
        yield Question(text, fix.strip("\n") + "\n", "patch", instance=instance)

    return read


def tests_of(value: Any) -> list[str]:
    """Names of tests from a list, or from its JSON or Python text; raises RowRejected."""
    if isinstance(value, str):
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(value or "[]")
                break
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    value = [] if value is None else value
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise RowRejected("the tests are no list of names", str(value)[:80])
    return value


def swe_gym_image(instance_id: str) -> str:
    """As SWE-Gym's images are named on Docker Hub."""
    return f"docker.io/xingyaoww/sweb.eval.x86_64.{instance_id.replace('__', '_s_').lower()}:latest"


def swe_bench_image(instance_id: str) -> str:
    """As SWE-bench's images are named on Docker Hub."""
    return f"docker.io/swebench/sweb.eval.x86_64.{instance_id.replace('__', '_1776_').lower()}:latest"
