"""``contextrl pairs images``: from questions about pictures to verified pairs, a report, and counts of every loss."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

import contextrl_verl
from contextrl_verl.pairs import Context, ContrastivePair, ImageRef
from contextrl_verl.pairs.files import PairFile, write_pairs
from data_prep.common.funnel import Funnel
from data_prep.common.pipeline import Done, Engine, PipelineError, fingerprint, remove, run_parts, total
from data_prep.common.splits import assign_components
from data_prep.images.build import build_part, plan_build
from data_prep.images.edit.run import Edited, EditSettings, edit_here, edit_part, estimate, plan_edits
from data_prep.images.embed import embed_part, load_embeddings, make_embedder, plan_embed
from data_prep.images.embed.make import in_one_process
from data_prep.images.item import ImageCouple, Method, VqaItem, read_couples, write_couples, write_items
from data_prep.images.retrieve import RetrieveSettings, find_image_couples
from data_prep.images.sources import describe_source, load_items, plan_source, scan_images
from data_prep.images.store import ImageStore
from data_prep.report.page import Example, Histogram, write_report
from data_prep.report.samples import sampled
from data_prep.verify.rules import RuleSettings
from data_prep.verify.write import Concluded, Judging, UnjudgedError, conclude, nothing_left, spread

METHODS: tuple[Method, ...] = ("retrieve", "edit")


@dataclass(frozen=True)
class ImageSettings:
    """Everything the result depends on besides the source.

    Attributes:
        source: options of the source, see :class:`data_prep.images.sources.SourceOptions`.
        methods: how couples are made.
        embedder: see :func:`data_prep.images.embed.make_embedder`.
        shares: of the splits; no picture is in two of them.
    """

    source: dict[str, Any] = field(default_factory=dict)
    methods: tuple[Method, ...] = METHODS
    embedder: str = "descriptor"
    retrieve: RetrieveSettings = field(default_factory=RetrieveSettings)
    edit: EditSettings = field(default_factory=EditSettings)
    shares: dict[str, float] = field(default_factory=lambda: {"train": 0.8, "validation": 0.1, "probe": 0.1})
    seed: int = 1


@dataclass
class Found:
    """What is left for verification.

    Attributes:
        work: folder of this job; deleting its parent forgets the job.
        candidates: file of pairs.
        store: the pictures.
        usage: of the endpoints that proposed and edited.
    """

    work: Path
    candidates: Path
    funnel: Funnel
    store: ImageStore
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

    Raises:
        ImagePairError: no such source, or an option that makes no sense.
        PipelineError: a part failed, or no pair is left.
        UnjudgedError, RemoteError: an endpoint could not see everything; what is done is kept.
    """
    started = time.monotonic()
    judging = judging or Judging()
    how = {"engine": engine, "workers": workers, "progress": progress}
    found = find_candidates(source, out, settings, how, gpus=gpus, allow_unreached=judging.allow_unjudged)
    concluded = conclude(found.candidates, out, RuleSettings(), judging, found.funnel)
    summary = {
        "contextrl_verl_version": contextrl_verl.__version__,
        "source": source if not Path(source).exists() else Path(source).name,
        "questions_read": found.funnel.stage("read").entered,
        "pairs": concluded.pairs,
        "methods": dict(Counter(pair.provenance["method"] for pair in PairFile(out))),
        "settings": asdict(settings),
        **concluded.summary(),
        **found.usage,
        "seconds": round(time.monotonic() - started, 1),
        "stages": [stage.summary() for stage in found.funnel],
    }
    if report is not None:
        _report(report, summary, found, concluded, out)
    if not keep_work:
        remove(found.work.parent)
    return summary


def edit_costs(
    source: str, out: Path, settings: ImageSettings, *, engine: Engine = "local", workers: int | None = None
) -> Iterator[str]:
    """Sentences about what proposer and editor would cost; reads the source, asks nothing."""
    run = {"engine": engine, "workers": workers, "progress": True}
    read = _read(source, out, settings, Funnel(), run)
    parts = plan_edits([read.listed], read.store.folder, settings.edit, Funnel())
    items = [VqaItem(**row) for part in parts for row in part["items"]]
    yield from estimate(items, read.store.folder, settings.edit)


@dataclass(frozen=True)
class _Read:
    work: Path
    store: ImageStore
    items: list[VqaItem]
    listed: Path


