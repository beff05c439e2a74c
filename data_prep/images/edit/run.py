"""Edits pictures: propose, edit, check, for every chosen question. One path for offline and remote models."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import SAMPLES_PER_REASON, Funnel, Stage
from data_prep.common.seeded import draw
from data_prep.images.edit.base import Editor, NotReached, Proposer
from data_prep.images.edit.blend import changed_region
from data_prep.images.edit.check import EditLimits, check_edit
from data_prep.images.edit.model_spec import EditorSpec, ProposerSpec, make_editor, make_proposer
from data_prep.images.edit.plan import NotEdited
from data_prep.images.item import ImageCouple, VqaItem, read_items, write_couples
from data_prep.images.wording import answer_key
from data_prep.models.endpoint import AHEAD, in_order

if TYPE_CHECKING:
    from PIL import Image

    from data_prep.images.store import ImageStore

ITEMS_PER_PART = 128


@dataclass(frozen=True)
class EditSettings:
    """Everything the edits of given items depend on.

    Attributes:
        proposer, editor: who does it.
        edits: how many are tried at most.
        per_picture: edits of one picture at most.
        limits: of the check.
    """

    proposer: ProposerSpec = field(default_factory=ProposerSpec)
    editor: EditorSpec = field(default_factory=EditorSpec)
    edits: int = 700
    per_picture: int = 1
    seed: int = 1
    limits: EditLimits = field(default_factory=EditLimits)

    @property
    def remote(self) -> bool:
        """Whether an endpoint is asked: then all edits are made in one process, which minds the cap."""
        return self.proposer.remote or self.editor.remote


@dataclass
class Edited:
    """What came of it.

    Attributes:
        couples: original and edited picture.
        unreached: questions that an endpoint should have seen and did not, by cause; the set is incomplete with any.
        usage: of proposer and editor, where they ask an endpoint.
    """

    couples: list[ImageCouple]
    unreached: Counter[str] = field(default_factory=Counter)
    usage: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Dropped:
    stage: str
    why: NotEdited
    edited: Image.Image | None = None


STAGES = ("propose", "edit", "check edit")
_SETTINGS = TypeAdapter(EditSettings)


def plan_edits(paths: Sequence[Path], store: Path, settings: EditSettings, funnel: Funnel) -> list[dict[str, Any]]:
    """Choose the questions (stage ``choose edits``) and pack them as payloads of :func:`edit_part`."""
    template = make_proposer(settings.proposer).template
    items = _chosen(paths, settings, template, funnel.stage("choose edits", "questions"))
    common = {"store": str(store), "settings": _SETTINGS.dump_python(settings, mode="json")}
    return [
        {**common, "items": [asdict(item) for item in items[start : start + ITEMS_PER_PART]]}
        for start in range(0, len(items), ITEMS_PER_PART)
    ]


def _chosen(
    paths: Sequence[Path], settings: EditSettings, template: Callable[[VqaItem], str | None], stage: Stage
) -> list[VqaItem]:
    """Draw items; two passes over the files, so that only the chosen ones are held, in the order of the files.

    Every pair of template and answer gives one in turn, as long as it has some: then no answer and no template goes
    with edited pictures more than another. What has no template cannot be edited for.
    """
    seed = settings.seed
    groups: dict[tuple[str, str], list[tuple[bytes, int, str]]] = defaultdict(list)
    for index, item in enumerate(read_items(paths)):
        kind = template(item)
        if kind is None:
            stage.drop("question not understood", {"item_id": item.item_id, "question": item.question})
        else:
            rank = draw(seed, "edit", item.item_id)
            groups[kind, item.answer.casefold().strip()].append((rank, index, item.image))
    total = sum(map(len, groups.values()))
    # Which group gives first must not follow from its name either, if there are more groups than edits.
    turns = deque(deque(sorted(groups[name])) for name in sorted(groups, key=lambda name: draw(seed, "edit", *name)))
    uses: Counter[str] = Counter()
    chosen: set[int] = set()
    full = 0
    while turns and len(chosen) < settings.edits:
        group = turns.popleft()
        while group:
            _, index, image = group.popleft()
            if uses[image] < settings.per_picture:
                uses[image] += 1
                chosen.add(index)
                turns.append(group)
                break
            full += 1
    if full:
        stage.drop("its picture is edited for another question", count=full)
    if rest := total - full - len(chosen):
        stage.drop("not drawn", count=rest)
    stage.keep(len(chosen))
    return [item for index, item in enumerate(read_items(paths)) if index in chosen]


def edit_part(payload: dict[str, Any], path: Path) -> Funnel:
    """Edit a part's pictures with models of this machine, and write the couples as Parquet.

    Args:
        payload: of :func:`plan_edits`.

    Raises:
        ConfigError: the proposer or editor is behind an endpoint: parts cannot share a cap, see :func:`edit_here`.
    """
    settings = _SETTINGS.validate_python(payload["settings"])
    if settings.remote:
        raise ConfigError(
            f"proposer {settings.proposer.model!r} or editor {settings.editor.model!r} asks an endpoint; edits in "
            "parts are for models of this machine. Fix: use edit_here."
        )
    funnel = Funnel()
    items = [VqaItem(**row) for row in payload["items"]]
    write_couples(edit_here(items, Path(payload["store"]), settings, funnel).couples, path)
    return funnel


def edit_here(
    items: Iterable[VqaItem],
    store: Path,
    settings: EditSettings,
    funnel: Funnel,
    progress: Callable[[int], Any] | None = None,
) -> Edited:
    """Edit pictures in this process; endpoints are asked for many at a time, under one cap.

    Answers are cached: a killed run asks only what is missing, and its result is the same to the byte.

    Args:
        progress: called with 1 for every question.

    Raises:
        ConfigError: an endpoint cannot be used; what was answered is in its cache.
        ConfigError: settings that make no sense.
    """
    from data_prep.images.store import ImageStore

    proposer, editor = make_proposer(settings.proposer), make_editor(settings.editor)
    return asyncio.run(edit_items(items, ImageStore(store), proposer, editor, settings, funnel, progress))


async def edit_items(
    items: Iterable[VqaItem],
    store: ImageStore,
    proposer: Proposer,
    editor: Editor,
    settings: EditSettings,
    funnel: Funnel,
    progress: Callable[[int], Any] | None = None,
) -> Edited:
    """:func:`edit_here` with any proposer and editor, in the caller's event loop."""
    stages = {name: funnel.stage(name, "questions") for name in STAGES}
    result = Edited([])

    async def work(item: VqaItem) -> ImageCouple | _Dropped:
        return await _edit(item, store, proposer, editor, settings)

    ahead = AHEAD if proposer.remote or editor.remote else 1
    async with proposer, editor:
        async for item, found in in_order(items, work, ahead):
            stopped = STAGES.index(found.stage) if isinstance(found, _Dropped) else len(STAGES)
            for name in STAGES[:stopped]:
                stages[name].keep()
            if isinstance(found, ImageCouple):
                result.couples.append(found)
            else:
                _drop(item, found, stages[found.stage], store)
                if isinstance(found.why, NotReached):
                    result.unreached[found.why.reason] += 1
            if progress is not None:
                progress(1)
        usage = {"proposer": proposer.summary(), "editor": editor.summary()}
    result.usage = {name: counts for name, counts in usage.items() if counts}
    return result


