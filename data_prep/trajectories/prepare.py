"""``contextrl pairs trajectories``: from files of runs to verified pairs, a report, and counts of every loss."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import contextrl_verl
from contextrl_verl.pairs import ContrastivePair
from contextrl_verl.pairs.files import PairFile, write_pairs
from data_prep.common.funnel import Funnel
from data_prep.common.pipeline import (
    Done,
    Engine,
    PipelineError,
    describe_inputs,
    fingerprint,
    remove,
    run_parts,
    total,
)
from data_prep.report.page import Histogram, write_report
from data_prep.trajectories.build import build_part
from data_prep.trajectories.candidates import CascadeSettings, find_couples, shared_place
from data_prep.trajectories.dropped import dropped_examples, sampled_couples
from data_prep.trajectories.groups import Group, GroupSettings, choose_groups
from data_prep.trajectories.issue_similarity import IssueSimilarity
from data_prep.trajectories.issue_vectors import embed_issues
from data_prep.trajectories.readers.files import list_files
from data_prep.trajectories.run import AgentRun
from data_prep.trajectories.run_store import RunStore
from data_prep.trajectories.run_summary import Light
from data_prep.trajectories.scan import load_lights, plan_scan, scan_part
from data_prep.trajectories.splits import Unit, assign_splits
from data_prep.trajectories.spool import plan_spool, spool_index, spool_part
from data_prep.verify.rules import RuleSettings
from data_prep.verify.write import Concluded, Judging, conclude, nothing_left, spread

GROUPS_PER_PART = 64


@dataclass(frozen=True)
class PrepareSettings:
    """Everything the result depends on besides the input.

    Attributes:
        format: of the runs, see :data:`data_prep.trajectories.readers.FORMATS`, or ``auto``.
        tasks: table of tasks with patches, for runs without one.
        replay: recover missing patches from the run's own edits.
        outcome: ``any``, or only runs that are ``resolved`` or ``unresolved``.
        budget: tokens of a context at most, by ``tokenizer`` (a Hugging Face name or folder; empty for a fast
            approximation).
        length_ratio: longest over shortest context of a pair at most.
        related_model: sentence encoder that says how related two issues are; empty for shared words.
        shares: of the splits.
        split_by: what may not be in two splits.
    """

    format: str = "auto"
    tasks: str | None = None
    replay: bool = False
    outcome: str = "any"
    max_record_bytes: int = 64 << 20
    cascade: CascadeSettings = field(default_factory=CascadeSettings)
    groups: GroupSettings = field(default_factory=GroupSettings)
    budget: int = 12_000
    tokenizer: str = ""
    related_model: str = ""
    length_ratio: float = 2.0
    shares: dict[str, float] = field(default_factory=lambda: {"train": 0.8, "validation": 0.1, "probe": 0.1})
    split_by: Unit = "instance"
    seed: int = 1


def prepare(
    source: Path,
    out: Path,
    settings: PrepareSettings,
    *,
    report: Path | None = None,
    engine: Engine = "local",
    workers: int | None = None,
    keep_work: bool = False,
    progress: bool = True,
    judging: Judging | None = None,
) -> dict[str, Any]:
    """Write ``out`` (and the report) and return the summary.

    A killed run goes on where it stopped when it is started again with the same input and settings, and its result is
    the same to the byte. Nothing is written under ``out`` before everything is done.

    Raises:
        TrajectoryError: the input cannot be found or is no source of runs.
        PipelineError: a part failed, or no pair is left.
        UnjudgedError, RemoteError: the judge of ``judging`` could not see all pairs; what is done is kept.
    """
    started = time.monotonic()
    found = find_candidates(source, out, settings, engine=engine, workers=workers, progress=progress)
    concluded = conclude(found.candidates, out, rules_of(settings), judging or Judging(), found.funnel)
    summary = {
        "contextrl_verl_version": contextrl_verl.__version__,
        "input": source.name,
        "runs_read": found.funnel.stage("read").entered,
        "pairs": concluded.pairs,
        "leaked_lines_masked": found.leaked_lines_masked,
        "settings": asdict(settings),
        **concluded.summary(),
        "seconds": round(time.monotonic() - started, 1),
        "stages": [stage.summary() for stage in found.funnel],
    }
    if report is not None:
        _report(report, summary, found, concluded, out)
    if not keep_work:
        remove(found.work.parent)
    return summary


def rules_of(settings: PrepareSettings) -> RuleSettings:
    """The rules that candidates made with these settings must pass."""
    return RuleSettings(length_ratio=settings.length_ratio)


@dataclass
class Found:
    """What the cascade leaves for verification.

    Attributes:
        work: folder of this job; deleting its parent forgets the job.
        candidates: file of pairs.
        similarities: of the issues of every couple that edits the same place.
        read: gives the run of an id, as long as the work folder is there.
    """

    work: Path
    candidates: Path
    funnel: Funnel
    leaked_lines_masked: int
    similarities: array[float]
    read: Callable[[str], AgentRun]


def find_candidates(
    source: Path,
    out: Path,
    settings: PrepareSettings,
    *,
    engine: Engine = "local",
    workers: int | None = None,
    progress: bool = True,
) -> Found:
    """Everything before verification, in a work folder next to ``out``; see :func:`prepare`."""
    inputs = [path for path, _ in list_files(source)]
    inputs += [Path(settings.tasks)] if settings.tasks and Path(settings.tasks).exists() else []
    name = fingerprint([contextrl_verl.__version__, describe_inputs(inputs), asdict(settings)])
    work = out.with_name(f".{out.name}.work") / name
    run = {"engine": engine, "workers": workers, "progress": progress}
    options = {
        "format": settings.format,
        "tasks": settings.tasks,
        "replay": settings.replay,
        "outcome": settings.outcome,
        "max_record_bytes": settings.max_record_bytes,
        "keep_issue": bool(settings.related_model),
    }
    scanned = run_parts(work / "scan", plan_scan(source, options), scan_part, title="Reading runs", **run)
    funnel = total(scanned)
    lights = load_lights([part.path for part in scanned], funnel)
    embed = partial(
        embed_issues, scanned=[part.path for part in scanned], model=settings.related_model, folder=work,
        progress=progress,
    )  # fmt: skip
    similarities = array("d")
    couples = find_couples(
        lights, settings.cascade, funnel, embed if settings.related_model else IssueSimilarity, similarities
    )
    groups = choose_groups(couples, lights, settings.groups, funnel)
    splits = assign_splits(groups, lights, settings.shares, by=settings.split_by, seed=settings.seed)

    by_name = {light.run_id: light for light in lights}
    to_look_at = [name for _, _, sample in sampled_couples(funnel) for name in sample["runs"]]
    wanted = sorted({*(lights[index].run_id for group in groups for index in group), *to_look_at})
    spooled = run_parts(
        work / "spool",
        plan_spool(source, options, [by_name[name] for name in wanted]),
        spool_part,
        title="Unpacking runs",
        suffix=".jsonl",
        **run,
    )
    spool = spool_index(spooled)
    parts = _build_payloads(source, options, settings, lights, groups, splits, spool)
    built = run_parts(work / "build", parts, build_part, title="Masking and building", **run)
    counts = total(built)
    lines = (
        counts.stages.pop(next(i for i, stage in enumerate(counts) if stage.name == "masked_lines")) if built else None
    )
    funnel.add(counts)
    candidates = work / "pairs.parquet"
    if not write_pairs(_all_pairs(built), candidates):
        raise PipelineError(nothing_left(funnel))
    store = RunStore({"source": str(source), **options})

    def read(name: str) -> AgentRun:
        return store.get({"run_id": name, "location": by_name[name].location, **spool.get(name, {})})

    return Found(work, candidates, funnel, lines.left if lines is not None else 0, similarities, read)


def _build_payloads(
    source: Path,
    options: dict[str, Any],
    settings: PrepareSettings,
    lights: list[Light],
    groups: list[Group],
    splits: list[str],
    spool: dict[str, dict[str, Any]],
) -> list[dict[str, Any]]:
    def member(index: int) -> dict[str, Any]:
        light = lights[index]
        found = spool.get(light.run_id) or {"location": light.location}
        return {"run_id": light.run_id, "places": [list(place[:2]) for place in light.places], **found}

    rows = []
    for group, split in zip(groups, splits, strict=True):
        place = shared_place(lights[group[0]], lights[group[1]], settings.cascade.level)
        rows.append({"runs": [member(index) for index in group], "split": split, "shared": list(place or ())})
    common = {
        "source": str(source),
        **options,
        "tokenizer": settings.tokenizer,
        "budget": settings.budget,
        "length_ratio": settings.length_ratio,
    }
    return [
        {**common, "groups": rows[start : start + GROUPS_PER_PART]} for start in range(0, len(rows), GROUPS_PER_PART)
    ]


def _all_pairs(built: list[Done]) -> Iterator[ContrastivePair]:
    for part in built:
        if _rows(part.path):
            yield from PairFile(part.path)


def _rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return pq.read_metadata(path).num_rows


def _report(folder: Path, summary: dict[str, Any], found: Found, concluded: Concluded, out: Path) -> None:
    file = PairFile(out)
    sizes, ratios, answers, splits = array("d"), array("d"), array("d"), Counter()
    for pair in file:
        lengths = [sum(len(turn.content) for turn in context.messages or ()) for context in pair.contexts]
        sizes.extend(lengths)
        ratios.append(max(lengths) / min(lengths))
        answers.append(len(pair.answer))
        splits[pair.split] += 1
    write_report(
        folder,
        {name: value for name, value in summary.items() if name != "stages"} | {"splits": splits},
        found.funnel,
        chain(spread(file), dropped_examples(found.funnel, found.read), concluded.dropped),
        title=f"Trajectory pairs: {out.name}",
        histograms=[
            Histogram("context, characters", sizes),
            Histogram("longest over shortest context", ratios),
            Histogram("patch, characters", answers),
            Histogram("similarity of the issues of couples that edit the same place", found.similarities),
        ],
        tables={"splits": splits},
    )
