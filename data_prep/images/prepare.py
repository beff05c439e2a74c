"""``contextrl pairs images``: from questions about pictures to verified pairs, a report, and counts of every loss."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from tqdm import tqdm

import contextrl_verl
from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import Context, ImageRef
from contextrl_verl.pairs.files import PairFile, write_pairs
from data_prep.common.funnel import Funnel
from data_prep.common.pipeline import Engine, PipelineError, fingerprint, remove, run_parts, total
from data_prep.common.splits import assign_components, read_shares
from data_prep.images.build import build_part, plan_build
from data_prep.images.edit.run import Edited, EditSettings, edit_here, edit_part, estimate, plan_edits
from data_prep.images.embed import embed_part, in_one_process, load_embeddings, make_embedder, plan_embed
from data_prep.images.item import ImageCouple, Method, VqaItem, read_couples, write_couples, write_items
from data_prep.images.retrieve import RetrieveSettings, find_image_couples
from data_prep.images.sources import SourceOptions, describe_source, load_items, plan_source, scan_images
from data_prep.images.store import ImageStore
from data_prep.report.page import Example, Histogram, write_report
from data_prep.verify.rules import RuleSettings
from data_prep.verify.write import Concluded, Judging, UnjudgedError, conclude, nothing_left, spread

METHODS: tuple[Method, ...] = ("retrieve", "edit")


@dataclass(frozen=True)
class ImageSettings:
    """Everything the result depends on besides the source.

    Attributes:
        source: how it is read.
        methods: how couples are made.
        embedder: see :func:`data_prep.images.embed.make_embedder`.
        splits: shares of the splits; no picture is in two of them.
    """

    source: SourceOptions = field(default_factory=SourceOptions)
    methods: tuple[str, ...] = METHODS
    embedder: str = "descriptor"
    retrieve: RetrieveSettings = field(default_factory=RetrieveSettings)
    edit: EditSettings = field(default_factory=EditSettings)
    splits: str = "train=0.8,validation=0.1,probe=0.1"
    seed: int = 1

    def __post_init__(self) -> None:
        read_shares(self.splits)
        if not self.methods or set(self.methods) - set(METHODS) or len(set(self.methods)) < len(self.methods):
            raise ConfigError(f"--method is {','.join(self.methods)!r}. Fix: retrieve, edit, or retrieve,edit.")

    def summary(self) -> dict[str, Any]:
        """JSON values."""
        return TypeAdapter(ImageSettings).dump_python(self, mode="json")


@dataclass(frozen=True)
class _Job:
    """A source that was read.

    Attributes:
        work: folder of this job; deleting its parent forgets the job.
        run: engine, workers and progress of :func:`data_prep.common.pipeline.run_parts`.
        store: the pictures.
        listed: file of ``items``.
        usage: of the endpoints that proposed and edited.
    """

    settings: ImageSettings
    work: Path
    run: dict[str, Any]
    funnel: Funnel
    store: ImageStore
    items: list[VqaItem]
    listed: Path
    usage: dict[str, Any] = field(default_factory=dict)


def prepare_images(
    source: str,
    out: Path,
    settings: ImageSettings,
    *,
    report: Path | None = None,
    engine: Engine = "local",
    workers: int | None = None,
    gpus: float = 0,
    keep_work: bool = False,
    progress: bool = True,
    judging: Judging | None = None,
) -> dict[str, Any]:
    """Write ``out`` (and the report) and return the summary; resumable like the trajectory side.

    Args:
        gpus: of each worker that embeds or edits.

    Raises:
        ConfigError: no such source, or an option that makes no sense.
        PipelineError: a part failed, or no pair is left.
        UnjudgedError: an endpoint could not see everything; what is done is kept.
    """
    started = time.monotonic()
    judging = judging or Judging()
    job = _read(source, out, settings, {"engine": engine, "workers": workers, "progress": progress})
    candidates = _candidates(job, gpus, judging.allow_unjudged)
    concluded = conclude(candidates, out, RuleSettings(), judging, job.funnel)
    summary = {
        "contextrl_verl_version": contextrl_verl.__version__,
        "source": source if not Path(source).exists() else Path(source).name,
        "questions_read": job.funnel.stage("read").entered,
        "pairs": concluded.pairs,
        "methods": dict(Counter(pair.provenance["method"] for pair in PairFile(out))),
        "settings": settings.summary(),
        **concluded.summary(),
        **job.usage,
        "seconds": round(time.monotonic() - started, 1),
        "stages": [stage.summary() for stage in job.funnel],
    }
    if report is not None:
        _report(report, summary, job, concluded, out)
    if not keep_work:
        remove(job.work.parent)
    return summary


def edit_costs(
    source: str, out: Path, settings: ImageSettings, *, engine: Engine = "local", workers: int | None = None
) -> Iterator[str]:
    """Sentences about what proposer and editor would cost; reads the source, asks nothing."""
    job = _read(source, out, settings, {"engine": engine, "workers": workers, "progress": True})
    parts = plan_edits([job.listed], job.store.folder, settings.edit, Funnel())
    yield from estimate([VqaItem(**row) for part in parts for row in part["items"]], job.store.folder, settings.edit)


def _read(source: str, out: Path, settings: ImageSettings, run: dict[str, Any]) -> _Job:
    embedder = make_embedder(settings.embedder).name if "retrieve" in settings.methods else ""
    described = [describe_source(source, settings.source), embedder]
    work = out.with_name(f".{out.name}.work") / fingerprint([contextrl_verl.__version__, described, settings.summary()])
    store = ImageStore(work / "pictures")
    parts = [{**part, "store": str(store.folder.resolve())} for part in plan_source(source, settings.source)]
    scanned = run_parts(work / "scan", parts, scan_images, title="Reading questions", suffix=".jsonl", **run)
    funnel = total(scanned)
    items = load_items([part.path for part in scanned], funnel)
    listed = work / "items.jsonl"
    write_items(items, listed)
    return _Job(settings, work, run, funnel, store, items, listed)


def _candidates(job: _Job, gpus: float, allow_unreached: bool) -> Path:
    """The file of pairs to verify, in the work folder."""
    settings, work = job.settings, job.work
    with_gpus = {**job.run, "gpus": gpus}
    couples: list[ImageCouple] = []
    if "retrieve" in settings.methods:
        couples += _retrieved(job, with_gpus)
    if "edit" in settings.methods:
        edited = _edited(job, with_gpus)
        if edited.unreached and not allow_unreached:
            raise _unreached(edited)
        couples += edited.couples
        job.usage.update(edited.usage)
    if not couples:
        raise PipelineError(nothing_left(job.funnel))
    chosen, candidates = work / "couples.jsonl", work / "pairs.parquet"
    write_couples(couples, chosen)
    shares = read_shares(settings.splits)
    splits = assign_components([couple.images for couple in couples], shares, seed=settings.seed)
    payloads = plan_build(chosen, splits, job.store.folder)
    built = run_parts(work / "build", payloads, build_part, title="Building pairs", **job.run)
    write_pairs(chain.from_iterable(PairFile(part.path) for part in built), candidates)
    return candidates


def _retrieved(job: _Job, run: dict[str, Any]) -> list[ImageCouple]:
    embedder = job.settings.embedder
    parts = plan_embed((item.image for item in job.items), job.store.folder, embedder)
    if in_one_process(embedder):
        run = {**run, "workers": 1}
    done = run_parts(job.work / "embed", parts, embed_part, title="Embedding pictures", suffix=".npz", **run)
    job.funnel.add(total(done))
    embeddings = load_embeddings([part.path for part in done])
    return find_image_couples(job.items, embeddings, job.settings.retrieve, job.funnel)


def _edited(job: _Job, run: dict[str, Any]) -> Edited:
    settings, store = job.settings.edit, job.store.folder
    parts = plan_edits([job.listed], store, settings, job.funnel)
    if settings.remote:
        # One process, which minds the cap; answers are cached, so a killed job asks only what is missing.
        items = [VqaItem(**row) for part in parts for row in part["items"]]
        with tqdm(total=len(items), desc="Editing pictures", unit="picture", disable=not run["progress"]) as bar:
            return edit_here(items, store, settings, job.funnel, bar.update)
    done = run_parts(job.work / "edit", parts, edit_part, title="Editing pictures", suffix=".jsonl", **run)
    job.funnel.add(total(done))
    return Edited(list(read_couples([part.path for part in done])))


def _unreached(edited: Edited) -> UnjudgedError:
    causes = ", ".join(f"{count} for '{cause}'" for cause, count in sorted(edited.unreached.items()))
    return UnjudgedError(
        f"{sum(edited.unreached.values())} pictures were not edited because an endpoint was not reached: {causes}. "
        "What came is kept in the cache. Fix: raise max_cost or see that the endpoint is up, and run the command "
        "again, or leave those pictures out with --allow-unjudged."
    )


def _report(folder: Path, summary: dict[str, Any], job: _Job, concluded: Concluded, out: Path) -> None:
    file = PairFile(out)
    splits: Counter[str] = Counter()
    domains: Counter[str] = Counter()
    cosines, sizes = array("d"), array("d")
    for pair in file:
        splits[pair.split] += 1
        domains[f"{pair.provenance['method']}: {pair.provenance['domain']}"] += 1
        if "cosine" in pair.provenance:
            cosines.append(pair.provenance["cosine"])
        sizes.extend(len(image.bytes) for context in pair.contexts for image in context.images)
    histograms = [Histogram("encoded picture, bytes", sizes)]
    if cosines:
        histograms.insert(0, Histogram("cosine of retrieved couples", cosines))
    write_report(
        folder,
        {name: value for name, value in summary.items() if name != "stages"} | {"splits": splits},
        job.funnel,
        chain(_kept(file), _dropped(job), concluded.dropped),
        title=f"Image pairs: {out.name}",
        histograms=histograms,
        tables={"splits": splits, "methods and domains": domains},
    )


def _kept(file: PairFile, each: int = 8) -> Iterator[Example]:
    """Some pairs of every method, from all over the file."""
    rows: dict[str, list[int]] = {}
    for row, pair in enumerate(file):
        rows.setdefault(pair.provenance["method"], []).append(row)
    for found in rows.values():
        yield from spread(file, each, found)


def _dropped(job: _Job) -> Iterator[Example]:
    for stage, reason, sample in job.funnel.sampled("images", at_least=2):
        names = [name for name in sample["images"][:2] if name in job.store]
        images = [ImageRef(bytes=job.store.path(name).read_bytes()) for name in names]
        yield Example(
            title=" and ".join(sample["images"][:2]),
            contexts=[Context(kind="images", images=[image]) for image in images],
            status="dropped",
            reason=f"{stage}: {reason}",
            question=str(sample.get("question", "") or "\n".join(sample.get("questions", []))),
            answer="\n".join(map(str, sample.get("answers", []))),
            facts={key: value for key, value in sample.items() if key not in ("images", "question", "answers")},
            labels=("one picture", "the other picture"),
        )
