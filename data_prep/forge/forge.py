"""From a library to a file of runs: screen functions, commit bugs, let agents work, write.

A run is a record in the format that mini-swe-agent writes.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import lzma
import multiprocessing
import os
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from contextrl_verl.pairs.whole_file import write_whole
from data_prep.common.funnel import Funnel, Stage
from data_prep.forge.agent import Agent, Habits
from data_prep.forge.bugs import Issue, screen
from data_prep.forge.mutate import Function, Mutation, functions
from data_prep.forge.sandbox import ForgeError, Sandbox

# Attempts on an issue after the first mostly end with another patch.
_LATER = Habits(gives_up=0.7)


class Forged(NamedTuple):
    """How many runs were written, how many of them mend their issue, on how many commits; and the counts."""

    runs: int
    resolved: int
    commits: int
    funnel: Funnel


class Library(NamedTuple):
    """An installed distribution of plain Python; ``files`` of its packages lie under ``root``."""

    name: str
    version: str
    files: tuple[str, ...]
    root: Path

    def texts(self) -> dict[str, str]:
        """The modules by path, without those that are not UTF-8 or whose lines do not all end in a newline."""
        modules = [path for path in self.files if path.endswith(".py")]
        texts = {path: (self.root / path).read_bytes().decode("utf-8", "replace") for path in modules}
        return {path: text for path, text in texts.items() if text.endswith("\n") and not set(text) & set("\r\f\ufffd")}


def find_library(name: str) -> Library:
    """The installed distribution ``name``.

    Raises ForgeError when the name is not a distribution's name, is not installed, or has no plain Python files.
    """
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?", name):
        raise ForgeError(
            f"--library {name!r} is not the name of a distribution; use letters, digits, '.', '_' and '-', as in 'rich'"
        )
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise ForgeError(f"--library {name}: no such distribution is installed; install it with pip") from None
    root = Path(str(found.locate_file(""))).resolve()
    # Not metadata, scripts elsewhere, or byte code.
    listed = [path for path in found.files or () if not {"/", "..", "__pycache__"} & set(path.parts)]
    metadata = (".dist-info", ".egg-info", ".data", ".pth")
    inside = [path for path in listed if not path.parts[0].endswith(metadata) and (root / path).is_file()]
    files = tuple(sorted(map(str, inside)))
    binary = [path for path in files if path.endswith((".so", ".pyd", ".dylib", ".dll"))]
    if binary:
        raise ForgeError(f"--library {name} is not pure Python: it holds {binary[0]}; name another library")
    if not any(path.endswith(".py") for path in files):
        raise ForgeError(
            f"--library {name}: the installed distribution lists no .py file (an editable install lists none); "
            "install it from a wheel, or name another library"
        )
    return Library(re.sub(r"[-_.]+", "-", name).lower(), found.version, files, root)


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
    for program in ("bash", "git"):
        if shutil.which(program) is None:
            raise ForgeError(f"{program} is not installed here, and the forge's agents work with it; install it")
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
    candidates = [item for path, text in found.texts().items() for item in functions(path, text)]
    random.Random(f"{seed}/order").shuffle(candidates)
    # Functions of modules come first, because calls of methods are found less often.
    candidates.sort(key=lambda candidate: "." in candidate[0].qualname)
    works = [(*candidate, f"{seed}/{number}", attempts) for number, candidate in enumerate(candidates)]
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
        f"its {len(candidates)} functions were tried; ask for fewer, or name a larger library"
    )


_worker: dict[str, Any] = {}


def _start(folder: str, found: Library) -> None:
    """Makes the worker's own scratch folder with the library in it."""
    sandbox = Sandbox(Path(tempfile.mkdtemp(dir=folder)))
    for path in found.files:
        target = sandbox.work / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found.root / path, target)
    sandbox.write(texts := found.texts())
    _worker.update(sandbox=sandbox, library=found, texts=texts)


def _work(item: tuple[Function, list[Mutation], str, int]) -> tuple[list[dict[str, Any]], Funnel]:
    """Commit the bugs of a function and let an agent work on each issue, again for each attempt; records without their
    ``instance_id``, the attempts of an issue next to each other."""
    function, mutations, seed, attempts = item
    sandbox, found, text = _worker["sandbox"], _worker["library"], _worker["texts"][function.path]
    commits, funnel = screen(sandbox, function, mutations, text, seed)
    made = []
    for number, issues in enumerate(commits):
        sandbox.write({function.path: issues[0].text})
        commit = sandbox.commit("Import the sources")
        for (place, issue), attempt in product(enumerate(issues), range(attempts)):
            agent = Agent(sandbox, issue, f"{seed}/{number}/{place}", _LATER if attempt else None, attempt)
            patch = agent.work()
            calls = sum(message["role"] == "assistant" for message in agent.messages)
            stats = {"instance_cost": 0.0, "api_calls": calls}
            record = {
                "trajectory_format": "mini-swe-agent-1",
                "resolved": _resolved(sandbox, issue, patch),
                "base_commit": commit,
                "forge": {"library": found.name, "version": found.version},
                "info": {"exit_status": "Submitted", "submission": patch, "model_stats": stats},
                "messages": agent.messages,
            }
            made.append(record)
        sandbox.write({function.path: text})
    return made, funnel


def _resolved(sandbox: Sandbox, issue: Issue, patch: str) -> bool:
    """Whether the submitted diff, applied to the commit, makes the issue's calls right and leaves the others."""
    sandbox.restore()
    applied = patch and not sandbox.run("git apply -", patch).returncode
    wanted = [*((check.call, check.expected) for check in issue.checks), *issue.controls]
    (observed,) = sandbox.observe(issue.function.module, [({}, [call for call, _ in wanted])])
    sandbox.restore()
    return bool(applied) and observed == [outcome for _, outcome in wanted]
