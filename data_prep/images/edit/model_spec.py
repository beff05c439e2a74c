"""Proposer and editor as a command names them: ``--proposer rules:easy_vqa --editor gemini:MODEL``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from data_prep.images.edit.annotated_plans import GivenPlans
from data_prep.images.edit.procedural import ProceduralEditor
from data_prep.images.edit.rules import USUAL, EasyVqaRules
from data_prep.images.errors import ImagePairError
from data_prep.models.budget import Budget, Prices
from data_prep.models.errors import RemoteError
from data_prep.models.key import DEFAULT_VARIABLE
from data_prep.models.spec import EndpointRole

if TYPE_CHECKING:
    from data_prep.images.edit.base import Editor, Proposer

_LOCAL_PROPOSERS = ("rules:easy_vqa", "given")


class ProposerRole(EndpointRole):
    """Who says what to change.

    Attributes:
        model: ``rules:easy_vqa``, ``given`` (plans of the source's own), or a vision-language model of an endpoint.
        operations: of rules, with commas between; empty for the usual ones.
    """

    model: str = Field("rules:easy_vqa", min_length=1)
    cache: Path = Path("outputs/edit_cache")
    operations: str = ""

    @property
    def remote(self) -> bool:
        return self.model not in _LOCAL_PROPOSERS


class EditorRole(EndpointRole):
    """Who carries it out.

    Attributes:
        model: ``procedural``, ``gemini:MODEL``, ``openai:MODEL``, or ``diffusers:FOLDER_OR_NAME``.
        price: of one picture, for the cap and the dry run; ``price_in`` and ``price_out`` are not used.
        steps, device: of a local diffusion model.
        font: TrueType file for letters that the procedural editor writes.
    """

    model: str = Field("procedural", min_length=1)
    cache: Path = Path("outputs/edit_cache")
    key_variable: str = ""
    timeout: float = Field(180.0, gt=0)
    price: float | None = None
    steps: int | None = Field(None, ge=1)
    device: str | None = None
    font: Path | None = None

    @property
    def remote(self) -> bool:
        return self.model.startswith(("gemini:", "openai:"))

    def budget(self) -> Budget:
        """Raises RemoteError for a cap without a price, or token prices."""
        if self.price_in is not None or self.price_out is not None:
            raise RemoteError("An editor's prices are per picture. Fix: give price=... instead of price_in, price_out.")
        if self.max_cost is not None and self.price is None:
            raise RemoteError(
                f"A spending cap of {self.max_cost} needs a price to count with. Fix: give the price of one picture, "
                "price=..., too."
            )
        return Budget(None if self.price is None else Prices.each(self.price, self.currency), self.max_cost)


def make_proposer(role: ProposerRole, environ: Mapping[str, str] = os.environ) -> Proposer:
    """The proposer of a role.

    Raises:
        ImagePairError: unknown operations.
        RemoteError: prices, cap or address that make no sense.
    """
    if role.model == "rules:easy_vqa":
        named = tuple(name.strip() for name in role.operations.split(",") if name.strip())
        return EasyVqaRules(named or USUAL)
    if role.model == "given":
        return GivenPlans()
    if role.model.startswith("rules:"):
        raise ImagePairError(
            f"proposer {role.model!r}: there are rules for easy_vqa only. Fix: give rules:easy_vqa, given, or the name "
            "of a vision-language model."
        )
    from data_prep.images.edit.vlm import VlmProposer

    return VlmProposer(role.settings(), role.replies(), role.budget(), environ)


def make_editor(role: EditorRole, environ: Mapping[str, str] = os.environ) -> Editor:
    """The editor of a role.

    Raises:
        ImagePairError: an editor that is none.
        RemoteError: price, cap or address that make no sense.
    """
    kind, _, model = role.model.partition(":")
    if kind == "procedural" and not model:
        if role.font is not None and not role.font.is_file():
            raise ImagePairError(f"editor procedural, font: there is no file {role.font}. Fix: name a TrueType file.")
        return ProceduralEditor(None if role.font is None else str(role.font))
    if kind == "diffusers" and model:
        return _diffusers(model, role.device, role.steps)
    if kind in ("gemini", "openai") and model:
        if kind == "gemini":
            from data_prep.images.edit.gemini import KEY_VARIABLE
            from data_prep.images.edit.gemini import GeminiEditor as Remote
        else:
            from data_prep.images.edit.openai_edit import OpenAIEditor as Remote

            KEY_VARIABLE = DEFAULT_VARIABLE
        role = role.model_copy(update={"model": model, "key_variable": role.key_variable or KEY_VARIABLE})
        return Remote(role.settings(), role.replies(), role.budget(), environ)
    raise ImagePairError(
        f"editor {role.model!r} is none. Fix: give procedural, gemini:MODEL, openai:MODEL or diffusers:FOLDER."
    )


@lru_cache(maxsize=1)
def _diffusers(model: str, device: str | None, steps: int | None) -> Editor:
    """One loaded model in a process, however many parts it does."""
    from data_prep.images.edit.diffusers_local import DiffusersEditor

    return DiffusersEditor(model, device, steps)
