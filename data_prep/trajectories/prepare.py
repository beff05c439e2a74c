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
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

import contextrl_verl
from contextrl_verl.errors import ConfigError
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
from data_prep.common.splits import read_shares
from data_prep.report.page import Histogram, write_report
from data_prep.trajectories.build import build_part
from data_prep.trajectories.candidates import CascadeSettings, find_couples, shared_place
from data_prep.trajectories.dropped import dropped_examples
from data_prep.trajectories.groups import Group, GroupSettings, Unit, assign_splits, choose_groups
from data_prep.trajectories.issue_similarity import EmbeddedSimilarity, IssueSimilarity
from data_prep.trajectories.readers.files import list_files
from data_prep.trajectories.readers.types import MAX_RECORD_BYTES
from data_prep.trajectories.run import AgentRun
from data_prep.trajectories.run_summary import Light
from data_prep.trajectories.scan import load_lights, plan_scan, scan_part, stored_run
from data_prep.verify.rules import RuleSettings
from data_prep.verify.write import Concluded, Judging, conclude, nothing_left, spread

GROUPS_PER_PART = 64
# Settings of the first pass.
READING = ("format", "tasks", "replay", "outcome", "max_record_bytes")
SPLITS = {"train": 0.8, "validation": 0.1, "probe": 0.1}


def _shares(value: Any) -> dict[str, float]:
    if isinstance(value, dict):
        value = ",".join(f"{name}={share}" for name, share in value.items())
    return read_shares(str(value))


@dataclass(frozen=True)
class PrepareSettings:
    """Everything the result depends on besides the input.

    Attributes:
        format: of the runs, see :data:`data_prep.trajectories.readers.FORMATS`, or ``auto``.
        tasks: SWE-smith table of tasks with patches, for runs without one.
        replay: recover missing patches from the run's own edits.
        outcome: ``any``, or only runs that are ``resolved`` or ``unresolved``.
        max_record_bytes: a larger record is rejected.
        max_tokens: of a context at most, by ``tokenizer`` (a Hugging Face name or folder; empty for a fast
            approximation).
        length_ratio: longest over shortest context of a pair at most.
        related_model: sentence encoder (sentence-transformers name or folder) that says how related two issues are;
            empty for shared words.
        splits: shares of train, validation and probe, also as the text ``train=0.9,probe=0.1``.
        split_by: what may not be in two splits.
        seed: of caps, splits and order.
        keep_work: keep the folder with finished parts.

    Raises:
        ConfigError: an encoder without the band of its similarities.
    """

    format: str = "auto"
    tasks: str | None = None
    replay: bool = False
    outcome: Literal["any", "resolved", "unresolved"] = "any"
    max_record_bytes: Annotated[int, Field(ge=1)] = MAX_RECORD_BYTES
    cascade: CascadeSettings = field(default_factory=CascadeSettings)
    groups: GroupSettings = field(default_factory=GroupSettings)
    max_tokens: Annotated[int, Field(ge=256)] = 12_000
    tokenizer: str = ""
    related_model: str = ""
    length_ratio: Annotated[float, Field(ge=1)] = 2.0
    splits: Annotated[dict[str, float], BeforeValidator(_shares)] = field(default_factory=lambda: dict(SPLITS))
    split_by: Unit = "instance"
    seed: int = 1
    keep_work: bool = False

    def __post_init__(self) -> None:
        if self.related_model and self.cascade.related is None:
            raise ConfigError(
                "related_model is given without cascade.related. Fix: choose the band of its similarities, e.g. "
                "--set cascade.related='[0.3, 0.9]'; the report shows how similar the issues are."
            )

    def content(self) -> dict[str, Any]:
        """What candidates depend on."""
        return {name: value for name, value in asdict(self).items() if name != "keep_work"}


def prepare(
    source: Path,
    out: Path,
    settings: PrepareSettings,
    *,
    report: Path | None = None,
    engine: Engine = "local",
    workers: int | None = None,
    progress: bool = True,
    judging: Judging | None = None,
) -> dict[str, Any]:
    """Write ``out`` (and the report) and return the summary.

    A killed run goes on where it stopped when it is started again with the same input and settings, and its result is
    the same to the byte. Nothing is written under ``out`` before everything is done.

    Raises:
        TrajectoryError: the input cannot be found or is no source of runs.
        PipelineError: a part failed, or no pair is left.
        UnjudgedError, ConfigError: the judge of ``judging`` could not see all pairs; what is done is kept.
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
    if not settings.keep_work:
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
    name = fingerprint([contextrl_verl.__version__, describe_inputs(inputs), settings.content()])
    work = out.with_name(f".{out.name}.work") / name
    run = {"engine": engine, "workers": workers, "progress": progress}
    options = {name: value for name, value in settings.content().items() if name in READING}
    scanned = run_parts(work / "scan", plan_scan(source, options), scan_part, title="Reading runs", **run)
    funnel = total(scanned)
    lights = load_lights([part.path for part in scanned], funnel)
    similarities = array("d")
    model = settings.related_model
    embed = partial(EmbeddedSimilarity, model=model, folder=work, progress=progress) if model else IssueSimilarity
    couples = find_couples(lights, settings.cascade, funnel, embed, similarities, settings.seed)
    groups = choose_groups(couples, lights, settings.groups, funnel, settings.seed)
    splits = assign_splits(groups, lights, settings.splits, by=settings.split_by, seed=settings.seed)

    parts = _build_payloads(settings, lights, groups, splits)
    built = run_parts(work / "build", parts, build_part, title="Masking and building", **run)
    counts = total(built)
    lines = (
        counts.stages.pop(next(i for i, stage in enumerate(counts) if stage.name == "masked_lines")) if built else None
    )
    funnel.add(counts)
    candidates = work / "pairs.parquet"
    if not write_pairs(_all_pairs(built), candidates):
        raise PipelineError(nothing_left(funnel))
    stored = {light.run_id: light.stored for light in lights}

    def read(name: str) -> AgentRun:
        return stored_run(*stored[name])

    return Found(work, candidates, funnel, lines.left if lines is not None else 0, similarities, read)


def _build_payloads(
    settings: PrepareSettings, lights: list[Light], groups: list[Group], splits: list[str]
) -> list[dict[str, Any]]:
    def member(index: int) -> dict[str, Any]:
        return {"stored": lights[index].stored, "places": [place[:2] for place in lights[index].places]}

    rows = []
    for group, split in zip(groups, splits, strict=True):
        place = shared_place(lights[group[0]], lights[group[1]], settings.cascade.level)
        rows.append({"runs": [member(index) for index in group], "split": split, "shared": list(place or ())})
    common = {name: getattr(settings, name) for name in ("tokenizer", "max_tokens", "length_ratio")}
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
