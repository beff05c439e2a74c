"""From a library to a file of runs: screen functions, commit bugs, let agents work, write.

A run is a record in the format that mini-swe-agent writes.
"""

from __future__ import annotations

import gzip
import json
import lzma
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from contextrl_verl.pairs.whole_file import write_whole
from contextrl_verl.sandbox import open_sandbox
from data_prep.common.funnel import Funnel, Stage
from data_prep.forge.agent import Agent, Habits
from data_prep.forge.bugs import Issue, screen
from data_prep.forge.library import ForgeError, Library, candidates, find_library
from data_prep.forge.mutate import Function, Mutation
from data_prep.forge.workplace import LIMITS, Workplace, workplace

# Attempts on an issue after the first mostly end with another patch.
_LATER = Habits(gives_up=0.7)


class Forged(NamedTuple):
    """How many runs were written, how many of them mend their issue, on how many commits; and the counts."""

    runs: int
    resolved: int
    commits: int
    funnel: Funnel


def forge(
    library: str,
    runs: int,
    out: Path,
    seed: int,
    workers: int | None = None,
    progress: bool = True,
    attempts: int = 1,
) -> Forged:
    """Write ``runs`` runs to ``out`` (.jsonl, or .jsonl.gz, .jsonl.xz, .jsonl.zst), ``attempts`` of each issue.

    The same library version, Python, seed and numbers give the same bytes, whatever the number of workers.
    Raises ForgeError for a library that is not there or too small, and leaves nothing under the name of ``out`` then.
    """
    compress = _compressor(out)
    found = find_library(library)
    open_sandbox(limits=LIMITS)  # says what is missing before any process is started
    funnel = Funnel()
    with tempfile.TemporaryDirectory(prefix="forge-") as folder:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers or os.cpu_count(), context, _start, (folder, found)) as pool:
            try:
                made = list(_runs(pool, found, runs, seed, funnel, progress, attempts))
            finally:
                pool.shutdown(cancel_futures=True)
    funnel.check()
    lines = (json.dumps(run, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n" for run in made)
    write_whole(out, compress(b"".join(lines)))
    commits = {run["base_commit"] for run in made}
    return Forged(len(made), sum(run["resolved"] for run in made), len(commits), funnel)


def _compressor(out: Path) -> Callable[[bytes], bytes]:
    if out.name.endswith(".jsonl.zst"):
        import zstandard

        return zstandard.ZstdCompressor(level=10).compress
    known = {".jsonl": bytes, ".jsonl.gz": partial(gzip.compress, mtime=0), ".jsonl.xz": lzma.compress}
    for ending, compress in known.items():
        if out.name.endswith(ending):
            return compress
    raise ForgeError(f"--out {out}: write to a name that ends in {', '.join(known)} or .jsonl.zst")


def _runs(
    pool: ProcessPoolExecutor, found: Library, runs: int, seed: int, funnel: Funnel, progress: bool, attempts: int
) -> Iterator[dict[str, Any]]:
    """The records in order, those of one issue under one id; functions are worked on until there are enough."""
    listed = candidates(found, seed)
    works = [(*candidate, f"{seed}/{number}", attempts) for number, candidate in enumerate(listed)]
    issues, written, stage = 0, 0, Stage(name="runs")
    with tqdm(total=runs, unit="run", disable=not progress) as bar:
        for made, counts in pool.map(_work, works):
            funnel.add(counts)
            for number, run in enumerate(made):
                if written == runs:
                    stage.drop("more than asked for")
                    continue
                issues += number % attempts == 0
                written += 1
                stage.keep()
                bar.update()
                yield {"instance_id": f"forge__{found.name}-{issues}", **run}
            if written == runs:
                funnel.add(Funnel(stages=[stage]))
                return
    raise ForgeError(
        f"--runs {runs}: {found.name} {found.version} gives only {written} runs with --seed {seed}, although all of "
        f"its {len(listed)} functions were tried; ask for fewer, or name a larger library"
    )


_worker: dict[str, Any] = {}


def _start(folder: str, found: Library) -> None:
    """Opens the worker's own box, which ends with the worker."""
    opened = workplace(found, folder)
    _worker.update(opened=opened, place=opened.__enter__(), library=found, texts=found.texts())


def _work(item: tuple[Function, list[Mutation], str, int]) -> tuple[list[dict[str, Any]], Funnel]:
    """Commit the bugs of a function and let an agent work on each issue, again for each attempt; records without their
    ``instance_id``, the attempts of an issue next to each other."""
    function, mutations, seed, attempts = item
    place, found, text = _worker["place"], _worker["library"], _worker["texts"][function.path]
    commits, funnel = screen(place, function, mutations, text, seed)
    made = []
    for number, issues in enumerate(commits):
        place.write({function.path: issues[0].text})
        commit = place.commit("Import the sources")
        for (at, issue), attempt in product(enumerate(issues), range(attempts)):
            agent = Agent(place, issue, f"{seed}/{number}/{at}", _LATER if attempt else None, attempt)
            patch = agent.work()
            calls = sum(message["role"] == "assistant" for message in agent.messages)
            stats = {"instance_cost": 0.0, "api_calls": calls}
            record = {
                "trajectory_format": "mini-swe-agent-1",
                "resolved": _resolved(place, issue, patch),
                "base_commit": commit,
                "forge": {"library": found.name, "version": found.version},
                "info": {"exit_status": "Submitted", "submission": patch, "model_stats": stats},
                "messages": agent.messages,
            }
            made.append(record)
        place.write({function.path: text})
    return made, funnel


def _resolved(place: Workplace, issue: Issue, patch: str) -> bool:
    """Whether the submitted diff, applied to the commit, makes the issue's calls right and leaves the others."""
    place.restore()
    applied = patch and not place.run("git apply -", patch).returncode
    wanted = [*((check.call, check.expected) for check in issue.checks), *issue.controls]
    (observed,) = place.observe(issue.function.module, [({}, [call for call, _ in wanted])])
    place.restore()
    return bool(applied) and observed == [outcome for _, outcome in wanted]
