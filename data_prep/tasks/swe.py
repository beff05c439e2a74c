"""Rows of repair tasks for an agent in a sandbox: read or made, tried with and without their repair, split, written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from pydantic import Field

import contextrl_verl
from contextrl_verl.agents.task import AGENT_NAME, DATA_SOURCE, SweTask, read_task
from contextrl_verl.agents.verify import Reason, verify
from contextrl_verl.errors import ConfigError
from contextrl_verl.sandbox import open_sandbox
from contextrl_verl.sandbox.box import InfrastructureError, Limits, Sandbox
from data_prep.common.funnel import Funnel
from data_prep.common.pipeline import Done, fingerprint, remove, run_parts, total
from data_prep.common.splits import assign_components
from data_prep.images.sources.base import SourceOptions
from data_prep.report.page import Example, Histogram, write_report
from data_prep.tasks import rows
from data_prep.tasks.swe_forge import forge_drafts, plan_forge
from data_prep.tasks.swe_table_tasks import Sources, plan_tables, table_drafts

Source = Literal["forge", "table"]
# A test that fails once in ten runs is found in a quarter of the cases; a better share costs a run of each task more.
TRIES = 3
FORGE_TASKS = 200
_SHOWN = 30
_DRAFTS = {"forge": forge_drafts, "table": table_drafts}


class SweSettings(rows.RowSettings):
    """What tasks to make, and from what.

    Attributes:
        max_tokens: of an issue; the agent loop writes the rest of the prompt.
        source: how a table is read; ``source.limit`` is also the number of tasks of the forge (0: 200).
        table: the set whose columns it has, :data:`data_prep.tasks.swe_tables.TABLES`; ``path`` of its files.
        library: of the forge, an installed distribution of plain Python.
        sandbox: the rung on which tasks are tried, see :mod:`contextrl_verl.sandbox`.
    """

    source: SourceOptions = SourceOptions()
    table: str = ""
    path: str = ""
    machine: Sources = Sources()
    library: str = "rich"
    sandbox: str = "auto"
    limits: Limits = Field(default_factory=Limits)


class Tried(NamedTuple):
    """Why a task is none, empty if it is one; ``seconds`` of one verification."""

    reason: str
    detail: str = ""
    seconds: float = 0.0


def swe_rows(
    source: Source,
    out: Path,
    settings: SweSettings,
    *,
    report: Path | None = None,
    keep_work: bool = False,
    **run: Any,
) -> dict[str, Any]:
    """Write rows for training to ``out``, those for validation, the folders they start from (``NAME.bases``) and a
    summary beside it; the summary is returned. A killed run goes on where it was.

    Args:
        report: folder for a page about them.
        run: what :func:`data_prep.common.pipeline.run_parts` takes.

    Raises:
        ConfigError: nothing to read, no sandbox, or no task left for a file; the files are then as they were.
    """
    rows.check_out(out, settings.validation)
    open_sandbox(settings.sandbox, settings.limits)
    bases = out.resolve().with_name(f"{out.stem}.bases")
    wanted = (settings.source.limit or FORGE_TASKS) if source == "forge" else 0
    if source == "forge":
        parts = plan_forge(settings.library, settings.seed)
    else:
        parts = plan_tables(settings.table, settings.path, settings.source, settings.machine)
    shared = {"kind": source, "bases": str(bases), "settings": settings.model_dump(mode="json", exclude={"source"})}
    parts = [{**shared, **part} for part in parts]
    folder = out.with_name(f".{out.name}.work") / fingerprint([contextrl_verl.__version__, parts])
    done = _enough(parts, folder, wanted, **run)
    funnel = total(done)
    tasks = _distinct(done, wanted, funnel)
    funnel.check()
    splits = _splits(tasks, settings)
    files = {"train": out} | ({"validation": rows.validation_file(out)} if settings.validation else {})
    for split in files:
        if split not in splits:
            raise ConfigError(
                f"{len(tasks)} tasks are left of the {source}, and none is for {split}; {rows.reasons(funnel)}. Fix: "
                "mend what the counts name, ask for more (--limit), or set --validation."
            )

    def of(split: str) -> Iterator[dict[str, Any]]:
        kept = (task for task, its in zip(tasks, splits, strict=True) if its == split)
        return (_row(task, index, split) for index, task in enumerate(kept))

    rows.write_row_files({file: of(split) for split, file in files.items()}, pa.schema([*rows.COLUMNS, rows.AGENT]))
    used = {Path(one["task"]["base"]["folder"]).name for one in tasks}
    said = {"source": source, "bases": len(used), "settings": settings.model_dump(mode="json")}
    summary = rows.write_summary(out, funnel, splits, **said)
    if report is not None:
        _write_page(report, tasks, splits, funnel, source)
    if not keep_work:
        # In this order: parts that are done count on their bases.
        remove(folder.parent)
        for base in bases.iterdir():
            if base.name not in used:
                shutil.rmtree(base, ignore_errors=True)
    return summary


def _enough(parts: list[dict[str, Any]], folder: Path, wanted: int, **run: Any) -> list[Done]:
    """The parts done; if so many tasks are ``wanted``, no more of the first parts than it takes."""
    size = 2 + wanted // 3 if wanted else len(parts)
    while True:
        done = run_parts(folder, parts[:size], _part, title="Trying tasks", suffix=".jsonl", **run)
        left = sum(stage.left for one in done for stage in one.funnel if stage.name == "tried")
        if left >= wanted or size >= len(parts):
            return done
        size = min(len(parts), 4 * size, size + 2 + size * (wanted - left) // max(left, 1))


def _part(payload: dict[str, Any], path: Path) -> Funnel:
    """Make the tasks of a payload and try them; those that stay go to ``path``, one a line."""
    settings, bases, funnel = SweSettings(**payload["settings"]), Path(payload["bases"]), Funnel()
    sandbox, tokens = open_sandbox(settings.sandbox, settings.limits), rows.token_counter(settings.tokenizer)
    with path.open("w", encoding="utf-8") as file:
        for draft in _DRAFTS[payload["kind"]](payload, bases, funnel):
            stage, named = funnel.stage("tried", "tasks"), {"instance": draft.task.instance_id}
            try:
                if tokens(draft.task.issue) > settings.max_tokens:
                    tried = Tried(f"the issue has more than {settings.max_tokens} tokens")
                else:
                    tried = try_task(read_task(draft.task.model_dump_json(), bases.parent), sandbox)
            except InfrastructureError as error:
                if error.reason in ("image", "base"):
                    tried = Tried(f"no box of its {error.reason}", error.detail)
                else:
                    stage.fail(error, named)
                    continue
            if tried.reason:
                stage.drop(tried.reason, {**named, "detail": tried.detail})
                continue
            stage.keep()
            kept = {"task": draft.task.model_dump(mode="json"), "commit": draft.commit, "unit": draft.unit}
            file.write(json.dumps({**kept, "seconds": round(tried.seconds, 3)}) + "\n")
    return funnel


def try_task(task: SweTask, sandbox: Sandbox) -> Tried:
    """Check the code as it is, and three times with the reference: a task fails before and passes every time after.

    Raises InfrastructureError.
    """
    before = verify(task, "", sandbox, unchanged=True)
    if before.resolved:
        return Tried("passes without a change", before.detail)
    found = [verify(task, task.reference, sandbox)]
    if found[0].reason is Reason.NOT_APPLIED:
        return Tried("the reference does not apply", found[0].detail)
    found += [verify(task, task.reference, sandbox) for _ in range(TRIES - 1)]
    failed = [one for one in found if not one.resolved]
    if len(failed) == TRIES:
        return Tried(f"never passes: {failed[0].reason.value}", failed[0].detail)
    if failed:
        detail = f"{len(failed)} of {TRIES} runs failed: {failed[0].reason.value} {failed[0].detail}"
        return Tried("flaky: the reference passes sometimes", detail)
    return Tried("", seconds=max(one.seconds for one in found))


def _distinct(done: list[Done], wanted: int, funnel: Funnel) -> list[dict[str, Any]]:
    """What the parts kept, each instance once, and no more than is wanted."""
    stage, kept = funnel.stage("rows", "tasks"), {}
    for part in done:
        for line in part.path.read_text(encoding="utf-8").splitlines():
            found = json.loads(line)
            name = found["task"]["instance_id"]
            if name in kept:
                stage.drop("the same instance again", {"instance": name})
            elif wanted and len(kept) == wanted:
                stage.drop("more than asked for")
            else:
                stage.keep()
                kept[name] = found
    return list(kept.values())


def _splits(tasks: list[dict[str, Any]], settings: SweSettings) -> list[str]:
    """The split of every task: no function of the forge, and no instance or repository of a table, is in both."""
    if not tasks:
        return []
    names = [one["task"]["repository"] if settings.split_by == "repository" else one["unit"] for one in tasks]
    shares = {"train": 1 - settings.validation, "validation": settings.validation}
    return assign_components([(name,) for name in names], shares, seed=settings.seed)


def _row(kept: dict[str, Any], index: int, split: str) -> dict[str, Any]:
    task = SweTask.model_validate(kept["task"])
    row = rows.make_row(
        DATA_SOURCE, task.issue, "coding", task.instance_id, index=index, kind=f"swe_{task.source}", split=split,
        instance_id=task.instance_id, repo=task.repository, base_commit=kept["commit"], image_name=task.base.image,
        task=task.model_dump_json(),
    )  # fmt: skip
    return row | {"agent_name": AGENT_NAME}


def _write_page(folder: Path, tasks: list[dict[str, Any]], splits: list[str], funnel: Funnel, source: Source) -> None:
    repositories: dict[str, int] = {}
    for one in tasks:
        repositories[one["task"]["repository"]] = repositories.get(one["task"]["repository"], 0) + 1
    checks = [one["task"]["checks"] for one in tasks]
    asked = [len(one.get("questions", ())) or len(one["fail_to_pass"]) + len(one["pass_to_pass"]) for one in checks]
    examples = (
        Example(
            one["task"]["instance_id"], (), question=one["task"]["issue"], answer=one["task"]["reference"],
            facts={"split": split, "base": one["task"]["base"], "checks": one["task"]["checks"]},
        )
        for one, split in list(zip(tasks, splits, strict=True))[:_SHOWN]
    )  # fmt: skip
    write_report(
        folder,
        {"source": source, "tasks": len(tasks), "shown": min(len(tasks), _SHOWN)},
        funnel,
        examples,
        title="Repair tasks",
        histograms=[
            Histogram("seconds of a verification", [one["seconds"] for one in tasks]),
            Histogram("checks of a task", asked),
        ],
        tables={"repositories": dict(sorted(repositories.items(), key=lambda item: -item[1])[:40])},
    )
