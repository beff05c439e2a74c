"""The buggy commit that several issues share, and where each one's bug lies in it.

The pairs need runs on the same repository, commit, file and function that mend different things. So a commit holds the
bugs of many issues at once, two to four of them in one function; an issue describes one bug and its agent mends only
that one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from data_prep.common.funnel import Stage
from data_prep.forge.bugs import Batch, Bug
from data_prep.forge.mutate import Function, Mutation, apply
from data_prep.forge.probe import Call, Outcome, observe
from data_prep.forge.sandbox import Sandbox

ISSUES_PER_COMMIT = 12


@dataclass(frozen=True)
class Fix:
    """Lines ``first`` to ``first + len(removed) - 1`` of the commit's file become ``added``."""

    first: int
    removed: tuple[str, ...]
    added: tuple[str, ...]

    def on(self, text: str) -> str:
        lines = text.split("\n")
        start = self.first - 1
        assert tuple(lines[start : start + len(self.removed)]) == self.removed
        return "\n".join([*lines[:start], *self.added, *lines[start + len(self.removed) :]])


@dataclass(frozen=True)
class Issue:
    """One bug of a commit.

    Attributes:
        bug: what is wrong; its function's lines are those of the commit's file.
        text: of the commit's file.
        fix: the change that mends it.
        controls: calls that the commit's bugs do not change.
    """

    bug: Bug
    text: str
    fix: Fix
    controls: tuple[tuple[Call, Outcome], ...]


def packed(batches: list[Batch], per_commit: int = ISSUES_PER_COMMIT) -> list[list[Batch]]:
    """Batches put together into commits, those of the same file close to each other, one of a function per commit."""
    commits: list[list[Batch]] = []
    for batch in sorted(batches, key=lambda batch: batch.function.path):
        for commit in commits:
            room = per_commit - sum(len(other.bugs) for other in commit)
            if len(batch.bugs) <= room and all(other.function != batch.function for other in commit):
                commit.append(batch)
                break
        else:
            commits.append([batch])
    return commits


def build(sandbox: Sandbox, batches: list[Batch], originals: dict[str, str], stage: Stage) -> tuple[str, list[Issue]]:
    """Commit the library with all bugs; the commit's hash, and the issues whose bug shows as before beside all others.

    The working folder must hold the original files; it holds the commit afterwards.
    """
    mutations: dict[str, list[Mutation]] = {}
    for batch in batches:
        mutations.setdefault(batch.function.path, []).extend(bug.mutation for bug in batch.bugs)
    texts = {path: apply(originals[path], found) for path, found in mutations.items()}
    for path, text in texts.items():
        (sandbox.work / path).write_bytes(text.encode("utf-8"))
    commit = sandbox.commit("Import the sources")
    sandbox.compile(list(texts))
    issues: list[Issue] = []
    for batch in batches:
        path = batch.function.path
        function = _moved(batch.function, texts[path])
        for bug in batch.bugs:
            others = [mutation for mutation in mutations[path] if mutation != bug.mutation]
            fix = _difference(texts[path], apply(originals[path], others))
            kept = _checks(sandbox, path, texts[path], fix, bug)
            controls = [call for call, _ in batch.controls]
            if function is None or not kept.checks:
                stage.drop("disturbed by another bug of the commit", {"function": batch.function.qualname})
                continue
            same = tuple(
                pair for pair, now in zip(batch.controls, observe(sandbox, controls), strict=True) if now == pair[1]
            )
            stage.keep()
            issues.append(Issue(replace(kept, function=function), texts[path], fix, same))
    return commit, issues


def _checks(sandbox: Sandbox, path: str, text: str, fix: Fix, bug: Bug) -> Bug:
    """The bug with those checks that hold in the commit: wrong as it is, right once mended."""
    calls = [check.call for check in bug.checks]
    before = observe(sandbox, calls)
    (sandbox.work / path).write_bytes(fix.on(text).encode("utf-8"))
    after = observe(sandbox, calls)
    (sandbox.work / path).write_bytes(text.encode("utf-8"))
    holding = [
        check
        for check, wrong, right in zip(bug.checks, before, after, strict=True)
        if right == check.expected and wrong == check.actual
    ]
    return replace(bug, checks=tuple(holding))


def _moved(function: Function, text: str) -> Function | None:
    """The function with its lines in ``text``; by name, and of several the nearest to its old place."""
    owner, _, name = function.qualname.rpartition(".")
    found: list[ast.FunctionDef] = []
    for node in ast.parse(text).body:
        body = node.body if isinstance(node, ast.ClassDef) and node.name == owner else [node] if not owner else []
        found += [member for member in body if isinstance(member, ast.FunctionDef) and member.name == name]
    if not found:
        return None
    node = min(found, key=lambda member: abs(member.lineno - function.first))
    assert node.end_lineno is not None
    return replace(function, first=node.lineno, last=node.end_lineno)


def same_ends(one: Sequence[Any], other: Sequence[Any]) -> tuple[int, int]:
    """How many items are the same at the start, and of the rest at the end."""

    def same(pairs: Iterable[tuple[Any, Any]]) -> int:
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    start = same(zip(one, other, strict=False))
    return start, same(zip(one[start:][::-1], other[start:][::-1], strict=False))


def _difference(before: str, after: str) -> Fix:
    """The smallest run of whole lines that turns ``before`` into ``after``."""
    a, b = before.split("\n"), after.split("\n")
    start, end = same_ends(a, b)
    return Fix(start + 1, tuple(a[start : len(a) - end]), tuple(b[start : len(b) - end]))
