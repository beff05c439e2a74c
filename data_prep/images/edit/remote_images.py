"""What all editors behind an endpoint have in common: cache, cap, retries, and back to one region of the original."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

from data_prep.images.decode import ImageRejected, open_image
from data_prep.images.edit.base import NotReached
from data_prep.images.edit.blend import Frame, changed_region, paste_region, refuse_restyled, same_shape
from data_prep.images.edit.plan import EditPlan, NotEdited, Operation, seen_region
from data_prep.models.cache import digest
from data_prep.models.endpoint import GuardedEndpoint
from data_prep.models.errors import CapReached, Refused, Transient
from data_prep.models.reply import MalformedReply

if TYPE_CHECKING:
    from PIL import Image

# Part of the cache key: raise it whenever the wording or the way a picture is sent changes.
_VERSION = "edit-1"
_FORMS = {
    "recolour": "Change the colour of the {target}.",
    "move": "Move the {target} to another place.",
    "erase": "Remove the {target} and fill its place with what is around it.",
    "add": "Add {target}.",
    "replace": "Replace the {target}.",
    "reletter": "Change the text of the {target}.",
}
_CARE = (
    "Change nothing else: keep the framing, the size, the light, the sharpness and the style of the picture, and every "
    "other detail, exactly as they are. The change must look as if it had always been there."
)


def instruction_of(plan: EditPlan) -> str:
    """The text that a generative editor gets.

    Raises:
        NotEdited: the plan does not say what to do.
    """
    text = plan.instruction.strip()
    if not text and plan.operation in _FORMS and plan.target.strip():
        text = _FORMS[plan.operation].format(target=plan.target.strip())
    if not text:
        raise NotEdited("no instruction", plan.operation)
    place = ""
    if plan.region is not None:
        left, top, right, bottom = plan.region
        place = f" It lies between the pixels ({left}, {top}) and ({right}, {bottom})."
    return f"{text}{place} {_CARE}"


class RemoteEditor(GuardedEndpoint):
    """An editor behind an endpoint; a subclass sends the request and finds the picture in the answer.

    Attributes:
        canvases: sizes that the model knows; None if it takes all.
        parameters: what of the settings can change an answer, besides model and plan.
    """

    remote = True
    operations: frozenset[Operation] = frozenset(get_args(Operation))
    kind = ""
    canvases: list[tuple[int, int]] | None = None
    parameters: Mapping[str, Any] = {}

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.settings.model} {_VERSION}"

    def _request(self, image: Image.Image, plan: EditPlan) -> dict[str, Any]:
        """What is sent: arguments of the client's function."""
        raise NotImplementedError

    async def _ask(self, request: dict[str, Any]) -> bytes:
        """One request; the encoded picture in the answer. Raises MalformedReply if there is none."""
        raise NotImplementedError

    async def edit(self, image: Image.Image, plan: EditPlan, seed: int) -> Image.Image:
        """See :class:`data_prep.images.edit.base.Editor`; the seed has no influence."""
        instruction_of(plan)
        key = self.key(image, plan)
        record = self.cache.read(key) if self.cache else None
        answer = self._stored(record, image)
        if answer is not None:
            self.usage.cached += 1
        elif record is not None and record.get("how") == "malformed" and not self.settings.again_if_malformed:
            self.usage.cached += 1
            raise NotEdited("no picture came back", str(record.get("why")))
        else:
            answer = await self._asked(key, image, plan)
        region = seen_region(plan.region, image) if plan.region is not None else changed_region(image, answer)
        refuse_restyled(image, answer, region)
        return paste_region(image, answer, region)

    def key(self, image: Image.Image, plan: EditPlan) -> str:
        """The cache key of an edit."""
        return digest(
            {
                "version": _VERSION,
                "editor": self.kind,
                "model": self.settings.model,
                "parameters": dict(self.parameters),
                "image": [image.size, hashlib.sha256(image.tobytes()).hexdigest()],
                "instruction": instruction_of(plan),
                "region": plan.region,
                "mask": None if plan.mask is None else base64.b64encode(plan.mask).decode("ascii"),
            }
        )

    def is_stored(self, image: Image.Image, plan: EditPlan) -> bool:
        """Whether the edit costs nothing."""
        return self.cache is not None and self.cache.read(self.key(image, plan)) is not None

    def _stored(self, record: dict[str, Any] | None, image: Image.Image) -> Image.Image | None:
        if record is None or record.get("how") != "answered":
            return None
        try:
            return self._fitted(base64.b64decode(str(record.get("image")), validate=True), image)
        except (MalformedReply, binascii.Error):
            self.cache.damaged += 1
            return None

    async def _asked(self, key: str, image: Image.Image, plan: EditPlan) -> Image.Image:
        problem = ""

        # Encoding takes a while; meanwhile the answers of others are read, and no timeout runs.
        request = await asyncio.to_thread(self._request, image, plan)

        async def once() -> tuple[bytes, Image.Image]:
            return await self._once(request, image)

        try:
            for _ in range(self.settings.malformed_tries):
                try:
                    data, answer = await self._with_retries(once)
                except MalformedReply as error:
                    self.usage.malformed_replies += 1
                    problem = self._secret.scrub(str(error))
                    continue
                self.usage.answered += 1
                self._failed_in_a_row = 0
                if self.cache:
                    self.cache.write(key, self._record("answered", image=base64.b64encode(data).decode("ascii")))
                return answer
        except CapReached:
            self.usage.capped += 1
            raise NotReached("spending cap", "the spending cap is reached") from None
        except Refused as error:
            self._count_refusal(str(error))
            raise NotEdited("refused by the endpoint", str(error)) from None
        except Transient as error:
            self._count_failure(error)
            raise NotReached("failed", str(error)) from None
        self._failed_in_a_row = 0
        self.usage.malformed += 1
        why = f"{self.settings.malformed_tries} answers without a usable picture; the last one: {problem}"
        if self.cache:
            self.cache.write(key, self._record("malformed", why=why))
        raise NotEdited("no picture came back", why)

    async def _once(self, request: dict[str, Any], image: Image.Image) -> tuple[bytes, Image.Image]:
        async def send() -> bytes | MalformedReply:
            try:
                return await self._ask(request)
            except MalformedReply as error:
                # It was answered, and is billed, though it cannot be used.
                return error

        found = await self._guarded(send, (0, 1), lambda _: (0, 1))
        if isinstance(found, MalformedReply):
            raise found
        return found, self._fitted(found, image)

    def _record(self, how: str, **fields: str) -> dict[str, Any]:
        return {"model": self.settings.model, "how": how, **fields}

    def frame(self, image: Image.Image) -> Frame | None:
        """The canvas a picture is sent on, if the model knows a few sizes only."""
        return None if self.canvases is None else Frame.around(image.size, self.canvases)

    def sent(self, image: Image.Image) -> bytes:
        """The picture as PNG, as it is sent."""
        frame = self.frame(image)
        target = io.BytesIO()
        (image if frame is None else frame.put(image)).save(target, format="PNG", compress_level=1)
        return target.getvalue()

    def _fitted(self, data: bytes, image: Image.Image) -> Image.Image:
        """The answer in the size of the original. Raises MalformedReply if it is no picture, or of another shape."""
        from PIL import Image as Pillow

        try:
            answer = open_image(data)
        except ImageRejected as error:
            raise MalformedReply(f"the answer is no picture ({error})") from None
        frame = self.frame(image)
        wanted = image.size if frame is None else frame.size
        if not same_shape(answer.size, wanted):
            raise MalformedReply(f"a picture of {answer.size} came back for one of {wanted}")
        if frame is not None:
            return frame.take(answer, image.size)
        return answer if answer.size == image.size else answer.resize(image.size, Pillow.Resampling.LANCZOS)

    def summary(self) -> dict[str, Any]:
        """Requests, answers and money as plain values."""
        return usage_summary(self)


def usage_summary(endpoint: GuardedEndpoint) -> dict[str, Any]:
    """What an endpoint was asked and what it cost, as plain values for ``summary.json``."""
    usage, budget, cache = endpoint.usage, endpoint.budget, endpoint.cache
    counts = {**vars(usage), "retries": dict(usage.retries), "fallbacks": list(usage.fallbacks)}
    counts |= {"model": endpoint.settings.model, "damaged_cache_files": cache.damaged if cache else 0}
    if budget.prices is not None:
        counts |= {
            "spent": float(budget.spent),
            "of_it_at_worst_case": float(budget.uncertain),
            "currency": budget.prices.currency,
            "cap": None if budget.cap is None else float(budget.cap),
        }
    return counts
