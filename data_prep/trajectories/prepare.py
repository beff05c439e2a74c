"""``contextrl pairs trajectories``: from files of runs to verified pairs, a report, and counts of every loss."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import contextrl_verl
from contextrl_verl.pair_files import PairFile, write_pairs
from contextrl_verl.pairs import ContrastivePair
from data_prep.counting import Funnel
from data_prep.judge.rules import RuleSettings
from data_prep.judge.verify import verify
from data_prep.pipeline import Done, Engine, PipelineError, describe_inputs, fingerprint, remove, run_parts, total
from data_prep.report.page import Example, Histogram, write_report
from data_prep.trajectories.build import build_part
from data_prep.trajectories.candidates import CascadeSettings, find_couples, shared_place
from data_prep.trajectories.groups import Group, GroupSettings, choose_groups
from data_prep.trajectories.light import Light
from data_prep.trajectories.readers.files import list_files
from data_prep.trajectories.scan import load_lights, plan_scan, scan_part
from data_prep.trajectories.splits import Unit, assign_splits
from data_prep.trajectories.spool import plan_spool, spool_index, spool_part

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
) -> dict[str, Any]:
    """Write ``out`` (and the report) and return the summary.

    A killed run goes on where it stopped when it is started again with the same input and settings, and its result is
    the same to the byte. Nothing is written under ``out`` before everything is done.

    Raises:
        TrajectoryError: the input cannot be found or is no source of runs.
        PipelineError: a part failed, or no pair is left.
    """
    started = time.monotonic()
    inputs = [path for path, _ in list_files(source)]
    name = fingerprint([contextrl_verl.__version__, describe_inputs(inputs), asdict(settings)])
    work = out.with_name(f".{out.name}.work") / name
    run = {"engine": engine, "workers": workers, "progress": progress}
    options = {
        "format": settings.format,
        "tasks": settings.tasks,
        "replay": settings.replay,
        "outcome": settings.outcome,
        "max_record_bytes": settings.max_record_bytes,
    }
    scanned = run_parts(work / "scan", plan_scan(source, options), scan_part, title="Reading runs", **run)
    funnel = total(scanned)
    lights = load_lights([part.path for part in scanned], funnel)
    couples = find_couples(lights, settings.cascade, funnel)
    groups = choose_groups(couples, lights, settings.groups, funnel)
    splits = assign_splits(groups, lights, settings.shares, by=settings.split_by, seed=settings.seed)

    wanted = sorted({run for group in groups for run in group})
    spooled = run_parts(
        work / "spool",
        plan_spool(source, options, [lights[index] for index in wanted]),
        spool_part,
        title="Unpacking runs",
        suffix=".jsonl",
        **run,
    )
    parts = _build_payloads(source, options, settings, lights, groups, splits, spool_index(spooled))
    built = run_parts(work / "build", parts, build_part, title="Masking and building", **run)
    counts = total(built)
    lines = (
        counts.stages.pop(next(i for i, stage in enumerate(counts) if stage.name == "masked_lines")) if built else None
    )
    funnel.add(counts)

    candidates = work / "pairs.parquet"
    if not write_pairs(_all_pairs(built), candidates):
        raise PipelineError(_nothing_left(funnel))
    file = PairFile(candidates)
    verification = verify(file, rules=RuleSettings(length_ratio=settings.length_ratio), funnel=funnel)
    funnel.check()
    written = write_pairs(verification.kept(file), out)
    if not written:
        out.unlink()
        raise PipelineError(_nothing_left(funnel))
    summary = {
        "contextrl_verl_version": contextrl_verl.__version__,
        "input": source.name,
        "runs_read": funnel.stage("read").entered,
        "pairs": written,
        "leaked_lines_masked": lines.left if lines is not None else 0,
        "settings": asdict(settings),
        "seconds": round(time.monotonic() - started, 1),
        "stages": [stage.summary() for stage in funnel],
    }
    if report is not None:
        _report(report, summary, funnel, out)
    if not keep_work:
        remove(out.with_name(f".{out.name}.work"))
    return summary


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


def _nothing_left(funnel: Funnel) -> str:
    steps = ", ".join(f"{stage.name}: {stage.entered} in, {stage.left} out" for stage in funnel if stage.entered)
    return (
        f"no pair is left ({steps}). Fix: give runs of several issues of one repository, or loosen the stage that "
        "drops most, e.g. --commit any or --level file; --help lists them."
    )


def _report(folder: Path, summary: dict[str, Any], funnel: Funnel, out: Path) -> None:
    file = PairFile(out)
    sizes, ratios, answers, splits = array("d"), array("d"), array("d"), {}
    for pair in file:
        lengths = [sum(len(turn.content) for turn in context.messages or ()) for context in pair.contexts]
        sizes.extend(lengths)
        ratios.append(max(lengths) / min(lengths))
        answers.append(len(pair.answer))
        splits[pair.split] = splits.get(pair.split, 0) + 1
    step = max(1, len(file) // 12)
    write_report(
        folder,
        {name: value for name, value in summary.items() if name != "stages"} | {"splits": splits},
        funnel,
        (Example.of(file[row]) for row in range(0, len(file), step)),
        title=f"Trajectory pairs: {out.name}",
        histograms=[
            Histogram("context, characters", sizes),
            Histogram("longest over shortest context", ratios),
            Histogram("patch, characters", answers),
        ],
        tables={"splits": splits},
    )
