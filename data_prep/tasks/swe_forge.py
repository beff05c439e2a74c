"""Repair tasks of the forge: small bugs put into an installed library, judged by values that never enter a sandbox."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from contextrl_verl.agents.task import ForgeChecks, Question, SweTask, TaskBase
from data_prep.common.funnel import Funnel
from data_prep.forge.bugs import Issue, screen
from data_prep.forge.library import Library, candidates, find_library
from data_prep.forge.wording import report
from data_prep.forge.workplace import workplace
from data_prep.tasks.swe_bases import Draft, make_base
from data_prep.tasks.swe_tables import file_diff

# An issue shows two of its checks at most; one more must be there that a patch cannot be written for.
FEWEST_CHECKS = 3
_FUNCTIONS = 4


def plan_forge(library: str, seed: int) -> list[dict[str, Any]]:
    """Payloads of all functions of the library, in the order in which they are to be tried."""
    found = find_library(library)
    shared = {"library": library, "version": found.version, "seed": seed}
    count = len(_candidates(library, seed))
    return [{**shared, "numbers": [start, min(start + _FUNCTIONS, count)]} for start in range(0, count, _FUNCTIONS)]


@lru_cache(maxsize=2)
def _candidates(library: str, seed: int) -> list[Any]:
    return candidates(find_library(library), seed)


def forge_drafts(payload: dict[str, Any], bases: Path, funnel: Funnel) -> Iterator[Draft]:
    """The tasks of some functions, with their bases made; what is no task is counted."""
    found, seed = find_library(payload["library"]), payload["seed"]
    every, texts = _candidates(payload["library"], seed), found.texts()
    with workplace(found) as place:
        for number in range(*payload["numbers"]):
            function, mutations = every[number]
            commits, counts = screen(place, function, mutations, texts[function.path], f"{seed}/{number}")
            funnel.add(counts)
            stage = funnel.stage("issues", "issues")
            for at, issues in enumerate(commits):
                for place_in, issue in enumerate(issues):
                    named = f"forge__{found.name}-{number}.{at}.{place_in}"
                    if len(issue.checks) < FEWEST_CHECKS:
                        stage.drop("so few checks that its text shows them all", {"instance": named})
                        continue
                    stage.keep()
                    yield _draft(found, issue, named, bases, f"{seed}/{number}/{at}/{place_in}")


def _draft(found: Library, issue: Issue, named: str, bases: Path, seed: str) -> Draft:
    function = issue.function

    def fill(folder: Path) -> None:
        for path in found.files:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found.root / path, folder / path)
        (folder / function.path).write_bytes(issue.text.encode())

    folder, commit = make_base(bases, fill)
    asked = [*((check.call, check.expected) for check in issue.checks), *issue.controls]
    questions = tuple(Question(call=call, expected=outcome) for call, outcome in asked)
    packages = {Path(path).parts[0].removesuffix(".py") for path in found.files}
    task = SweTask(
        instance_id=named,
        repository=f"forge/{found.name}",
        base=TaskBase(folder=f"{bases.name}/{folder}", packages=tuple(sorted(packages))),
        issue=report(issue, random.Random(f"{seed}/issue")),
        checks=ForgeChecks(module=function.module, questions=questions),
        reference=file_diff(function.path, issue.text, issue.fix.on(issue.text)),
    )
    return Draft(task, commit, f"{function.path}:{function.qualname}")
