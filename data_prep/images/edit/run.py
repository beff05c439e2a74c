"""Edits pictures: propose, edit, check, for every chosen question. One path for offline and remote models.

Proposer and editor are as a command names them: ``--proposer rules:easy_vqa --editor gemini:MODEL``.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import Field, TypeAdapter

from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import SAMPLES_PER_REASON, Funnel, Stage, is_of_item
from data_prep.common.splits import draw
from data_prep.images.edit.check import check_edit
from data_prep.images.edit.plan import NotEdited, NotReached
from data_prep.images.edit.procedural import ProceduralEditor
from data_prep.images.edit.redrawn import changed_region
from data_prep.images.edit.rules import EasyVqaRules, GivenPlans
from data_prep.images.item import ImageCouple, VqaItem, answer_key, in_turns, write_records
from data_prep.images.store import ImageStore
from data_prep.models.endpoint import answers
from data_prep.models.spec import Budget, ModelSpec

if TYPE_CHECKING:
    from PIL import Image

_ITEMS_PER_PART = 128
_LOCAL_PROPOSERS = {"rules:easy_vqa": EasyVqaRules, "given": GivenPlans}


class ProposerSpec(ModelSpec):
    """Who says what to change: ``rules:easy_vqa``, ``given`` (plans of the source's own), or a vision-language model
    of an endpoint."""

    model: str = Field("rules:easy_vqa", min_length=1)
    cache: Path | None = Path("outputs/edit_cache")


class EditorSpec(ModelSpec):
    """Who carries it out: ``procedural``, ``gemini:MODEL``, ``openai:MODEL`` or ``diffusers:FOLDER_OR_NAME``; the price
    is of one picture, for the cap and the dry run, instead of ``price_in`` and ``price_out``."""

    model: str = Field("procedural", min_length=1)
    cache: Path | None = Path("outputs/edit_cache")
    key_variable: str = ""
    timeout: float = Field(180.0, gt=0)
    price: Decimal | None = Field(None, ge=0)

    def budget(self) -> Budget:
        """Counts pictures as output; raises ConfigError for a cap without a price, or prices of tokens."""
        if (self.price_in, self.price_out) != (None, None) or (self.max_cost is not None and self.price is None):
            raise ConfigError("An editor's price and cap are in pictures. Fix: give price=..., of one, with max_cost.")
        return Budget(self.price and (Decimal(0), self.price * 1_000_000), self.max_cost)


@dataclass(frozen=True)
class EditSettings:
    """Everything the edits of given items depend on; at most so many ``edits`` are tried, one of a picture."""

    proposer: ProposerSpec = field(default_factory=ProposerSpec)
    editor: EditorSpec = field(default_factory=EditorSpec)
    edits: int = 700
    seed: int = 1

    @property
    def remote(self) -> bool:
        """Whether an endpoint is asked: then all edits are made in one process, which minds the cap."""
        return make_proposer(self.proposer).remote or make_editor(self.editor).remote


_SETTINGS = TypeAdapter(EditSettings)


def make_proposer(spec: ProposerSpec) -> Any:
    """The proposer of a spec. Raises ConfigError if there is none, or its prices, cap or address make no sense."""
    if spec.model in _LOCAL_PROPOSERS:
        return _LOCAL_PROPOSERS[spec.model]()
    if spec.model.startswith("rules:"):
        raise ConfigError(
            f"proposer {spec.model!r}: there are rules for easy_vqa only. Fix: give {', '.join(_LOCAL_PROPOSERS)}, or "
            "the name of a vision-language model."
        )
    from data_prep.images.edit.vlm import VlmProposer

    return VlmProposer(spec)


def make_editor(spec: EditorSpec) -> Any:
    """The editor of a spec. Raises ConfigError if there is none, or its price, cap or address make no sense."""
    kind, _, model = spec.model.partition(":")
    if spec.model == "procedural":
        return ProceduralEditor()
    if kind not in ("gemini", "openai", "diffusers") or not model:
        raise ConfigError(
            f"editor {spec.model!r} is none. Fix: give procedural, gemini:MODEL, openai:MODEL or diffusers:FOLDER."
        )
    from data_prep.images.edit.generative import DiffusersEditor, GeminiEditor, OpenAIEditor

    if kind == "diffusers":
        return DiffusersEditor(model)
    variable = spec.key_variable or f"{kind.upper()}_API_KEY"
    named = spec.model_copy(update={"model": model, "key_variable": variable})
    return (GeminiEditor if kind == "gemini" else OpenAIEditor)(named)


@dataclass
class Edited:
    """Couples of original and edited picture; how many questions an endpoint should have seen and did not, by cause,
    without which the set is incomplete; and the usage of proposer and editor, where they ask an endpoint."""

    couples: list[ImageCouple] = field(default_factory=list)
    unreached: Counter[str] = field(default_factory=Counter)
    usage: dict[str, dict[str, Any]] = field(default_factory=dict)


def choose_edits(items: Sequence[VqaItem], settings: EditSettings, funnel: Funnel) -> list[VqaItem]:
    """Draw the questions to edit for (stage ``choose edits``); the chosen ones stay in order.

    Every pair of template and answer gives one in turn, as long as it has some: then no answer and no template goes
    with edited pictures more than another. What has no template cannot be edited for.
    """
    template, stage = make_proposer(settings.proposer).template, funnel.stage("choose edits", "questions")
    groups: dict[tuple[str, str], list[tuple[bytes, int]]] = defaultdict(list)
    for index, item in enumerate(items):
        asked = {"item_id": item.item_id, "question": item.question}
        try:
            kind = template(item)
        except Exception as error:
            stage.fail(error, asked)
            continue
        if kind is None:
            stage.drop("question not understood", asked)
        else:
            groups[kind, item.answer.casefold().strip()].append((draw(settings.seed, "edit", item.item_id), index))
    # Which group gives first must not follow from its name either, if there are more groups than edits.
    names = sorted(groups, key=lambda name: draw(settings.seed, "edit", *name))
    pictures: set[str] = set()

    def turns(group: list[tuple[bytes, int]]) -> Iterator[int]:
        for _, index in sorted(group):
            if items[index].image in pictures:
                stage.drop("its picture is edited for another question")
            else:
                pictures.add(items[index].image)
                yield index

    chosen = sorted(islice(in_turns(turns(groups[name]) for name in names), settings.edits))
    stage.keep(len(chosen))
    if rest := len(items) - stage.entered:
        stage.drop("not drawn", count=rest)
    return [items[index] for index in chosen]


def plan_edits(items: Sequence[VqaItem], store: Path, settings: EditSettings) -> list[dict[str, Any]]:
    """Payloads of :func:`edit_part`."""
    common = {"store": str(store), "settings": _SETTINGS.dump_python(settings, mode="json")}
    starts = range(0, len(items), _ITEMS_PER_PART)
    return [{**common, "items": [asdict(item) for item in items[at : at + _ITEMS_PER_PART]]} for at in starts]


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
    editor: Any = None,
) -> Edited:
    """Edit pictures in this process; endpoints are asked for many at a time, under one cap.

    Answers are cached: a killed run asks only what is missing, and its result is the same to the byte. ``progress`` is
    called with 1 for every question; ``editor`` stands for the one that the settings name. Raises ConfigError: an
    endpoint that cannot be used.
    """
    pictures, result = ImageStore(store), Edited()
    proposer, editor = make_proposer(settings.proposer), editor or make_editor(settings.editor)
    stages = {name: funnel.stage(name, "questions") for name in ("propose", "edit", "check edit")}

    async def work(item: VqaItem) -> ImageCouple | _Left:
        return await _edit(item, pictures, proposer, editor, settings.seed)

    @asynccontextmanager
    async def session() -> AsyncIterator[None]:
        one, other = (part if part.remote else nullcontext() for part in (proposer, editor))
        async with one, other:
            yield

    for item, found in answers(session(), items, work):
        for name, stage in stages.items():
            if isinstance(found, _Left) and found.stage == name:
                _drop(item, found, stage, pictures)
                result.unreached.update([found.error.reason] if isinstance(found.error, NotReached) else [])
                break
            stage.keep()
        else:
            result.couples.append(found)
        progress(1)
    result.usage = {name: part.summary() for name, part in (("proposer", proposer), ("editor", editor)) if part.remote}
    return result


class _Left(NamedTuple):
    """Why a question gave no couple, at which stage, and the picture that was made and did not do."""

    error: Exception
    stage: str
    edited: Image.Image | None


async def _edit(item: VqaItem, store: ImageStore, proposer: Any, editor: Any, seed: int) -> ImageCouple | _Left:
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
        gone = plan.mask_of(image) if plan.operation == "erase" else None
        if gone is None and plan.operation == "erase":
            gone = np.ones((image.height, image.width), dtype=bool)
        check = check_edit(image, edited, region, gone)
        measures = {name: round(value, 4) for name, value in check.measures.items()}
        if check.reason is not None:
            raise NotEdited(check.reason, f"{plan.operation}: {measures}")
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
    except Exception as error:
        if not is_of_item(error):
            raise
        return _Left(error, stage, edited)


def _drop(item: VqaItem, found: _Left, stage: Stage, store: ImageStore) -> None:
    asked = {"item_id": item.item_id, "question": item.question, "answer": item.answer}
    if not isinstance(error := found.error, NotEdited):
        stage.fail(error, asked)
    elif len(stage.samples.get(error.reason, [])) < SAMPLES_PER_REASON:
        images = [item.image] + ([store.put(found.edited)] if found.edited is not None else [])
        stage.drop(error.reason, asked | {"detail": error.detail, "images": images})
    else:
        stage.drop(error.reason)


def estimate(items: Sequence[VqaItem], store: Path, settings: EditSettings) -> Iterator[str]:
    """Sentences about what proposals and edits would cost; a plan not known yet counts as an edit. Asks nothing."""
    pictures = ImageStore(store)
    proposer, editor = make_proposer(settings.proposer), make_editor(settings.editor)
    yield f"{len(items)} questions to edit for"
    if proposer.remote:
        yield f"proposer: {proposer.sentence((item, pictures.open(item.image)) for item in items)}"
    if editor.remote:
        # Outside of `async with` endpoints answer from their caches.
        found = [asyncio.run(_edit(item, pictures, proposer, editor, settings.seed)) for item in items]
        edits, budget = (
            sum(isinstance(one, _Left) and isinstance(one.error, NotReached) for one in found),
            editor.budget,
        )
        money = (
            f"at most {budget.cost((0, edits)):.4f} without retries" if budget.prices else "no price given, so no cost"
        )
        yield f"editor: at most {edits} pictures to make, {editor.usage.cached} already in the cache; {money}"
