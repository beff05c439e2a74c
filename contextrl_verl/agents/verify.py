"""Whether a patch resolves a task: what of it counts is applied in a fresh box, and the checks are run there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from enum import Enum
from typing import NamedTuple

from contextrl_verl.agents.observe import observe
from contextrl_verl.agents.path_policy import Refused, kept, restored
from contextrl_verl.agents.pytest_run import not_passed, run_tests
from contextrl_verl.agents.task import ForgeChecks, SweTask, TableChecks
from contextrl_verl.errors import ConfigError
from contextrl_verl.sandbox.box import Box, Sandbox


class Reason(str, Enum):
    """Why a verdict is what it is."""

    RESOLVED = "resolved"
    EMPTY = "empty"  # nothing was changed, or nothing but protected paths
    OUTSIDE = "outside"  # the patch names a place outside the repository
    SYMLINK = "symlink"
    SUBMODULE = "submodule"
    UNREADABLE = "unreadable"  # no diff in git's format
    NOT_APPLIED = "not_applied"
    WRONG = "wrong"  # a call or a test did not give what it should
    MISSING = "missing"  # a test of the task was not run
    NO_REPORT = "no_report"  # the process of the checks ended before it said anything
    CANARY = "canary"  # a test that has to fail passed
    TAMPERED = "tampered"  # the tests changed while they ran
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT = "output"

    @property
    def cheat(self) -> bool:
        """Whether no honest repair ends so."""
        return self in (Reason.OUTSIDE, Reason.SYMLINK, Reason.SUBMODULE, Reason.CANARY, Reason.TAMPERED)


class Verdict(NamedTuple):
    """``dropped`` counts edits of protected paths that were left out, by kind; a ``detail`` is a sentence."""

    resolved: bool
    reason: Reason
    detail: str = ""
    seconds: float = 0.0
    dropped: Mapping[str, int] = {}


def verify(task: SweTask, patch: str, sandbox: Sandbox, *, unchanged: bool = False) -> Verdict:
    """Judge a patch that the host took from the agent's box; ``unchanged`` judges the code as it is, without one.

    What the repaired code does to its box is a verdict. Raises InfrastructureError when the sandbox fails, ConfigError
    for a task that cannot be judged on this machine.
    """
    started = time.monotonic()
    checks, tests, more = task.checks, "", ()
    if isinstance(checks, TableChecks):
        tests, more = checks.test_patch, checks.protected
    if task.unfit:
        raise ConfigError(f"task {task.unfit}")
    try:
        counted = kept(patch, task.reference, tests, more)
    except Refused as error:
        return Verdict(False, Reason(error.reason), error.detail, time.monotonic() - started)
    if unchanged or counted.patch:
        reason, detail = _judged(task, "" if unchanged else counted.patch, tests, sandbox)
    else:
        reason, detail = Reason.EMPTY, "only protected paths were changed" if counted.dropped else "nothing was changed"
    return Verdict(reason is Reason.RESOLVED, reason, detail, time.monotonic() - started, counted.dropped)


def _judged(task: SweTask, patch: str, tests: str, sandbox: Sandbox) -> tuple[Reason, str]:
    with closing(sandbox.start(task.start_base())) as box:
        patches = {"the patch": patch, "the reference's settings": restored(task.reference), "the task's tests": tests}
        for name, text in patches.items():
            done = box.run("git apply --whitespace=nowarn -", stdin=text) if text else None
            if done and done.returncode:
                return Reason.NOT_APPLIED, f"{name} cannot be applied: {done.output[:300].strip()}"
        return _answered(box, task.checks) if isinstance(task.checks, ForgeChecks) else _tested(box, task.checks)


def _answered(box: Box, checks: ForgeChecks) -> tuple[Reason, str]:
    (found,) = observe(box, checks.module, [({}, [question.call for question in checks.questions])])
    if found is None or len(found) != len(checks.questions):
        return Reason.NO_REPORT, f"{checks.module} cannot be imported, or ended the process that calls it"
    wrong = [
        question.call.text for question, got in zip(checks.questions, found, strict=True) if got != question.expected
    ]
    return _told(wrong, len(found), "calls give another result")


def _tested(box: Box, checks: TableChecks) -> tuple[Reason, str]:
    run = run_tests(box, checks)
    if run.broken:
        return Reason(run.finished.ended or run.broken), run.detail
    bad = not_passed(checks.fail_to_pass, run.outcomes, ("passed",))
    bad |= not_passed(checks.pass_to_pass, run.outcomes, ("passed", "xfail"))
    reason, detail = _told(list(bad), len(checks.fail_to_pass) + len(checks.pass_to_pass), "tests did not pass")
    return (Reason.MISSING if bad and set(bad.values()) == {"missing"} else reason), detail


def _told(wrong: list[str], all_of: int, what: str) -> tuple[Reason, str]:
    if not wrong:
        return Reason.RESOLVED, ""
    return Reason.WRONG, f"{len(wrong)} of {all_of} {what}, the first {wrong[0][:200]}"
