"""``contextrl pairs images``: from questions about pictures to verified pairs, a report, and counts of every loss."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python
from tqdm import tqdm

import contextrl_verl
from contextrl_verl.pairs import Context, ContrastivePair, ImageRef
from contextrl_verl.pairs.files import PairFile, write_pairs
from data_prep.common.funnel import Funnel
from data_prep.common.pipeline import fingerprint, refuse_failures, remove, run_parts, total
from data_prep.common.splits import assign_components, read_shares
from data_prep.images.edit.run import EditSettings, choose_edits, edit_here, edit_part, estimate, plan_edits
from data_prep.images.embed.parts import embed_part, load_embeddings, make_embedder, plan_embed
from data_prep.images.item import ImageCouple, Method, VqaItem, read_items
from data_prep.images.retrieve import RetrieveSettings, find_image_couples
from data_prep.images.sources.base import SourceOptions
from data_prep.images.sources.scan import distinct, plan_source, scan_images
from data_prep.images.store import ImageStore
from data_prep.report.page import Example, Histogram, write_report
from data_prep.verify.rules import RuleSettings
from data_prep.verify.write import Judging, UnjudgedError, Verification, conclude, nothing_left, reported, spread


@dataclass(frozen=True)
class ImageSettings:
    """Everything the result depends on besides the source; no picture is in two of the ``splits``."""

    source: SourceOptions = field(default_factory=SourceOptions)
    methods: tuple[Method, ...] = ("retrieve", "edit")
    embedder: str = "descriptor"
    retrieve: RetrieveSettings = field(default_factory=RetrieveSettings)
    edit: EditSettings = field(default_factory=EditSettings)
    splits: str = "train=0.8,validation=0.1,probe=0.1"
    seed: int = 1

    def __post_init__(self) -> None:
        read_shares(self.splits)


@dataclass(frozen=True)
class _Job:
    """A source that was read; deleting the parent of ``work`` forgets it."""

    settings: ImageSettings
    work: Path
    run: dict[str, Any]
    funnel: Funnel
    store: ImageStore
    items: list[VqaItem]


def prepare_images(
    source: str,
    out: Path,
    settings: ImageSettings,
    *,
    report: Path | None = None,
    gpus: float = 0,
    keep_work: bool = False,
    judging: Judging = Judging(),
    **run: Any,
) -> dict[str, Any]:
    """Write ``out`` (and the report) and return the summary; resumable like the trajectory side.

    ``gpus`` are of each worker that embeds or edits; ``run`` is engine, workers and progress of
    :func:`data_prep.common.pipeline.run_parts`.

    Raises:
        ConfigError: no such source, or an option that makes no sense.
        PipelineError: a part failed, or no pair is left.
        UnjudgedError: an endpoint could not see everything; what is done is kept.
    """
    started = time.monotonic()
    with reported(report, f"Image pairs: {out.name}"):
        job = _read(source, out, settings, run)
        couples = _retrieved(job, gpus) if "retrieve" in settings.methods else []
        usage: dict[str, Any] = {}
        if "edit" in settings.methods:
            edited, usage = _edited(job, gpus, judging.allow_unjudged)
            couples += edited
        if not couples:
            raise nothing_left(job.funnel)
        splits = assign_components([one.images for one in couples], read_shares(settings.splits), seed=settings.seed)
        candidates = job.work / "pairs.parquet"
        write_pairs(_made(couples, splits, job), candidates)
        refuse_failures(job.funnel, whole=True)
        concluded = conclude(candidates, out, RuleSettings(), judging, job.funnel)
    summary = {
        "contextrl_verl_version": contextrl_verl.__version__,
        "source": source if not Path(source).exists() else Path(source).name,
        "questions_read": job.funnel.stage("read").entered,
        "pairs": concluded.pairs,
        "methods": dict(Counter(pair.provenance["method"] for pair in PairFile(out))),
        "settings": to_jsonable_python(settings),
        **concluded.summary(),
        **usage,
        "seconds": round(time.monotonic() - started, 1),
        "stages": [stage.summary() for stage in job.funnel],
    }
    if report is not None:
        _report(report, summary, job, concluded, out)
    if not keep_work:
        remove(job.work.parent)
    return summary


def edit_costs(source: str, out: Path, settings: ImageSettings, **run: Any) -> Iterator[str]:
    """Sentences about what proposer and editor would cost; reads the source, asks nothing."""
    job = _read(source, out, settings, run)
    yield from estimate(choose_edits(job.items, settings.edit, job.funnel), job.store.folder, settings.edit)


def _read(source: str, out: Path, settings: ImageSettings, run: dict[str, Any]) -> _Job:
    parts = plan_source(source, settings.source)
    embedder = make_embedder(settings.embedder).name if "retrieve" in settings.methods else ""
    name = fingerprint([contextrl_verl.__version__, parts, embedder, to_jsonable_python(settings)])
    work = out.with_name(f".{out.name}.work") / name
    store = ImageStore((work / "pictures").resolve())
    parts = [{**part, "store": str(store.folder)} for part in parts]
    scanned = run_parts(work / "scan", parts, scan_images, title="Reading questions", suffix=".jsonl", **run)
    funnel = total(scanned)
    items = distinct(read_items([part.path for part in scanned]), funnel)
    if not items:
        raise nothing_left(funnel)
    return _Job(settings, work, run, funnel, store, items)


def _retrieved(job: _Job, gpus: float) -> list[ImageCouple]:
    embedder, run = job.settings.embedder, {**job.run, "gpus": gpus}
    if embedder.startswith("endpoint:"):
        # Its concurrency and spending cap are counted in one process, this one.
        run |= {"engine": "local", "workers": 1}
    parts = plan_embed((item.image for item in job.items), job.store.folder, embedder)
    done = run_parts(job.work / "embed", parts, embed_part, title="Embedding pictures", suffix=".npz", **run)
    job.funnel.add(total(done))
    embeddings = load_embeddings([part.path for part in done])
    return find_image_couples(job.items, embeddings, job.settings.retrieve, job.funnel)


def _edited(job: _Job, gpus: float, allow_unreached: bool) -> tuple[list[ImageCouple], dict[str, Any]]:
    """Couples, and the usage of the endpoints that proposed and edited."""
    settings, store = job.settings.edit, job.store.folder
    items = choose_edits(job.items, settings, job.funnel)
    if not settings.remote:
        run = {"title": "Editing pictures", "suffix": ".jsonl", "gpus": gpus, **job.run}
        done = run_parts(job.work / "edit", plan_edits(items, store, settings), edit_part, **run)
        job.funnel.add(total(done))
        return list(read_items([part.path for part in done], ImageCouple)), {}
    # One process, which minds the cap; answers are cached, so a killed job asks only what is missing.
    with tqdm(
        total=len(items), desc="Editing pictures", unit="picture", disable=not job.run.get("progress", True)
    ) as bar:
        edited = edit_here(items, store, settings, job.funnel, bar.update)
    refuse_failures(job.funnel, whole=True)
    if edited.unreached and not allow_unreached:
        causes = ", ".join(f"{count} for '{cause}'" for cause, count in sorted(edited.unreached.items()))
        raise UnjudgedError(
            f"{edited.unreached.total()} pictures were not edited because an endpoint was not reached: {causes}. "
            "What came is kept in the cache. Fix: raise max_cost or see that the endpoint is up, and run the command "
            "again, or leave those pictures out with --allow-unjudged."
        )
    return edited.couples, edited.usage


def _made(couples: list[ImageCouple], splits: list[str], job: _Job) -> Iterator[ContrastivePair]:
    stage = job.funnel.stage("make pairs", "couples")
    for couple, split in zip(couples, splits, strict=True):
        try:
            both = list(pairs_of(couple, job.store, split))
        except Exception as error:
            stage.fail(error, {"question": couple.question, "answers": couple.answers, "images": couple.images})
            continue
        stage.keep()
        yield from both


def pairs_of(couple: ImageCouple, store: ImageStore, split: str) -> Iterator[ContrastivePair]:
    """Both directions of a couple: each picture supports its own answer, the other one confounds.

    The store encodes all pictures in the same way, so that the file does not tell which one was edited.
    """
    contexts = [Context(kind="images", images=[ImageRef(bytes=store.read(name))]) for name in couple.images]
    parts = (couple.method, couple.question, *couple.images, *couple.answers)
    state = b"".join(part.encode("utf-8", "surrogatepass") + b"\0" for part in parts)
    name = hashlib.blake2b(state, digest_size=8).hexdigest()
    shown = zip(couple.provenance, couple.images, (False, couple.method == "edit"), strict=True)
    sides = [{**where, "picture": image, "edited": edited} for where, image, edited in shown]
    for side in (0, 1):
        yield ContrastivePair(
            pair_id=f"{couple.method}-{name}-{side}",
            domain="image",
            query=couple.question,
            answer=couple.answers[side],
            supporting=contexts[side],
            confounders=[contexts[1 - side]],
            provenance={
                "method": couple.method,
                "domain": couple.domain,
                "couple": name,
                "images": list(couple.images),
                "supporting": sides[side],
                "confounders": [sides[1 - side]],
                **couple.facts,
            },
            split=split,
        )


def _report(folder: Path, summary: dict[str, Any], job: _Job, concluded: Verification, out: Path) -> None:
    file = PairFile(out)
    splits: Counter[str] = Counter()
    domains: Counter[str] = Counter()
    rows: dict[str, list[int]] = defaultdict(list)
    cosines, sizes = numbers = Histogram("cosine of retrieved couples", []), Histogram("encoded picture, bytes", [])
    for row, pair in enumerate(file):
        method = pair.provenance["method"]
        rows[method].append(row)
        splits[pair.split] += 1
        domains[f"{method}: {pair.provenance['domain']}"] += 1
        cosines.values.extend([pair.provenance["cosine"]] if "cosine" in pair.provenance else [])
        sizes.values.extend(len(image.bytes) for context in pair.contexts for image in context.images)
    kept = chain.from_iterable(spread(file, 8, of_method) for of_method in rows.values())
    write_report(
        folder,
        {**summary, "splits": splits},
        job.funnel,
        chain(kept, _dropped(job), concluded.dropped),
        title=f"Image pairs: {out.name}",
        histograms=[one for one in numbers if one.values],
        tables={"splits": splits, "methods and domains": domains},
    )


def _dropped(job: _Job) -> Iterator[Example]:
    for stage, reason, sample in job.funnel.sampled("images", at_least=2):
        facts = dict(sample)
        names = facts.pop("images")[:2]
        images = [ImageRef(bytes=job.store.read(name)) for name in names if name in job.store]
        yield Example(
            title=" and ".join(names),
            contexts=[Context(kind="images", images=[image]) for image in images],
            status="dropped",
            reason=f"{stage}: {reason}",
            question=facts.pop("question", ""),
            answer="\n".join(map(str, facts.pop("answers", []))),
            facts=facts,
            labels=("one picture", "the other picture"),
        )
