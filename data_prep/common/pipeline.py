"""Runs a pipeline's work in parts: on all cores or on Ray, resumable, with the same bytes whoever did a part.

A part is a small JSON payload. ``work(payload, path)`` writes the part's file and returns its counts. Done parts lie in
the work folder under a name derived from the job's fingerprint, so a killed job continues and another job starts anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, get_args

from tqdm import tqdm

from contextrl_verl.errors import UserError
from data_prep.common.funnel import Funnel

Work = Callable[[dict[str, Any], Path], Funnel]
Engine = Literal["local", "ray"]


class PipelineError(UserError, RuntimeError):
    """A job that cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Done:
    """A finished part."""

    path: Path
    funnel: Funnel


def fingerprint(settings: Any) -> str:
    """A name for a job: digest of everything its result depends on (inputs, parameters, versions)."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def describe_inputs(paths: Sequence[Path]) -> list[list[Any]]:
    """Name, size and time of change of every input file, for :func:`fingerprint`."""
    return [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]


def run_parts(
    folder: Path,
    parts: Sequence[dict[str, Any]],
    work: Work,
    *,
    title: str,
    suffix: str = ".parquet",
    engine: Engine = "local",
    workers: int | None = None,
    gpus: float = 0,
    progress: bool = True,
) -> list[Done]:
    """Do what is missing of ``parts`` and return all of them in order.

    Args:
        folder: of this stage of this job, see :func:`fingerprint`; done parts in it are kept.
        parts: JSON-able payloads; their order is the order of the result.
        work: an importable function; it must be a pure function of the payload.
        title: for the progress bar.
        engine: ``local`` processes, or Ray Data on the cluster that ``ray.init`` finds (the folder must then be on a
            file system that every node sees).
        workers: processes, or Ray tasks at a time; default all cores.
        gpus: of each worker, for work that holds a model. Ray then keeps a pool of actors, by default as many as the
            cluster's GPUs allow; the local engine uses one process unless ``workers`` says otherwise.

    Raises:
        PipelineError: a part failed; names it. Done parts are kept. Or there is no such engine.
    """
    if engine not in get_args(Engine):
        raise PipelineError(f"--engine is {engine!r}. Fix: {' or '.join(get_args(Engine))}.")
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".*.part"):
        stale.unlink(missing_ok=True)
    missing = [index for index in range(len(parts)) if not _note(folder, index).exists()]
    jobs = [{"index": index, "payload": parts[index], "folder": str(folder), "suffix": suffix} for index in missing]
    bar = tqdm(total=len(parts), initial=len(parts) - len(jobs), desc=title, unit="part", disable=not progress)
    with bar:
        for _ in (_on_ray if engine == "ray" else _on_processes)(jobs, work, workers, gpus):
            bar.update()
    notes = (_note(folder, index).read_text() for index in range(len(parts)))
    return [Done(_data(folder, index, suffix), Funnel.model_validate_json(note)) for index, note in enumerate(notes)]


def total(done: Sequence[Done]) -> Funnel:
    """The counts of all parts together."""
    funnel = Funnel()
    for part in done:
        funnel.add(part.funnel)
    return funnel


def remove(folder: Path) -> None:
    """Delete a work folder after its result has been written, and what an earlier call that was killed left of it."""
    # Under another name first: half a folder under its own would have notes of parts that are gone.
    gone = folder.with_name(f"{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        os.replace(folder, gone)
        shutil.rmtree(gone, ignore_errors=True)


def _data(folder: Path, index: int, suffix: str) -> Path:
    return folder / f"part-{index:06d}{suffix}"


def _note(folder: Path, index: int) -> Path:
    return folder / f"part-{index:06d}.json"


def _do(work: Work, job: dict[str, Any]) -> int:
    folder, index = Path(job["folder"]), job["index"]
    scratch = folder / f".{index:06d}-{os.getpid()}.part"
    note = folder / f".{index:06d}-{os.getpid()}-note.part"
    try:
        funnel = work(job["payload"], scratch)
        funnel.check()
        os.replace(scratch, _data(folder, index, job["suffix"]))
        # The counts come last: a part is done when they are there.
        note.write_text(funnel.model_dump_json())
        os.replace(note, _note(folder, index))
    finally:
        scratch.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
    return index


def _on_processes(jobs: list[dict[str, Any]], work: Work, workers: int | None, gpus: float) -> Iterator[int]:
    count = min(workers or (1 if gpus else os.cpu_count() or 1), len(jobs))
    if count <= 1:
        for job in jobs:
            with _named(job):
                _do(work, job)
            yield job["index"]
        return
    # Spawned, not forked: the parent may hold threads of pyarrow or tokenizers.
    context = get_context("spawn")
    queue = iter(jobs)
    with ProcessPoolExecutor(count, mp_context=context, initializer=_end_with_parent, initargs=(os.getpid(),)) as pool:
        running = {}
        try:
            while True:
                while len(running) < 2 * count and (job := next(queue, None)) is not None:
                    running[pool.submit(_do, work, job)] = job
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    with _named(job):
                        index = future.result()
                    yield index
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _on_ray(jobs: list[dict[str, Any]], work: Work, workers: int | None, gpus: float) -> Iterator[int]:
    if not jobs:
        return
    import ray

    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    # Payloads travel as JSON: Arrow would give lists of different length or type a common shape.
    rows = ray.data.from_items([{"job": json.dumps(job)} for job in jobs], override_num_blocks=len(jobs))
    if gpus:
        # A class makes Ray keep actors, and what a process has loaded stays loaded from part to part.
        count = min(workers or _gpu_workers(ray.cluster_resources().get("GPU", 0), gpus), len(jobs))
        rows = rows.map(_RayWork, fn_constructor_args=(work,), num_gpus=gpus, concurrency=count)
    else:
        rows = rows.map(_RayWork(work), concurrency=workers)
    for row in rows.iter_rows():
        if row["error"]:
            raise PipelineError(row["error"])
        yield row["index"]


def _gpu_workers(there: float, gpus: float) -> int:
    # Whole workers only, and on a machine with several GPUs a share of one cannot be spread over two.
    count = int(there // gpus) if gpus >= 1 else int(there) * int(1 / gpus + 1e-9)
    if not count:
        raise PipelineError(
            f"Each worker is to have {gpus:g} GPUs, and Ray's cluster has {there:g}. Fix: ask for fewer, or start Ray "
            "where the GPUs are."
        )
    return count


class _RayWork:
    def __init__(self, work: Work) -> None:
        self.work = work

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        job = json.loads(row["job"])
        try:
            with _named(job):
                return {"index": _do(self.work, job), "error": ""}
        except PipelineError as error:
            return {"index": job["index"], "error": str(error)}


@contextmanager
def _named(job: dict[str, Any]) -> Iterator[None]:
    """Turn what a part raises into a PipelineError that says which part it was."""
    try:
        yield
    except PipelineError:
        raise
    except BrokenProcessPool:
        raise PipelineError(
            f"a worker died while part {job['index']} or a neighbour was done, most likely for want of memory. What is "
            "done is kept. Fix: run the same command again, with fewer --workers."
        ) from None
    except Exception as error:
        raise PipelineError(
            f"part {job['index']} ({json.dumps(job['payload'])[:300]}) failed with {type(error).__name__}: {error}. "
            "What is done is kept. Fix: mend the cause and run the same command again; if it is a bug, report it with "
            "this line."
        ) from error


def _end_with_parent(parent: int) -> None:
    """A worker whose parent was killed would wait for work for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
