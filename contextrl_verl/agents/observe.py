"""Asks a library in a box what its calls give: questions go in, plain JSON comes out, and it is compared out here."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from contextrl_verl.agents.task import Call, Outcome
from contextrl_verl.sandbox.box import Box

ANSWERS = "/tmp/answers"
# A question may take so long, and so long what comes before the first one.
QUESTION_SECONDS, START_SECONDS = 10, 20
# The working folder's own json.py or pytest.py must not be taken for the real one; Python 3.11 has a switch for that.
_FIRST = "import sys\nsys.path[:] = [folder for folder in sys.path if folder]\n"
_outcomes = TypeAdapter(list[Outcome])


@cache
def inside(name: str) -> str:
    """The text of a script that runs in a box, as the argument of ``python -c``."""
    return _FIRST + (Path(__file__).parent / "inside" / f"{name}.py").read_text("utf-8")


def answers(box: Box, questions: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What inside/observe.py says to each question; None where it has no answer."""
    # Sets come in the order of their hashes.
    script = f"PYTHONHASHSEED=0 python -s -c {shlex.quote(inside('observe'))} {ANSWERS}"
    seconds = START_SECONDS + QUESTION_SECONDS * len(questions)
    box.run(f"rm -rf {ANSWERS}; {script}", stdin=json.dumps(questions), seconds=seconds)
    found: list[Any] = [None] * len(questions)
    for line in read_or_nothing(box, ANSWERS).splitlines():
        # The library's code may write there what it likes; it gains nothing, as it knows no expected value.
        try:
            number, answer = json.loads(line)
            found[number] = answer
        except (ValueError, TypeError, IndexError, RecursionError):
            continue
    return found


def observe(
    box: Box, module: str, questions: Iterable[tuple[Mapping[str, str], Sequence[Call]]]
) -> list[list[Outcome] | None]:
    """What calls of a module give, each question in a new process; None where that was ended or crashed.

    A question is texts that some of the library's files have instead of those on disk, by path, and the calls.
    """
    asked = [{"module": module, "files": files, "calls": calls} for files, calls in questions]
    return [_read(answer) for answer in answers(box, asked)]


def _read(answer: Any) -> list[Outcome] | None:
    try:
        return _outcomes.validate_python(answer)
    except ValidationError:
        return None


def read_or_nothing(box: Box, path: str) -> bytes:
    """A file of the box; nothing when what ran there left none, or one that was made to fill this process's memory."""
    try:
        box.run(f"find {path} -size +32M -delete")
        return box.read(path)
    except OSError:
        return b""