def _read(source: str, out: Path, settings: ImageSettings, funnel: Funnel, run: dict[str, Any]) -> _Read:
    embedder = make_embedder(settings.embedder).name if "retrieve" in settings.methods else ""
    described = [describe_source(source, settings.source), embedder]
    name = fingerprint([contextrl_verl.__version__, described, asdict(settings)])
    work = out.with_name(f".{out.name}.work") / name
    store = ImageStore(work / "pictures")
    parts = [{**part, "store": str(store.folder.resolve())} for part in plan_source(source, settings.source)]
    scanned = run_parts(work / "scan", parts, scan_images, title="Reading questions", **run)
    funnel.add(total(scanned))
    items = load_items([part.path for part in scanned], funnel)
    listed = work / "items.parquet"
    write_items(items, listed)
    return _Read(work, store, items, listed)


def find_candidates(
    source: str,
    out: Path,
    settings: ImageSettings,
    run: dict[str, Any],
    *,
    gpus: float = 0,
    allow_unreached: bool = False,
) -> Found:
    """Everything before verification, in a work folder next to ``out``; see :func:`prepare_images`.

    Args:
        run: engine, workers and progress of :func:`data_prep.common.pipeline.run_parts`.
        gpus: of each worker that embeds or edits.
    """
    funnel = Funnel()
    read = _read(source, out, settings, funnel, run)
    work, store = read.work, read.store
    with_gpus = {**run, "gpus": gpus}
    couples: list[ImageCouple] = []
    if "retrieve" in settings.methods:
        couples += _retrieved(read.items, store, work, settings, funnel, with_gpus)
    usage: dict[str, Any] = {}
    if "edit" in settings.methods:
        edited = _edited(read.listed, store, work, settings, funnel, with_gpus)
        if edited.unreached and not allow_unreached:
            raise _unreached(edited)
        couples += edited.couples
        usage = edited.usage
    if not couples:
        raise PipelineError(nothing_left(funnel))
    chosen = work / "couples.parquet"
    write_couples(couples, chosen)
    splits = assign_components([couple.images for couple in couples], settings.shares, seed=settings.seed)
    payloads = plan_build(chosen, splits, store.folder)
    built = run_parts(work / "build", payloads, build_part, title="Building pairs", **run)
    candidates = work / "pairs.parquet"
    write_pairs(_all_pairs(built), candidates)
    return Found(work, candidates, funnel, store, usage)


def _retrieved(
    items: list[VqaItem], store: ImageStore, work: Path, settings: ImageSettings, funnel: Funnel, run: dict[str, Any]
) -> list[ImageCouple]:
    parts = plan_embed((item.image for item in items), store.folder, settings.embedder)
    if in_one_process(settings.embedder):
        # An endpoint's concurrency and cap are counted in a process.
        run = {**run, "workers": 1}
    done = run_parts(work / "embed", parts, embed_part, title="Embedding pictures", **run)
    funnel.add(total(done))
    embeddings = load_embeddings([part.path for part in done])
    return find_image_couples(items, embeddings, settings.retrieve, funnel)


def _edited(
    listed: Path, store: ImageStore, work: Path, settings: ImageSettings, funnel: Funnel, run: dict[str, Any]
) -> Edited:
    parts = plan_edits([listed], store.folder, settings.edit, funnel)
    if settings.edit.remote:
        # One process, which minds the cap; answers are cached, so a killed job asks only what is missing.
        items = [VqaItem(**row) for part in parts for row in part["items"]]
        with tqdm(total=len(items), desc="Editing pictures", unit="picture", disable=not run["progress"]) as bar:
            return edit_here(items, store.folder, settings.edit, funnel, bar.update)
    done = run_parts(work / "edit", parts, edit_part, title="Editing pictures", **run)
    funnel.add(total(done))
    return Edited(list(read_couples([part.path for part in done])))


def _unreached(edited: Edited) -> UnjudgedError:
    causes = ", ".join(f"{count} for '{cause}'" for cause, count in sorted(edited.unreached.items()))
    return UnjudgedError(
        f"{sum(edited.unreached.values())} pictures were not edited because an endpoint was not reached: {causes}. "
        "What came is kept in the cache. Fix: raise max_cost or see that the endpoint is up, and run the command "
        "again, or leave those pictures out with --allow-unjudged."
    )


def _all_pairs(built: list[Done]) -> Iterator[ContrastivePair]:
    for part in built:
        yield from PairFile(part.path)


def _report(folder: Path, summary: dict[str, Any], found: Found, concluded: Concluded, out: Path) -> None:
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
        found.funnel,
        chain(_kept(file), _dropped(found), concluded.dropped),
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


def _dropped(found: Found) -> Iterator[Example]:
    for stage, reason, sample in sampled(found.funnel, "images", at_least=2):
        names = [name for name in sample["images"][:2] if name in found.store]
        images = [ImageRef(bytes=found.store.path(name).read_bytes()) for name in names]
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
