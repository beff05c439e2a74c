"""Tasks on the repository of cheats.py, and boxes in which an agent leaves something."""

from __future__ import annotations

from contextlib import closing

from cheats import REFERENCE, Cheat

from contextrl_verl.agents.task import Call, ForgeChecks, Outcome, Question, SweTask, TableChecks, TaskBase

QUESTIONS = [((1, 2), "3"), ((20, 22), "42"), ((-5, 2), "-3"), ((0, 0), "0")]
FAIL_TO_PASS, PASS_TO_PASS = ("tests/test_core.py::test_add",), ("tests/test_core.py::test_zero",)


def task(folder, kind="forge", reference=REFERENCE, **more):
    """A task of the bug in ``lib/core.py``."""
    if kind == "forge":
        questions = [
            Question(call=Call(("from lib.core import add",), f"add{values}"), expected=Outcome("value", text))
            for values, text in QUESTIONS
        ]
        checks = ForgeChecks(module="lib.core", questions=questions, **more)
    else:
        checks = TableChecks(**{"fail_to_pass": FAIL_TO_PASS, "pass_to_pass": PASS_TO_PASS, **more})
    base = TaskBase(folder=str(folder))
    return SweTask(
        instance_id="lib-1", repository="x/lib", base=base, issue="add is wrong", checks=checks, reference=reference
    )


def left_by(sandbox, task, files, command=""):
    """The diff of a box in which an agent wrote files and ran a command."""
    with closing(sandbox.start(task.start_base())) as box:
        for name, text in files.items():
            box.write(name, text.encode())
        if command:
            box.run(command)
        return box.diff()


def patch_of(sandbox, task, cheat: Cheat, port=0):
    files = {name: text.replace("{port}", str(port)) for name, text in cheat.files.items()}
    return left_by(sandbox, task, files, cheat.command)
