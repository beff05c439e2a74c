"""What a replication consists of: sizes, arms, seeds, and its cells (one arm with one seed)."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from contextrl_verl import __version__
from contextrl_verl.arms import ARMS, StepSize, pairs_of
from contextrl_verl.errors import ConfigError

PLAN_FILE = Path(__file__).with_name("seeds.yaml")
# The order in which cells run: a stopped run has the baseline and the method first.
ARM_ORDER = ("grpo", "contextrl", "da_rl", "da_qca", "da_sft")
PAPER_RATIO = 0.15
# A cell is made again when one of these changes.
_SOURCES = ("tasks.py", "pairs.py", "data.py", "base_model.py", "evaluate.py", "cell.py")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TinyModel(_Strict):
    """A Qwen2 that is made here; hidden_size is 32 a head."""

    hidden_size: int = Field(ge=32)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)


class Base(_Strict):
    """How the tiny model is warmed up before any arm starts.

    Attributes:
        steps, batch_size, learning_rate: of the warm-up.
        rest_at: held-out accuracy at which a task leaves the mixture until it falls below.
        check_every: steps between two looks at those accuracies.
        first_habit: None: the warm-up never asks to select. Else it teaches to reply to a selection with a label, drawn
            without a look at the contexts: how often with the first one.
    """

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    learning_rate: float = Field(gt=0)
    rest_at: float = Field(gt=0, le=1)
    check_every: int = Field(ge=1)
    first_habit: float | None = Field(ge=0, le=1)


class Step(_Strict):
    """Sizes of one training step; see contextrl_verl.arms.StepSize, which checks them."""

    items: int
    pairs: int
    rollouts: int
    updates: int = 1

    @model_validator(mode="after")
    def _possible(self) -> Step:
        self.size  # noqa: B018 (raises)
        return self

    @property
    def size(self) -> StepSize:
        return StepSize(self.items, self.pairs, self.rollouts, self.updates)


class Training(_Strict):
    """The same for all arms: steps, steps between validations, learning rate, lambda."""

    steps: int = Field(ge=1)
    test_every: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    coef: float = Field(gt=0)


class Data(_Strict):
    """Training pairs and rows, and those that the trainer's own validation asks."""

    pairs: int = Field(ge=1)
    rows: int = Field(ge=1)
    held_out_pairs: int = Field(ge=1)
    held_out_rows: int = Field(ge=1)


class Evaluation(_Strict):
    """Pairs, and items of each task, of the evaluation at the end."""

    pairs: int = Field(ge=2)
    items: int = Field(ge=2)


class Plan(_Strict):
    """One plan of ``seeds.yaml``."""

    name: str
    seeds: tuple[int, ...] = Field(min_length=1)
    arms: tuple[str, ...] = ARM_ORDER
    model: TinyModel | str
    base: Base
    step: Step
    training: Training
    data: Data
    evaluation: Evaluation
    gemma_pairs: int = Field(ge=2)
    gpu: bool = False

    @field_validator("arms")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for arm in value:
            if arm not in ARMS:
                raise ConfigError(f"the arm is {arm!r}, and there is no such arm. Fix: one of {', '.join(ARMS)}.")
        return tuple(arm for arm in ARM_ORDER if arm in value)

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ConfigError(f"seeds are {list(value)}, and one stands there twice. Fix: name each seed once.")
        return value

    def cells(self) -> list[Cell]:
        """Every cell, all arms of a seed together."""
        return [Cell(arm, seed) for seed in self.seeds for arm in self.arms]

    def fingerprint(self, cell: Cell) -> str:
        """What a finished cell must agree with to be kept: sizes, arm, seed, versions, and the code that makes data."""
        sizes = self.model_dump(mode="json", exclude={"name", "seeds", "arms", "gemma_pairs"})
        state = [sizes, cell.arm, cell.seed, __version__, importlib.metadata.version("verl"), _sources()]
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Cell:
    """One arm with one seed."""

    arm: str
    seed: int

    @property
    def folder(self) -> str:
        return f"seed_{self.seed}/{self.arm}"


def _sources() -> str:
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update(PLAN_FILE.with_name(name).read_bytes())
    return digest.hexdigest()


def read_plan(name: str, file: Path = PLAN_FILE, **changes: Any) -> Plan:
    """A plan of a file, with some of its fields replaced.

    Raises:
        ConfigError: the file or the plan is not there, or a value is wrong.
    """
    try:
        plans = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"the plan file {file} cannot be read: {error}. Fix: correct --plan-file.") from None
    if not isinstance(plans, dict) or name not in plans:
        known = ", ".join(plans) if isinstance(plans, dict) else "nothing"
        raise ConfigError(f"{file} has no plan {name!r}; it has {known}. Fix: name one of them.")
    try:
        return Plan.model_validate({"name": name, "gpu": name == "gpu", **plans[name], **changes})
    except ValidationError as error:
        raise _readable(error.errors()[0], name, file) from None


def with_paper_ratio(plan: Plan) -> Plan:
    """The plan with the paper's best share of pairs among the items."""
    pairs = pairs_of(plan.step.items, PAPER_RATIO)
    return plan.model_copy(update={"step": plan.step.model_copy(update={"pairs": pairs})})


def with_first_habit(plan: Plan, habit: float) -> Plan:
    """The plan with a base that was taught to reply to a selection with a label."""
    if not 0 <= habit <= 1:
        raise ConfigError(f"--first-habit is {habit}. Fix: a share between 0 and 1, such as 0.5.")
    return plan.model_copy(update={"base": plan.base.model_copy(update={"first_habit": habit})})


def _readable(problem: Any, name: str, file: Path) -> ConfigError:
    own = problem.get("ctx", {}).get("error")
    if isinstance(own, ConfigError):
        return own
    key = ".".join([name, *map(str, problem["loc"])])
    return ConfigError(f"{file}: {key} is {problem['input']!r}: {problem['msg']}. Fix: correct it.")


def validation_steps(plan: Plan) -> Iterator[int]:
    """Steps after which held-out pairs are asked, 0 for the base; verl adds the last."""
    yield from range(0, plan.training.steps + 1, plan.training.test_every)
    if plan.training.steps % plan.training.test_every:
        yield plan.training.steps
