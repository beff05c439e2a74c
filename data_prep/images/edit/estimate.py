"""What edits would cost, before anything is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from data_prep.images.edit.base import Editor, Proposer
from data_prep.images.edit.plan import EditPlan, NotEdited
from data_prep.images.edit.remote_images import RemoteEditor
from data_prep.images.edit.vlm import VlmProposer, plan_of

if TYPE_CHECKING:
    from data_prep.images.item import VqaItem
    from data_prep.images.store import ImageStore

# A proposal of a few sentences and the names around it.
_USUAL_REPLY_TOKENS = 180


def sentences(
    items: Iterable[VqaItem], store: ImageStore, proposer: Proposer, editor: Editor, seed: int
) -> Iterator[str]:
    """Calls, tokens and money of the proposer, then of the editor; offline ones cost nothing.

    A plan that is not known yet counts as one edit: some will not be proposed, so the count is an upper bound.
    """
    count = calls = known = edits = cached = guess = bound = 0
    for item in items:
        image = store.open(item.image)
        count += 1
        plan: EditPlan | None = None
        try:
            if isinstance(proposer, VlmProposer):
                reply = proposer.stored(item, image)
                if reply is None:
                    calls += 1
                    tokens = proposer.tokens(item, image)
                    guess, bound = guess + tokens[0], bound + tokens[1]
                else:
                    known += 1
                    plan = plan_of(reply, item, image)
            else:
                plan = asyncio.run(proposer.propose(item, image, seed))
        except NotEdited:
            continue
        stored = plan is not None and isinstance(editor, RemoteEditor) and editor.is_stored(image, plan)
        cached, edits = cached + stored, edits + (not stored)
    yield f"{count} questions to edit for"
    if isinstance(proposer, VlmProposer):
        settings, prices = proposer.endpoint.settings, proposer.endpoint.budget.prices
        usual = calls * min(_USUAL_REPLY_TOKENS, settings.max_tokens)
        money = "no prices given, so no cost"
        if prices is not None:
            worst = prices.cost(bound, calls * settings.max_tokens)
            money = f"{prices.cost(guess, usual):.4f} {prices.currency} (at most {worst:.4f} without retries)"
        yield (
            f"proposer: {calls} calls to make, {known} answers already in the cache; about {guess:,} input and "
            f"{usual:,} output tokens; {money}"
        )
    if isinstance(editor, RemoteEditor):
        prices = editor.budget.prices
        money = "no price given, so no cost"
        if prices is not None:
            money = f"at most {prices.cost(0, edits):.4f} {prices.currency} without retries"
        yield f"editor: at most {edits} pictures to make, {cached} already in the cache; {money}"
