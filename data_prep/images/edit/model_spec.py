"""Proposer and editor as a command names them: ``--proposer rules:easy_vqa --editor gemini:MODEL``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from contextrl_verl.errors import ConfigError
from data_prep.images.edit.procedural import ProceduralEditor
from data_prep.images.edit.rules import EasyVqaRules, GivenPlans
from data_prep.models.budget import Budget
from data_prep.models.spec import ModelSpec

if TYPE_CHECKING:
    from data_prep.images.edit.plan import Editor, Proposer

_LOCAL_PROPOSERS = {"rules:easy_vqa": EasyVqaRules, "given": GivenPlans}


class ProposerSpec(ModelSpec):
    """Who says what to change: ``rules:easy_vqa``, ``given`` (plans of the source's own), or a vision-language model
    of an endpoint."""

    model: str = Field("rules:easy_vqa", min_length=1)
    cache: Path | None = Path("outputs/edit_cache")

    @property
    def remote(self) -> bool:
        return self.model not in _LOCAL_PROPOSERS


class EditorSpec(ModelSpec):
    """Who carries it out.

    Attributes:
        model: ``procedural``, ``gemini:MODEL``, ``openai:MODEL``, or ``diffusers:FOLDER_OR_NAME``.
        price: of one picture, for the cap and the dry run, instead of ``price_in`` and ``price_out``.
    """

    model: str = Field("procedural", min_length=1)
    cache: Path | None = Path("outputs/edit_cache")
    key_variable: str = ""
    timeout: float = Field(180.0, gt=0)
    price: Decimal | None = Field(None, ge=0)

    @property
    def remote(self) -> bool:
        return self.model.startswith(("gemini:", "openai:"))

    def budget(self) -> Budget:
        """Counts pictures as output; raises ConfigError for a cap without a price, or prices of tokens."""
        if (self.price_in, self.price_out) != (None, None) or (self.max_cost is not None and self.price is None):
            raise ConfigError("An editor's price and cap are in pictures. Fix: give price=..., of one, with max_cost.")
        return Budget(self.price and (Decimal(0), self.price * 1_000_000), self.max_cost, self.currency)


def make_proposer(spec: ProposerSpec, environ: Mapping[str, str] = os.environ) -> Proposer:
    """The proposer of a spec. Raises ConfigError if there is none, or its prices, cap or address make no sense."""
    if spec.model in _LOCAL_PROPOSERS:
        return _LOCAL_PROPOSERS[spec.model]()
    if spec.model.startswith("rules:"):
        raise ConfigError(
            f"proposer {spec.model!r}: there are rules for easy_vqa only. Fix: give {', '.join(_LOCAL_PROPOSERS)}, or "
            "the name of a vision-language model."
        )
    from data_prep.images.edit.vlm import VlmProposer

    return VlmProposer(spec, environ)


def make_editor(spec: EditorSpec, environ: Mapping[str, str] = os.environ) -> Editor:
    """The editor of a spec. Raises ConfigError if there is none, or its price, cap or address make no sense."""
    kind, _, model = spec.model.partition(":")
    if spec.model == "procedural":
        return ProceduralEditor()
    if kind == "diffusers" and model:
        from data_prep.images.edit.diffusers_local import DiffusersEditor

        return DiffusersEditor(model)
    if kind in ("gemini", "openai") and model:
        from data_prep.images.edit.remote_images import GeminiEditor, OpenAIEditor

        variable = spec.key_variable or f"{kind.upper()}_API_KEY"
        named = spec.model_copy(update={"model": model, "key_variable": variable})
        return (GeminiEditor if kind == "gemini" else OpenAIEditor)(named, environ)
    raise ConfigError(
        f"editor {spec.model!r} is none. Fix: give procedural, gemini:MODEL, openai:MODEL or diffusers:FOLDER."
    )
