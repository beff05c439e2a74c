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
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field

import contextrl_verl
from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import Context, Message
from contextrl_verl.pairs.files import PairFile, write_pairs
from contextrl_verl.pairs.redact import redact, redact_messages
from data_prep.common.funnel import Funnel
from data_prep.common.pipeline import describe_inputs, fingerprint, remove, run_parts, total
from data_prep.common.splits import draw, read_shares
from data_prep.report.page import Example, Histogram, write_report
from data_prep.report.text import shortened
from data_prep.trajectories.build import COUNTED, build_part
from data_prep.trajectories.candidates import CascadeSettings, embedded, find_couples, shared_place, shared_words
from data_prep.trajectories.groups import GroupSettings, Unit, assign_splits, choose_groups
from data_prep.trajectories.overlap import baseline, of_couples, over_cap, scored
from data_prep.trajectories.passes import load_lights, plan_scan, scan_part, stored_run
from data_prep.trajectories.readers.files import list_files
from data_prep.trajectories.readers.records import MAX_RECORD_BYTES
from data_prep.trajectories.run import AgentRun
from data_prep.trajectories.show import Show
from data_prep.verify.rules import RuleSettings
from data_prep.verify.write import Judging, TooEasy, Verification, conclude, nothing_left, reported, spread

GROUPS_PER_PART = 64
# Characters of a dropped run on the page; the whole of it is in the input.
_SHOWN = 20_000
Issue = Literal["related", "any", "same", "counterfactual"]


def _kinds(given: Any) -> Any:
    return [name.strip() for name in given.split(",")] if isinstance(given, str) else given


@dataclass(frozen=True)
class PrepareSettings:
    """Everything the result depends on besides the input.

    Attributes:
        format: of the runs, see :data:`data_prep.trajectories.readers.FORMATS`, or ``auto``.
        tasks: SWE-smith table of tasks with patches, for runs without one.
        replay: recover missing patches from the run's own edits.
        outcome: ``any``, or only runs that are ``resolved`` or ``unresolved``.
        max_record_bytes: a larger record is rejected.
        issue: kinds of pairs, also as the text ``related,same``: of runs of ``related`` issues, of ``any`` other
            issues, of the ``same`` issue, and ``counterfactual``: of a run and itself with what it saw exchanged.
        counterfactuals: of these of one run at most, each in both directions; ``counterfactual_runs``: runs, drawn.
        overlap_cap: share of the pairs of each kind that BM25 of the answer may get right; 1 for no cap.
        max_tokens: of a context at most, by ``tokenizer`` (a Hugging Face name or folder; empty for a fast
            approximation).
        length_ratio: longest over shortest context of a pair at most.
        show: of a run ``all``, its commands with what they printed (``observations``), or what its agent said and did
            (``reasoning``); ``hide_issue`` and ``hide_summary`` leave out the issue and the words after the last edit.
        related_model: sentence encoder (sentence-transformers name or folder) that says how related two issues are;
            empty for shared words.
        splits: shares of train, validation and probe, also as the text ``train=0.9,probe=0.1``.
        split_by: what may not be in two splits.
        seed: of caps, splits and order.
    """

    format: str = "auto"
    tasks: str | None = None
    replay: bool = False
    outcome: Literal["any", "resolved", "unresolved"] = "any"
    max_record_bytes: Annotated[int, Field(ge=1)] = MAX_RECORD_BYTES
    issue: Annotated[tuple[Issue, ...], BeforeValidator(_kinds), Field(min_length=1)] = (
        "related",
        "same",
        "counterfactual",
    )
    counterfactuals: Annotated[int, Field(ge=1)] = 4
    counterfactual_runs: Annotated[int, Field(ge=1)] = 1000
    overlap_cap: Annotated[float, Field(ge=0, le=1)] = 0.75
    cascade: CascadeSettings = field(default_factory=CascadeSettings)
    groups: GroupSettings = field(default_factory=GroupSettings)
    max_tokens: Annotated[int, Field(ge=256)] = 12_000
    tokenizer: str = ""
    related_model: str = ""
    length_ratio: Annotated[float, Field(ge=1)] = 2.0
    show: Show = "all"
    hide_issue: bool = True
    hide_summary: bool = True
    splits: Annotated[dict[str, float], BeforeValidator(read_shares)] = field(
        default_factory=lambda: {"train": 0.8, "validation": 0.1, "probe": 0.1}
    )
    split_by: Unit = "instance"
    seed: int = 1

    def __post_init__(self) -> None:
        if self.related_model and self.cascade.related is None:
            raise ConfigError(
                "related_model is given without cascade.related. Fix: choose the band of its similarities, e.g. "
                "--set cascade.related='[0.3, 0.9]'; the report shows how similar the issues are."
            )

    @property
    def rules(self) -> RuleSettings:
        """The rules that candidates must pass."""
        return RuleSettings(length_ratio=self.length_ratio)

    @property
    def too_easy(self) -> TooEasy | None:
        """Which pairs the cap leaves out."""
        if self.overlap_cap == 1:
            return None
        reason = f"over the cap on words in common of {self.overlap_cap:g}"
        return lambda pairs: dict.fromkeys(over_cap(scored(pairs), self.overlap_cap), reason)


