"""Edits pictures: propose, edit, check, for every chosen question. One path for offline and remote models."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.common.funnel import SAMPLES_PER_REASON, Funnel, Stage
from data_prep.images.edit.base import Editor, NotReached, Proposer
from data_prep.images.edit.blend import changed_region
from data_prep.images.edit.check import EditCheck, EditLimits, check_edit
from data_prep.images.edit.choose import choose_items
from data_prep.images.edit.model_spec import EditorRole, ProposerRole, make_editor, make_proposer
from data_prep.images.edit.plan import EditPlan, NotEdited
from data_prep.images.errors import ImagePairError
from data_prep.images.item import ImageCouple, VqaItem, write_couples
from data_prep.images.wording import answer_key
from data_prep.models.in_order import AHEAD, in_order

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

    proposer: ProposerRole = field(default_factory=ProposerRole)
    editor: EditorRole = field(default_factory=EditorRole)
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
class _Outcome:
    stage: str
    reason: str | None = None
    detail: str = ""
    reached: bool = True
    couple: ImageCouple | None = None
    edited: Image.Image | None = None


STAGES = ("propose", "edit", "check edit")


def plan_edits(paths: Sequence[Path], store: Path, settings: EditSettings, funnel: Funnel) -> list[dict[str, Any]]:
    """Choose the questions (stage ``choose edits``) and pack them as payloads of :func:`edit_part`."""
    template = make_proposer(settings.proposer).template
    stage = funnel.stage("choose edits", "questions")
    items = choose_items(paths, settings.edits, template, stage, per_picture=settings.per_picture, seed=settings.seed)
    common = {
        "store": str(store),
        "proposer": settings.proposer.model_dump(mode="json"),
        "editor": settings.editor.model_dump(mode="json"),
        "seed": settings.seed,
        "limits": asdict(settings.limits),
    }
    return [
        {**common, "items": [asdict(item) for item in items[start : start + ITEMS_PER_PART]]}
        for start in range(0, len(items), ITEMS_PER_PART)
    ]


def edit_part(payload: dict[str, Any], path: Path) -> Funnel:
    """Edit a part's pictures with models of this machine, and write the couples as Parquet.

    Args:
        payload: of :func:`plan_edits`.

    Raises:
        ImagePairError: the proposer or editor is behind an endpoint: parts cannot share a cap, see :func:`edit_here`.
    """
    settings = EditSettings(
        proposer=ProposerRole.model_validate(payload["proposer"]),
        editor=EditorRole.model_validate(payload["editor"]),
        seed=payload["seed"],
        limits=EditLimits(**payload["limits"]),
    )
    if settings.remote:
        raise ImagePairError(
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
        RemoteError: an endpoint cannot be used; what was answered is in its cache.
        ImagePairError: settings that make no sense.
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
    names = f"{proposer.name}; {editor.name}"
    result = Edited([])

    async def work(item: VqaItem) -> _Outcome:
        return await _edit(item, store, proposer, editor, settings, names)

    ahead = AHEAD if proposer.remote or editor.remote else 1
    async with proposer, editor:
        async for item, outcome in in_order(items, work, ahead):
            _count(item, outcome, stages, store)
            if outcome.couple is not None:
                result.couples.append(outcome.couple)
            if not outcome.reached:
                result.unreached[outcome.reason or ""] += 1
            if progress is not None:
                progress(1)
        usage = {"proposer": proposer.summary(), "editor": editor.summary()}
    result.usage = {name: counts for name, counts in usage.items() if counts}
    return result


async def _edit(
    item: VqaItem, store: ImageStore, proposer: Proposer, editor: Editor, settings: EditSettings, names: str
) -> _Outcome:
    stage = "propose"
    try:
        image = store.open(item.image)
        plan = await proposer.propose(item, image, settings.seed)
        if not answer_key(plan.new_answer).differs(answer_key(item.answer)):
            raise NotEdited("proposal keeps the answer", f"{plan.new_answer!r} for {item.answer!r}")
        stage = "edit"
        if plan.operation not in editor.operations:
            raise NotEdited("operation not offered by the editor", plan.operation)
        edited = await editor.edit(image, plan, settings.seed)
    except NotEdited as error:
        return _Outcome(stage, error.reason, error.detail, reached=not isinstance(error, NotReached))
    check, region = _checked(image, edited, plan, settings.limits)
    if check.reason is not None:
        measures = ", ".join(f"{name} {value:.3g}" for name, value in check.measures.items())
        return _Outcome("check edit", check.reason, f"{plan.operation}: {measures}", edited=edited)
    facts = {
        "operation": plan.operation,
        "region": list(region),
        **{name: round(value, 4) for name, value in check.measures.items()},
    }
    origin = {**item.provenance, "item_id": item.item_id, "source": item.source}
    couple = ImageCouple(
        question=item.question,
        images=(item.image, store.put(edited)),
        answers=(item.answer, plan.new_answer),
        method="edit",
        domain=item.domain,
        provenance=(origin, {"edited_from": origin, "plan": plan.facts(), "by": names}),
        facts=facts,
    )
    return _Outcome("check edit", couple=couple)


def _checked(
    image: Image.Image, edited: Image.Image, plan: EditPlan, limits: EditLimits
) -> tuple[EditCheck, tuple[int, int, int, int]]:
    whole = (0, 0, image.width, image.height)
    if edited.size != image.size:
        return check_edit(image, edited, whole, limits), whole
    try:
        region = plan.region or changed_region(image, edited)
    except NotEdited:
        region = whole
    return check_edit(image, edited, region, limits), region


def _count(item: VqaItem, outcome: _Outcome, stages: dict[str, Stage], store: ImageStore) -> None:
    for name in STAGES[: STAGES.index(outcome.stage)]:
        stages[name].keep()
    stage = stages[outcome.stage]
    if outcome.reason is None:
        stage.keep()
        return
    sample = None
    if len(stage.samples.get(outcome.reason, [])) < SAMPLES_PER_REASON:
        images = [item.image] + ([store.put(outcome.edited)] if outcome.edited is not None else [])
        sample = {
            "item_id": item.item_id, "question": item.question, "answer": item.answer, "detail": outcome.detail,
            "images": images,
        }  # fmt: skip
    stage.drop(outcome.reason, sample)


def estimate(items: Iterable[VqaItem], store: Path, settings: EditSettings) -> Iterator[str]:
    """Sentences for a dry run: what proposals and edits would be asked for and cost. Asks nothing."""
    from data_prep.images.edit.estimate import sentences
    from data_prep.images.store import ImageStore

    proposer, editor = make_proposer(settings.proposer), make_editor(settings.editor)
    return sentences(items, ImageStore(store), proposer, editor, settings.seed)
