"""From a library to a file of runs: screen functions, pack bugs into commits, let agents work, write."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.common.funnel import Funnel, Stage
from data_prep.forge.agent import Agent
from data_prep.forge.base import Issue, build, packed
from data_prep.forge.bugs import Batch, Screened, screen
from data_prep.forge.library import ForgeError, Library, find_library
from data_prep.forge.mutate import Function, Mutation, functions
from data_prep.forge.probe import observe
from data_prep.forge.record import record, write_runs
from data_prep.forge.sandbox import Sandbox

DEFAULT_LIBRARY = "rich"


@dataclass(frozen=True)
class Forged:
    """What was written."""

    runs: int
    resolved: int
    commits: int
    funnel: Funnel


@dataclass(frozen=True)
class _Made:
    """What one commit gave."""

    runs: tuple[dict[str, Any], ...]
    issues: Stage


def forge(library: str, runs: int, out: Path, seed: int, workers: int | None = None, progress: bool = True) -> Forged:
    """Write ``runs`` runs to ``out`` (.jsonl, or .jsonl.gz, .jsonl.xz, .jsonl.zst).

    The same library version, Python, seed and number of runs give the same bytes, whatever the number of workers.
    Raises ForgeError for a library that is not there or too small, and leaves nothing under the name of ``out`` then.
    """
    if runs < 1:
        raise ForgeError(f"--runs {runs}: there is nothing to write; ask for at least one run")
    found = find_library(library)
    _need("bash", "git")
    count = workers or os.cpu_count() or 1
    funnel = Funnel()
    with tempfile.TemporaryDirectory(prefix="forge-") as folder:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=(folder, found)) as pool:
            try:
                records = _records(pool, count, found, runs, seed, funnel, progress)
                made = write_runs(out, records)
            finally:
                pool.shutdown(cancel_futures=True)
    funnel.check()
    return Forged(len(made), sum(made), funnel.stage("commits", "commits").left, funnel)


def _records(
    pool: ProcessPoolExecutor, count: int, found: Library, runs: int, seed: int, funnel: Funnel, progress: bool
) -> Iterator[dict[str, Any]]:
    """The records in order; more functions are screened as long as there are too few."""
    waiting = _candidates(found, seed)
    if not waiting:
        raise ForgeError(f"--library {found.name}: it has no function that can be mutated; name a larger library")
    numbered = iter(enumerate(waiting))
    written = tried = 0
    with (
        tqdm(total=len(waiting), unit="function", desc="screening", disable=not progress, leave=False) as screening,
        tqdm(total=runs, unit="run", desc="runs", disable=not progress) as bar,
    ):
        while written < runs:
            # One in six is lost to other bugs of its commit.
            need = math.ceil((runs - written) * 1.2)
            batches: list[Batch] = []
            for result in _in_order(pool, count, _screen, ((item, f"{seed}/{n}") for n, item in numbered)):
                screening.update()
                tried += 1
                funnel.stage("functions", "functions").add(result.functions)
                funnel.stage("mutations", "mutations").add(result.mutations)
                batches += result.batches
                screening.set_postfix(bugs=sum(len(batch.bugs) for batch in batches), refresh=False)
                if sum(len(batch.bugs) for batch in batches) >= need:
                    break
            if not batches:
                raise ForgeError(
                    f"--runs {runs}: {found.name} {found.version} gives only {written} runs with --seed {seed}, "
                    f"although all of its {tried} functions were tried; ask for fewer, or name a larger library"
                )
            commits = ((commit, f"{seed}/commit {n}") for n, commit in enumerate(packed(batches), tried))
            for made in _in_order(pool, count, _work, commits):
                funnel.stage("issues", "issues").add(made.issues)
                stage = funnel.stage("commits", "commits")
                if not made.runs:
                    stage.drop("no issue was left")
                    continue
                stage.keep()
                for run in made.runs:
                    if written == runs:
                        funnel.stage("runs").drop("more than asked for")
                        continue
                    written += 1
                    bar.update()
                    funnel.stage("runs").keep()
                    yield {"instance_id": f"forge__{found.name}-{written}", **run}
                if written == runs:
                    return


def _need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            raise ForgeError(f"{program} is not installed here, and the forge's agents work with it; install {program}")


def _candidates(found: Library, seed: int) -> list[tuple[str, Function, list[Mutation]]]:
    """All functions in random order; those of modules first, because calls of methods are found less often."""
    items = []
    for path in found.modules:
        text = _text(found.root / path)
        if text is not None:
            items += [(path, function, mutations) for function, mutations in functions(path, text)]
    random.Random(f"{seed}/order").shuffle(items)
    return sorted(items, key=lambda item: "." in item[1].qualname)


def _text(path: Path) -> str | None:
    """The text of a module as it is on disk; None for one that is not UTF-8 or has other line ends than newlines."""
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\r" in text or "\f" in text else text


def _in_order(pool: ProcessPoolExecutor, count: int, step: Callable[[Any], Any], items: Iterator[Any]) -> Iterator[Any]:
    """Results in the order of the items, with no more than two items per worker under way."""
    under_way: deque[Future[Any]] = deque()
    try:
        while True:
            while len(under_way) < 2 * count and (item := next(items, None)) is not None:
                under_way.append(pool.submit(step, item))
            if not under_way:
                return
            yield under_way.popleft().result()
    finally:
        for future in under_way:
            future.cancel()


_worker: dict[str, Any] = {}


def _start(folder: str, found: Library) -> None:
    """Makes the worker's own scratch folder with the library in it."""
    sandbox = Sandbox(Path(tempfile.mkdtemp(dir=folder)))
    found.copy_to(sandbox.work)
    sandbox.compile(list(found.modules))
    _worker.update(sandbox=sandbox, library=found)


def _screen(item: tuple[tuple[str, Function, list[Mutation]], str]) -> Screened:
    (path, function, mutations), seed = item
    text = _text(_worker["library"].root / path)
    assert text is not None
    return screen(_worker["sandbox"], function, mutations, text, seed)


def _work(item: tuple[list[Batch], str]) -> _Made:
    """Build a commit and let an agent work on each of its issues."""
    batches, seed = item
    sandbox, found = _worker["sandbox"], _worker["library"]
    originals = {batch.function.path: (found.root / batch.function.path).read_bytes().decode() for batch in batches}
    stage = Stage(name="issues", unit="issues")
    made = []
    try:
        commit, issues = build(sandbox, batches, originals, stage)
        for number, issue in enumerate(issues):
            agent = Agent(sandbox, issue, f"{seed}/{number}")
            patch = agent.work()
            resolved = _resolved(sandbox, issue, patch)
            made.append(record(agent.messages, patch, resolved, commit, found.name, found.version))
    finally:
        sandbox.restore()
        for path, text in originals.items():
            (sandbox.work / path).write_bytes(text.encode("utf-8"))
        sandbox.compile(list(originals))
    return _Made(tuple(made), stage)


def _resolved(sandbox: Sandbox, issue: Issue, patch: str) -> bool:
    """Whether the submitted diff, applied to the commit, makes the issue's calls right and leaves the others."""
    sandbox.restore()
    if not patch or sandbox.run("git apply -", patch).returncode:
        sandbox.restore()
        return False
    calls = [check.call for check in issue.bug.checks] + [call for call, _ in issue.controls]
    wanted = [check.expected for check in issue.bug.checks] + [outcome for _, outcome in issue.controls]
    observed = observe(sandbox, calls)
    sandbox.restore()
    return observed == wanted
