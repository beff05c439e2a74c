"""What a replication consists of: sizes, arms, seeds, and its cells (one arm with one seed)."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from contextrl_verl import __version__
from contextrl_verl.arms import StepSize, pairs_of
from contextrl_verl.errors import ConfigError

PLAN_FILE = Path(__file__).with_name("seeds.yaml")
# The order in which cells run: a stopped run has the baseline and the method first.
ARM_ORDER = ("grpo", "contextrl", "da_rl", "da_qca", "da_sft")
# A cell is made again when one of these changes.
_SOURCES = ("material.py", "base_model.py", "cell.py")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Base(_Strict):
    """The tiny Qwen2 of a seed (heads are 32 wide), and how it is warmed up before any arm starts.

    Attributes:
        first_habit: None: the warm-up never asks to select. Else it teaches to reply to a selection with a label, drawn
            without a look at the contexts: how often with the first one. It decides how da_rl does, which learns from
            the labels that it happens to write: run it with 0.5 too before you conclude.
    """

    layers: PositiveInt
    heads: PositiveInt
    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    first_habit: float | None = Field(None, ge=0, le=1)


class Training(_Strict):
    """The same for all arms; ``coef`` is lambda."""

    steps: PositiveInt
    learning_rate: PositiveFloat
    coef: PositiveFloat


class Data(_Strict):
    """To train on, for the trainer's own validation, and (whole couples, items of each task) asked at the end."""

    pairs: PositiveInt
    rows: PositiveInt
    held_out_pairs: PositiveInt
    held_out_rows: PositiveInt
    asked_pairs: int = Field(ge=4, multiple_of=2)
    asked_items: int = Field(ge=2)


class Cell(NamedTuple):
    """One arm with one seed."""

    arm: str
    seed: int

    @property
    def folder(self) -> str:
        return f"seed_{self.seed}/{self.arm}"


class Plan(_Strict):
    """One plan of ``seeds.yaml``; a named ``model`` is trained instead of the tiny one."""

    name: str
    seeds: set[int] = Field(min_length=1)
    arms: set[Literal[ARM_ORDER]] = set(ARM_ORDER)
    model: str | None = None
    base: Base
    step: StepSize
    training: Training
    data: Data
    gpu: bool = False

    def cells(self) -> list[Cell]:
        """Every cell, all arms of a seed together."""
        return [Cell(arm, seed) for seed in sorted(self.seeds) for arm in ARM_ORDER if arm in self.arms]

    def fingerprint(self, cell: Cell) -> str:
        """What a finished cell must agree with to be kept: sizes, arm, seed, versions, and the code that makes data."""
        sizes = self.model_dump(mode="json", exclude={"name", "seeds", "arms"})
        code = hashlib.sha256(b"".join(PLAN_FILE.with_name(name).read_bytes() for name in _SOURCES)).hexdigest()
        state = [sizes, cell.arm, cell.seed, __version__, importlib.metadata.version("verl"), code]
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def read_plan(
    name: str, file: Path = PLAN_FILE, *, first_habit: float | None = None, paper_ratio: bool = False, **changes: Any
) -> Plan:
    """A plan of a file, with fields replaced, ``first_habit`` of its base, and the paper's best share of pairs.

    Raises:
        ConfigError: the file or the plan is not there, or a value is wrong.
    """
    try:
        values = yaml.safe_load(file.read_text())[name] | changes
    except (OSError, yaml.YAMLError, LookupError, TypeError) as error:
        raise ConfigError(f"{file} holds no plan {name!r} ({error}). Fix: correct --plan-file.") from None
    try:
        if first_habit is not None:
            values["base"]["first_habit"] = first_habit
        if paper_ratio:
            values["step"]["pairs"] = pairs_of(values["step"]["items"], 0.15)
        return Plan.model_validate({"name": name, "gpu": name == "gpu", **values})
    except ValidationError as error:
        told = [(".".join([name, *map(str, one["loc"])]), one["input"], one["msg"]) for one in error.errors()]
        raise ConfigError(*(f"{key} is {value!r}: {why}. Fix: correct it." for key, value, why in told)) from None
