"""Takes plans from the source itself: a record that brings its own edit under ``edit`` in its provenance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from data_prep.images.edit.base import Offline
from data_prep.images.edit.plan import EditPlan, NotEdited
from data_prep.images.wording import question_key

if TYPE_CHECKING:
    from PIL import Image

    from data_prep.images.item import VqaItem


class GivenPlans(Offline):
    """For sources with annotated objects: ``{"operation": "erase", "mask": base64 of a PNG, "new_answer": "2"}``."""

    name = "given-1"

    def template(self, item: VqaItem) -> str | None:
        return question_key(item.question) if "edit" in item.provenance else None

    async def propose(self, item: VqaItem, image: Image.Image, seed: int) -> EditPlan:
        """See :class:`data_prep.images.edit.base.Proposer`."""
        if "edit" not in item.provenance:
            raise NotEdited("no plan given")
        try:
            return EditPlan.model_validate(item.provenance["edit"])
        except ValidationError as error:
            first = error.errors()[0]
            raise NotEdited("plan not usable", f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