async def _edit(
    item: VqaItem, store: ImageStore, proposer: Proposer, editor: Editor, settings: EditSettings
) -> ImageCouple | _Dropped:
    stage, edited = "propose", None
    try:
        image = store.open(item.image)
        plan = await proposer.propose(item, image, settings.seed)
        if not answer_key(plan.new_answer).differs(answer_key(item.answer)):
            raise NotEdited("proposal keeps the answer", f"{plan.new_answer!r} for {item.answer!r}")
        stage = "edit"
        if plan.operation not in editor.operations:
            raise NotEdited("operation not offered by the editor", plan.operation)
        edited = await editor.edit(image, plan, settings.seed)
        stage = "check edit"
        region = plan.region or _seen_change(image, edited)
        check = check_edit(image, edited, region, settings.limits)
        if check.reason is not None:
            measures = ", ".join(f"{name} {value:.3g}" for name, value in check.measures.items())
            raise NotEdited(check.reason, f"{plan.operation}: {measures}")
    except NotEdited as error:
        return _Dropped(stage, error, edited)
    facts = {
        "operation": plan.operation,
        "region": list(region),
        **{name: round(value, 4) for name, value in check.measures.items()},
    }
    origin = {**item.provenance, "item_id": item.item_id, "source": item.source}
    return ImageCouple(
        question=item.question,
        images=(item.image, store.put(edited)),
        answers=(item.answer, plan.new_answer),
        method="edit",
        domain=item.domain,
        provenance=(origin, {"edited_from": origin, "plan": plan.facts(), "by": f"{proposer.name}; {editor.name}"}),
        facts=facts,
    )


def _seen_change(image: Image.Image, edited: Image.Image) -> tuple[int, int, int, int]:
    """Where something changed; the whole picture if that cannot be told, which the check then says."""
    try:
        return changed_region(image, edited) if edited.size == image.size else (0, 0, *image.size)
    except NotEdited:
        return 0, 0, *image.size


def _drop(item: VqaItem, found: _Dropped, stage: Stage, store: ImageStore) -> None:
    sample = None
    if len(stage.samples.get(found.why.reason, [])) < SAMPLES_PER_REASON:
        images = [item.image] + ([store.put(found.edited)] if found.edited is not None else [])
        asked = {"item_id": item.item_id, "question": item.question, "answer": item.answer}
        sample = asked | {"detail": found.why.detail, "images": images}
    stage.drop(found.why.reason, sample)


def estimate(items: Iterable[VqaItem], store: Path, settings: EditSettings) -> Iterator[str]:
    """Sentences for a dry run: what proposals and edits would be asked for and cost. Asks nothing."""
    from data_prep.images.edit.estimate import sentences
    from data_prep.images.store import ImageStore

    proposer, editor = make_proposer(settings.proposer), make_editor(settings.editor)
    return sentences(items, ImageStore(store), proposer, editor, settings.seed)
