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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from tqdm import tqdm

from contextrl_verl.errors import UserError
from contextrl_verl.pairs.whole_file import write_whole
from data_prep.common.funnel import Funnel

Work = Callable[[dict[str, Any], Path], Funnel]
Engine = Literal["local", "ray"]


class PipelineError(UserError, RuntimeError):
    """A job that cannot go on; the message says why and what to do."""


class Done(NamedTuple):
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


class _Part(NamedTuple):
    """One part of a job: its data, and its counts, which come last: a part is done when they are there."""

    work: Work
    payload: dict[str, Any]
    data: Path
    note: Path

    def do(self) -> None:
        """Do the part; raises PipelineError that names it, or the UserError that the user is to mend."""
        scratch = self.data.with_name(f".{self.data.name}-{os.getpid()}.part")
        try:
            funnel = self.work(self.payload, scratch)
            funnel.check()
            refuse_failures(funnel)
            os.replace(scratch, self.data)
            write_whole(self.note, funnel.model_dump_json())
        except UserError:
            raise
        except Exception as error:
            raise PipelineError(
                f"{self.data.stem} ({json.dumps(self.payload)[:300]}) failed with {type(error).__name__}: {error}. "
                "What is done is kept. Fix: mend the cause and run the same command again; if it is a bug, report it "
                "with this line."
            ) from error
        finally:
            scratch.unlink(missing_ok=True)


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
        engine: ``local`` processes, or Ray Data on the cluster that ``ray.init`` finds (the folder must then be on a
            file system that every node sees).
        workers: processes, or Ray tasks at a time; default all cores.
        gpus: of each worker, for work that holds a model. Ray then keeps actors, by default as many as the cluster's
            GPUs allow; the local engine uses one process unless ``workers`` says otherwise.

    Raises:
        PipelineError: a part failed, and its name; done parts are kept. Or there is no such engine.
    """
    if engine not in get_args(Engine):
        raise PipelineError(f"--engine is {engine!r}. Fix: {' or '.join(get_args(Engine))}.")
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".*.part"):
        stale.unlink(missing_ok=True)
    every = [
        _Part(work, payload, folder / f"part-{index:06d}{suffix}", folder / f"part-{index:06d}.json")
        for index, payload in enumerate(parts)
    ]
    missing = [part for part in every if not part.note.exists()]
    done = len(every) - len(missing)
    with tqdm(total=len(every), initial=done, desc=title, unit="part", disable=not progress) as bar:
        for _ in (_on_ray if engine == "ray" else _on_processes)(missing, workers, gpus):
            bar.update()
    finished = [Done(part.data, Funnel.model_validate_json(part.note.read_text())) for part in every]
    try:
        refuse_failures(total(finished), whole=True)
    except PipelineError:
        # Once the cause is mended these are to be done again.
        for part, (_, funnel) in zip(every, finished, strict=True):
            if any(stage.failures for stage in funnel):
                part.note.unlink()
        raise
    return finished


def total(done: Sequence[Done]) -> Funnel:
    """The counts of all parts together."""
    funnel = Funnel()
    for part in done:
        funnel.add(part.funnel)
    return funnel


def refuse_failures(funnel: Funnel, whole: bool = False) -> None:
    """Raises PipelineError if so many things of a stage failed unforeseen that a bug is likelier than bad material; see
    :meth:`data_prep.common.funnel.Stage.too_many_failures`."""
    for stage in funnel:
        if found := stage.too_many_failures(whole):
            raise PipelineError(
                f"Stage {stage.name!r} failed unforeseen for {found}\nWhat is done is kept. Fix: mend the cause and "
                "run the same command again; if it is a bug, report it with these lines."
            )


def remove(folder: Path) -> None:
    """Delete a work folder after its result has been written, and what an earlier call that was killed left of it."""
    # Under another name first: half a folder under its own would have notes of parts that are gone.
    gone = folder.with_name(f"{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        os.replace(folder, gone)
        shutil.rmtree(gone, ignore_errors=True)


def _on_processes(parts: list[_Part], workers: int | None, gpus: float) -> Iterator[None]:
    count = min(workers or (1 if gpus else os.cpu_count() or 1), len(parts))
    if count <= 1:
        for part in parts:
            yield part.do()
        return
    # Spawned, not forked: the parent may hold threads of pyarrow or tokenizers.
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_end_with_parent)
    try:
        for future in as_completed([pool.submit(part.do) for part in parts]):
            yield future.result()
    except BrokenProcessPool:
        raise PipelineError(
            "a worker died, most likely for want of memory. What is done is kept. Fix: run the same command again with "
            "fewer --workers."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _on_ray(parts: list[_Part], workers: int | None, gpus: float) -> Iterator[None]:
    if not parts:
        return
    import ray

    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    # Parts travel by their numbers: Arrow would give their lists of different length or type a common shape. Items, not
    # a range: reading a range takes tasks, which wait for ever where actors hold all cores.
    rows = ray.data.from_items([{"id": number} for number in range(len(parts))], override_num_blocks=len(parts))
    if gpus:
        # A class makes Ray keep actors, and what a process has loaded stays loaded from part to part.
        there = ray.cluster_resources().get("GPU", 0)
        # Whole workers only, and on a machine with several GPUs a share of one cannot be spread over two.
        room = int(there // gpus) if gpus >= 1 else int(there) * int(1 / gpus + 1e-9)
        if not (workers or room):
            raise PipelineError(
                f"Each worker is to have {gpus:g} GPUs, and Ray's cluster has {there:g}. Fix: ask for fewer, or start "
                "Ray where the GPUs are."
            )
        count = min(workers or room, len(parts))
        rows = rows.map(_RayWork, fn_constructor_args=(parts,), num_gpus=gpus, concurrency=count)
    else:
        rows = rows.map(_RayWork(parts), concurrency=workers)
    for row in rows.iter_rows():
        if row["error"]:
            raise PipelineError(row["error"])
        yield


class _RayWork:
    def __init__(self, parts: list[_Part]) -> None:
        self.parts = parts

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        try:
            self.parts[row["id"]].do()
        except PipelineError as error:
            return {"error": str(error)}
        return {"error": ""}