def prepare(
    source: Path,
    out: Path,
    settings: PrepareSettings,
    *,
    report: Path | None = None,
    judging: Judging | None = None,
    audit: Callable[[PairFile], dict[str, Any]] | None = None,
    **run: Any,
) -> dict[str, Any]:
    """Write ``out`` (and the report, with what ``audit`` says of the pairs) and return the summary.

    A killed run goes on where it stopped when it is started again with the same input and settings, and its result is
    the same to the byte. Nothing is written under ``out`` before everything is done. ``run`` are ``engine``,
    ``workers`` and ``progress`` of :func:`data_prep.common.pipeline.run_parts`.

    Raises:
        TrajectoryError: the input cannot be found or is no source of runs.
        PipelineError: a part failed, or no pair is left.
        UnjudgedError, ConfigError: the judge of ``judging`` could not see all pairs; what is done is kept.
    """
    started = time.monotonic()
    with reported(report, f"Trajectory pairs: {out.name}"):
        found = find_candidates(source, out, settings, **run)
        concluded = conclude(
            found.candidates, out, settings.rules, judging or Judging(), found.funnel, settings.too_easy
        )
    pairs = PairFile(out)
    summary = {
        "contextrl_verl_version": contextrl_verl.__version__,
        "input": source.name,
        "runs_read": found.funnel.stage("read").entered,
        "pairs": concluded.pairs,
        **found.counted,
        "overlap": baseline(scored(pairs)),
        **({"audit": audit(pairs)} if audit and report else {}),
        "settings": asdict(settings),
        **concluded.summary(),
        "seconds": round(time.monotonic() - started, 1),
        "stages": [stage.summary() for stage in found.funnel],
    }
    if report is not None:
        _report(report, summary, found, concluded, out)
    remove(found.work.parent)
    return summary


class Found(NamedTuple):
    """What the cascade leaves for verification: a file of pairs, counts of what was masked, how alike the issues are of
    couples that edit the same place, and, as long as the work folder is there, the run of an id; deleting the folder's
    parent forgets the job."""

    work: Path
    candidates: Path
    funnel: Funnel
    counted: dict[str, int]
    similarities: array[float]
    read: Callable[[str], AgentRun]


