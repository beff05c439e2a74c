"""One repair task for an agent: where the repository lies, what is reported, and how a repair is judged.

The agent sees ``issue`` and the repository. Checks, expected values, tests and the reference stay on the host.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contextrl_verl.agents.copies import copies_of
from contextrl_verl.errors import ConfigError, told_by
from contextrl_verl.sandbox.box import Base

AGENT_NAME, DATA_SOURCE = "contextrl_swe_agent", "contextrl/swe"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
Name = Annotated[str, Field(min_length=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Call(NamedTuple):
    """One call of the library as Python source."""

    imports: tuple[str, ...]
    text: str


class Outcome(NamedTuple):
    """What a call gave: the text of a ``value``, or an ``error``'s name and message; ``bad`` when it says nothing."""

    kind: Literal["value", "error", "bad"]
    text: str

    @property
    def usable(self) -> bool:
        return self.kind != "bad"


class Question(_Frozen):
    """A call and what a right repair answers."""

    call: Call
    expected: Outcome


class ForgeChecks(_Frozen):
    """Calls of ``module``; their expected values, of one version of ``python``, never enter a sandbox."""

    kind: Literal["forge"] = "forge"
    python: str = Field(default=PYTHON, pattern=r"3\.\d+")
    module: Name
    questions: tuple[Question, ...] = Field(min_length=1)


class TableChecks(_Frozen):
    """Tests of the repository: those that a repair makes pass, and those that have to stay so, by pytest's ids.

    ``test_patch`` brings the test files. ``test_command`` is a pytest command, of which the options, the interpreter
    and variables in front are used; ``setup`` is shell text before it (as ``. /opt/env/bin/activate``). ``plugins`` are
    modules that the tests need, as ``pytest_asyncio``: none is loaded by itself. ``protected`` are more paths that a
    repair must not touch (shell patterns, relative to the repository).
    """

    kind: Literal["table"] = "table"
    test_command: Name = "pytest"
    setup: str = ""
    fail_to_pass: tuple[Name, ...] = Field(min_length=1)
    pass_to_pass: tuple[Name, ...] = ()
    test_patch: str = ""
    plugins: tuple[Name, ...] = ()
    protected: tuple[Name, ...] = ()
    seconds: float = Field(default=300, gt=0)

    @model_validator(mode="after")
    def _once(self) -> TableChecks:
        if both := set(self.fail_to_pass) & set(self.pass_to_pass):
            raise ValueError(f"{min(both)} is in both fail_to_pass and pass_to_pass")
        return self


class TaskBase(_Frozen):
    """``folder`` is the repository at its one commit (relative to the file of tasks until ``read_task``), ``image`` an
    unpacked image's folder or an image's name. Masked are the paths ``hidden`` and whatever else this machine has of
    the top-level modules ``packages``: copies of the code under repair would show the agent the answer."""

    folder: str | None = None
    image: str | None = None
    hidden: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _somewhere(self) -> TaskBase:
        if not (self.folder or self.image):
            raise ValueError("neither a folder nor an image")
        return self


class SweTask(_Frozen):
    """A task; ``reference`` is the patch that resolves it, which the agent never sees."""

    instance_id: Name
    repository: Name
    base: TaskBase
    issue: Name
    checks: Annotated[ForgeChecks | TableChecks, Field(discriminator="kind")]
    reference: str

    @property
    def source(self) -> Literal["forge", "table"]:
        return self.checks.kind

    @property
    def unfit(self) -> str:
        """Why this machine cannot judge it; empty if it can."""
        if not isinstance(self.checks, ForgeChecks) or self.checks.python == PYTHON:
            return ""
        return (
            f"{self.instance_id} holds outcomes of Python {self.checks.python}, and this is {PYTHON}, whose messages "
            "differ. Fix: make the tasks with the Python that trains"
        )

    def start_base(self) -> Base:
        """What a box of this task starts from."""
        folder = Path(self.base.folder) if self.base.folder else None
        return Base(folder=folder, image=self.base.image, hidden=(*self.base.hidden, *copies_of(self.base.packages)))


def read_task(text: str, folder: str | Path) -> SweTask:
    """The task in a row's ``extra_info["task"]``, its base folder made absolute against ``folder``.

    Raises ConfigError for text that is no task.
    """
    try:
        task = SweTask.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(
            f"extra_info.task is no task of contextrl tasks swe: {told_by(error)}. Fix: make the file again with "
            "contextrl tasks swe"
        ) from None
    if task.base.folder is None:
        return task
    base = task.base.model_copy(update={"folder": str(Path(folder, task.base.folder).resolve())})
    return task.model_copy(update={"base": base})
