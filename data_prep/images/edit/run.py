"""Edits pictures: propose, edit, check, for every chosen question. One path for offline and remote models."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from data_prep.common.funnel import SAMPLES_PER_REASON, Funnel, Stage
from data_prep.common.seeded import draw
from data_prep.images.edit.check import check_edit
from data_prep.images.edit.model_spec import EditorSpec, ProposerSpec, make_editor, make_proposer
from data_prep.images.edit.plan import Editor, NotEdited, NotReached, Proposer
from data_prep.images.edit.redrawn import changed_region
from data_prep.images.item import ImageCouple, VqaItem, read_items, write_records
from data_prep.images.store import ImageStore
from data_prep.images.wording import answer_key
from data_prep.models.endpoint import answers

if TYPE_CHECKING:
    from PIL import Image

ITEMS_PER_PART = 128
STAGES = ("propose", "edit", "check edit")


@dataclass(frozen=True)
class EditSettings:
    """Everything the edits of given items depend on.

    Attributes:
        proposer, editor: who does it.
        edits: how many are tried at most, of one picture one.
    """

    proposer: ProposerSpec = field(default_factory=ProposerSpec)
    editor: EditorSpec = field(default_factory=EditorSpec)
    edits: int = 700
    seed: int = 1

    @property
    def remote(self) -> bool:
        """Whether an endpoint is asked: then all edits are made in one process, which minds the cap."""
        return self.proposer.remote or self.editor.remote


_SETTINGS = TypeAdapter(EditSettings)


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


def plan_edits(paths: Sequence[Path], store: Path, settings: EditSettings, funnel: Funnel) -> list[dict[str, Any]]:
    """Choose the questions (stage ``choose edits``) and pack them as payloads of :func:`edit_part`."""
    template = make_proposer(settings.proposer).template
    items = _chosen(list(read_items(paths)), settings, template, funnel.stage("choose edits", "questions"))
    common = {"store": str(store), "settings": _SETTINGS.dump_python(settings, mode="json")}
    return [
        {**common, "items": [asdict(item) for item in items[start : start + ITEMS_PER_PART]]}
        for start in range(0, len(items), ITEMS_PER_PART)
    ]


def _chosen(
    items: list[VqaItem], settings: EditSettings, template: Callable[[VqaItem], str | None], stage: Stage
) -> list[VqaItem]:
    """Draw items; the chosen ones stay in order.

    Every pair of template and answer gives one in turn, as long as it has some: then no answer and no template goes
    with edited pictures more than another. What has no template cannot be edited for.
    """
    groups: dict[tuple[str, str], list[tuple[bytes, int]]] = defaultdict(list)
    for index, item in enumerate(items):
        if (kind := template(item)) is None:
            stage.drop("question not understood", {"item_id": item.item_id, "question": item.question})
        else:
            groups[kind, item.answer.casefold().strip()].append((draw(settings.seed, "edit", item.item_id), index))
    # Which group gives first must not follow from its name either, if there are more groups than edits.
    names = sorted(groups, key=lambda name: draw(settings.seed, "edit", *name))
    turns = deque(deque(sorted(groups[name])) for name in names)
    pictures: set[str] = set()
    chosen: set[int] = set()
    full = 0
    while turns and len(chosen) < settings.edits:
        group = turns.popleft()
        while group:
            _, index = group.popleft()
            if items[index].image not in pictures:
                pictures.add(items[index].image)
                chosen.add(index)
                turns.append(group)
                break
            full += 1
    if full:
        stage.drop("its picture is edited for another question", count=full)
    if rest := sum(map(len, groups.values())) - full - len(chosen):
        stage.drop("not drawn", count=rest)
    stage.keep(len(chosen))
    return [items[index] for index in sorted(chosen)]


def edit_part(payload: dict[str, Any], path: Path) -> Funnel:
    """Edit the pictures of a payload with models of this machine (parts cannot share a cap), and write the couples."""
    settings, funnel = _SETTINGS.validate_python(payload["settings"]), Funnel()
    items = [VqaItem(**row) for row in payload["items"]]
    write_records(edit_here(items, Path(payload["store"]), settings, funnel).couples, path)
    return funnel


def edit_here(
    items: Iterable[VqaItem],
    store: Path,
    settings: EditSettings,
    funnel: Funnel,
    progress: Callable[[int], Any] = lambda count: None,
    editor: Editor | None = None,
) -> Edited:
    """Edit pictures in this process; endpoints are asked for many at a time, under one cap.

    Answers are cached: a killed run asks only what is missing, and its result is the same to the byte.

    Args:
        progress: called with 1 for every question.
        editor: instead of the one that the settings name.

    Raises:
        ConfigError: settings that make no sense, or an endpoint that cannot be used; what it answered is in its cache.
    """
    pictures, result = ImageStore(store), Edited([])
    proposer, editor = make_proposer(settings.proposer), editor or make_editor(settings.editor)
    stages = {name: funnel.stage(name, "questions") for name in STAGES}

    async def work(item: VqaItem) -> ImageCouple | _Dropped:
        return await _edit(item, pictures, proposer, editor, settings.seed)

    remote = {name: part for name, part in (("proposer", proposer), ("editor", editor)) if part.remote}

    @asynccontextmanager
    async def session() -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for part in remote.values():
                await stack.enter_async_context(part)
            yield

    for item, found in answers(session(), items, work):
        for name, stage in stages.items():
            if isinstance(found, _Dropped) and found.stage == name:
                _drop(item, found, stage, pictures)
                result.unreached.update([found.why.reason] if isinstance(found.why, NotReached) else [])
                break
            stage.keep()
        else:
            result.couples.append(found)
        progress(1)
    result.usage = {name: part.summary() for name, part in remote.items()}
    return result


@dataclass(frozen=True)
class _Dropped:
    stage: str
    why: NotEdited
    edited: Image.Image | None = None


async def _edit(
    item: VqaItem, store: ImageStore, proposer: Proposer, editor: Editor, seed: int
) -> ImageCouple | _Dropped:
    stage, edited = "propose", None
    try:
        image = store.open(item.image)
        plan = await proposer.propose(item, image, seed)
        if not answer_key(plan.new_answer).differs(answer_key(item.answer)):
            raise NotEdited("proposal keeps the answer", f"{plan.new_answer!r} for {item.answer!r}")
        stage = "edit"
        if plan.operation not in editor.operations:
            raise NotEdited("operation not offered by the editor", plan.operation)
        edited = await editor.edit(image, plan, seed)
        stage = "check edit"
        if edited.size != image.size:
            raise NotEdited("size changed", f"{image.size} to {edited.size}")
        region = plan.region_in(image) or changed_region(image, edited)
        check = check_edit(image, edited, region)
        measures = {name: round(value, 4) for name, value in check.measures.items()}
        if check.reason is not None:
            raise NotEdited(check.reason, f"{plan.operation}: {measures}")
    except NotEdited as error:
        return _Dropped(stage, error, edited)
    origin = {**item.provenance, "item_id": item.item_id, "source": item.source}
    return ImageCouple(
        question=item.question,
        images=(item.image, store.put(edited)),
        answers=(item.answer, plan.new_answer),
        method="edit",
        domain=item.domain,
        provenance=(origin, {"edited_from": origin, "plan": plan.facts(), "by": f"{proposer.name}; {editor.name}"}),
        facts={"operation": plan.operation, "region": list(region), **measures},
    )


def _drop(item: VqaItem, found: _Dropped, stage: Stage, store: ImageStore) -> None:
    sample = None
    if len(stage.samples.get(found.why.reason, [])) < SAMPLES_PER_REASON:
        images = [item.image] + ([store.put(found.edited)] if found.edited is not None else [])
        asked = {"item_id": item.item_id, "question": item.question, "answer": item.answer}
        sample = asked | {"detail": found.why.detail, "images": images}
    stage.drop(found.why.reason, sample)


def estimate(items: Sequence[VqaItem], store: Path, settings: EditSettings) -> Iterator[str]:
    """Sentences for a dry run: what proposals and edits would be asked for and cost. Asks nothing.

    A plan that is not known yet counts as one edit: some will not be proposed, so the count is an upper bound.
    """
    pictures = ImageStore(store)
    proposer, editor = make_proposer(settings.proposer), make_editor(settings.editor)
    yield f"{len(items)} questions to edit for"
    if settings.proposer.remote:
        yield f"proposer: {proposer.sentence((item, pictures.open(item.image)) for item in items)}"
    if settings.editor.remote:
        # Outside of `async with` endpoints answer from their caches.
        found = [asyncio.run(_edit(item, pictures, proposer, editor, settings.seed)) for item in items]
        edits = sum(isinstance(one, _Dropped) and isinstance(one.why, NotReached) for one in found)
        budget, money = editor.budget, "no price given, so no cost"
        if budget.prices:
            money = f"at most {budget.cost((0, edits)):.4f} {budget.currency} without retries"
        yield f"editor: at most {edits} pictures to make, {editor.usage.cached} already in the cache; {money}"
