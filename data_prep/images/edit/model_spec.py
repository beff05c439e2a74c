"""Proposer and editor as a command names them: ``--proposer rules:easy_vqa --editor gemini:MODEL``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from contextrl_verl.errors import ConfigError
from data_prep.images.edit.procedural import ProceduralEditor
from data_prep.images.edit.rules import USUAL, EasyVqaRules, GivenPlans
from data_prep.models.budget import Budget
from data_prep.models.spec import ModelSpec

if TYPE_CHECKING:
    from data_prep.images.edit.base import Editor, Proposer

_LOCAL_PROPOSERS = ("rules:easy_vqa", "given")


class ProposerSpec(ModelSpec):
    """Who says what to change.

    Attributes:
        model: ``rules:easy_vqa``, ``given`` (plans of the source's own), or a vision-language model of an endpoint.
        operations: of rules, with commas between; empty for the usual ones.
    """

    model: str = Field("rules:easy_vqa", min_length=1)
    cache: Path | None = Path("outputs/edit_cache")
    operations: str = ""

    @property
    def remote(self) -> bool:
        return self.model not in _LOCAL_PROPOSERS


class EditorSpec(ModelSpec):
    """Who carries it out.

    Attributes:
        model: ``procedural``, ``gemini:MODEL``, ``openai:MODEL``, or ``diffusers:FOLDER_OR_NAME``.
        price: of one picture, for the cap and the dry run; ``price_in`` and ``price_out`` are not used.
        steps, device: of a local diffusion model.
        font: TrueType file for letters that the procedural editor writes.
    """

    model: str = Field("procedural", min_length=1)
    cache: Path | None = Path("outputs/edit_cache")
    key_variable: str = ""
    timeout: float = Field(180.0, gt=0)
    price: Decimal | None = Field(None, ge=0)
    steps: int | None = Field(None, ge=1)
    device: str | None = None
    font: Path | None = None

    @property
    def remote(self) -> bool:
        return self.model.startswith(("gemini:", "openai:"))

    def budget(self) -> Budget:
        """Raises ConfigError for a cap without a price, or token prices."""
        if self.price_in is not None or self.price_out is not None:
            raise ConfigError("An editor's prices are per picture. Fix: give price=... instead of price_in, price_out.")
        if self.max_cost is not None and self.price is None:
            raise ConfigError(
                f"A spending cap of {self.max_cost} needs a price to count with. Fix: give the price of one picture, "
                "price=..., too."
            )
        # Output then counts pictures, not tokens.
        prices = (None, None) if self.price is None else (Decimal(0), self.price * 1_000_000)
        return Budget(*prices, self.max_cost, self.currency)


def make_proposer(spec: ProposerSpec, environ: Mapping[str, str] = os.environ) -> Proposer:
    """The proposer of a spec.

    Raises:
        ConfigError: unknown operations.
        ConfigError: prices, cap or address that make no sense.
    """
    if spec.model == "rules:easy_vqa":
        named = tuple(name.strip() for name in spec.operations.split(",") if name.strip())
        return EasyVqaRules(named or USUAL)
    if spec.model == "given":
        return GivenPlans()
    if spec.model.startswith("rules:"):
        raise ConfigError(
            f"proposer {spec.model!r}: there are rules for easy_vqa only. Fix: give rules:easy_vqa, given, or the name "
            "of a vision-language model."
        )
    from data_prep.images.edit.vlm import VlmProposer

    return VlmProposer(spec, environ)


def make_editor(spec: EditorSpec, environ: Mapping[str, str] = os.environ) -> Editor:
    """The editor of a spec.

    Raises:
        ConfigError: an editor that is none.
        ConfigError: price, cap or address that make no sense.
    """
    kind, _, model = spec.model.partition(":")
    if kind == "procedural" and not model:
        if spec.font is not None and not spec.font.is_file():
            raise ConfigError(f"editor procedural, font: there is no file {spec.font}. Fix: name a TrueType file.")
        return ProceduralEditor(None if spec.font is None else str(spec.font))
    if kind == "diffusers" and model:
        return _diffusers(model, spec.device, spec.steps)
    if kind in ("gemini", "openai") and model:
        from data_prep.images.edit.remote_images import GeminiEditor, OpenAIEditor

        variable = spec.key_variable or f"{kind.upper()}_API_KEY"
        named = spec.model_copy(update={"model": model, "key_variable": variable})
        return (GeminiEditor if kind == "gemini" else OpenAIEditor)(named, environ)
    raise ConfigError(
        f"editor {spec.model!r} is none. Fix: give procedural, gemini:MODEL, openai:MODEL or diffusers:FOLDER."
    )


@lru_cache(maxsize=1)
def _diffusers(model: str, device: str | None, steps: int | None) -> Editor:
    """One loaded model in a process, however many parts it does."""
    from data_prep.images.edit.diffusers_local import DiffusersEditor

    return DiffusersEditor(model, device, steps)