def find_candidates(source: Path, out: Path, settings: PrepareSettings, **run: Any) -> Found:
    """Everything before verification, in a work folder next to ``out``; see :func:`prepare`."""
    inputs = [path for path, _ in list_files(source)]
    inputs += [Path(settings.tasks)] if settings.tasks and Path(settings.tasks).exists() else []
    name = fingerprint([contextrl_verl.__version__, describe_inputs(inputs), asdict(settings)])
    work = out.with_name(f".{out.name}.work") / name
    scanned = run_parts(work / "scan", plan_scan(source, asdict(settings)), scan_part, title="Reading runs", **run)
    funnel = total(scanned)
    lights = load_lights([part.path for part in scanned], funnel)
    similarities = array("d")
    compare = shared_words
    if model := settings.related_model:
        compare = partial(embedded, model=model, folder=work, progress=run.get("progress", True))
    couples = find_couples(lights, settings.cascade, funnel, settings.issue, compare, similarities, settings.seed)
    overlap = of_couples(lights, couples, not settings.hide_issue)
    groups = choose_groups(couples, lights, settings.groups, funnel, settings.seed, overlap)
    if "counterfactual" in settings.issue:
        drawn = sorted(range(len(lights)), key=lambda index: draw(settings.seed, lights[index].run_id))
        stage, most = funnel.stage("counterfactual runs"), settings.counterfactual_runs
        stage.keep(len(drawn[:most]))
        if drawn[most:]:
            stage.drop("more than counterfactual_runs", {"run": lights[drawn[most]].run_id}, len(drawn[most:]))
        groups |= {(index,): "counterfactual" for index in sorted(drawn[:most])}
    splits = assign_splits(list(groups), lights, settings.splits, by=settings.split_by, seed=settings.seed)
    rows = []
    for (group, kind), split in zip(groups.items(), splits, strict=True):
        runs = [lights[index] for index in group]
        shared = shared_place(runs[0], runs[-1], settings.cascade.level) or ()
        places = sorted({place[:2] for light in runs for place in light.places})
        stored, left_out = [light.stored for light in runs], [light.left_out for light in runs]
        rows.append({"kind": kind, "stored": stored, "left_out": left_out, "places": places, "split": split,
                     "shared": list(shared)})  # fmt: skip
    starts = range(0, len(rows), GROUPS_PER_PART)
    parts = [{"chosen": rows[start : start + GROUPS_PER_PART], **asdict(settings)} for start in starts]
    built = run_parts(work / "build", parts, build_part, title="Masking and building", **run)
    counts = total(built)
    stages = [counts.stage(name, unit) for name, unit in COUNTED.items()]
    counted = {stage.name: stage.left for stage in stages}
    counts.stages = [stage for stage in counts if stage.name not in COUNTED]
    funnel.add(counts)
    candidates = work / "pairs.parquet"
    files = filter(len, (PairFile(part.path) for part in built))
    if not write_pairs(chain.from_iterable(files), candidates):
        raise nothing_left(funnel)
    places_of = {light.run_id: light.stored for light in lights}
    return Found(work, candidates, funnel, counted, similarities, lambda name: stored_run(*places_of[name]))


def _report(folder: Path, summary: dict[str, Any], found: Found, concluded: Verification, out: Path) -> None:
    file = PairFile(out)
    sizes, answers, splits = array("d"), array("d"), Counter()
    measured = summary.get("audit", {})
    for pair in file:
        sizes.extend(sum(len(turn.content) for turn in context.messages or ()) for context in pair.contexts)
        answers.append(len(pair.answer))
        splits[pair.split] += 1
    write_report(
        folder,
        {**summary, "splits": splits},
        found.funnel,
        chain(spread(file), _dropped(found), concluded.dropped),
        title=f"Trajectory pairs: {out.name}",
        histograms=[
            Histogram("context, characters", sizes),
            Histogram("patch, characters", answers),
            Histogram("similarity of the issues of couples that edit the same place", found.similarities),
        ],
        notices=measured.get("conclusion", ()),
        tables={
            "splits": splits,
            "pairs by kind": {kind: of["pairs"] for kind, of in summary["overlap"].items()},
            "words in common (BM25) tell it, %": {
                k: round(100 * of["right"], 1) for k, of in summary["overlap"].items()
            },
            **{f"audit, right in %: {name}": rows for name, rows in measured.get("percent", {}).items()},
        },
    )


def _dropped(found: Found) -> Iterator[Example]:
    """A dropped couple of every stage and reason that has a sample; secrets are redacted, patches are not masked."""
    for stage, reason, sample in found.funnel.sampled("runs", at_least=2):
        runs = [found.read(name) for name in sample["runs"][:2]]
        contexts = []
        for run in runs:
            room = max(400, _SHOWN // max(1, len(run.messages)))
            shown = ((turn.role, shortened(turn.content, room) or "(empty)") for turn in redact_messages(run.messages))
            turns = [Message(role=role, content=text) for role, text in shown]
            contexts.append(Context(kind="messages", messages=turns))
        yield Example(
            title=" and ".join(sample["runs"]),
            contexts=contexts,
            status="dropped",
            reason=f"{stage}: {reason}",
            question="\n".join(f"{run.run_id}: {redact(run.issue)[:600]}" for run in runs),
            answer="\n".join(redact(run.patch) for run in runs),
            labels=("one run", "the other run"),
        )
