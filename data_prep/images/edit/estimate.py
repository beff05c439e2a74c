"""What edits would cost, before anything is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from data_prep.images.edit.base import Editor, Proposer
from data_prep.images.edit.plan import EditPlan, NotEdited
from data_prep.images.edit.remote_images import RemoteEditor
from data_prep.images.edit.vlm import PROMPT_VERSION, Proposal, VlmProposer, plan_of, proposal_messages
from data_prep.models.budget import input_tokens

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
                messages = proposal_messages(item, image)
                reply = proposer.stored(messages, Proposal, PROMPT_VERSION)
                if reply is None:
                    calls += 1
                    about, most = input_tokens(messages, proposer.spec.tokens_per_image)
                    guess, bound = guess + about, bound + most
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
        yield f"proposer: {proposer.costs(calls, known, guess, bound, _USUAL_REPLY_TOKENS)}"
    if isinstance(editor, RemoteEditor):
        budget, money = editor.budget, "no price given, so no cost"
        if budget.known:
            money = f"at most {budget.cost((0, edits)):.4f} {budget.currency} without retries"
        yield f"editor: at most {edits} pictures to make, {cached} already in the cache; {money}"
