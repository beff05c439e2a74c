"""What a replication consists of: sizes, arms, seeds, and its cells (one arm with one seed)."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, field_validator
from pydantic import model_validator as whole_validator

from contextrl_verl import __version__
from contextrl_verl.arms import ARMS, StepSize, pairs_of
from contextrl_verl.errors import ConfigError

PLAN_FILE = Path(__file__).with_name("seeds.yaml")
# The order in which cells run: a stopped run has the baseline and the method first.
ARM_ORDER = ("grpo", "contextrl", "da_rl", "da_qca", "da_sft")
PAPER_RATIO = 0.15
# A cell is made again when one of these changes.
_SOURCES = ("material.py", "base_model.py", "evaluate.py", "cell.py")
# Seconds on two cores, for --dry-run: a trainer's start, a step and what a sampled row adds to it (verl polls its
# rollouts every two seconds), a held-out question of a validation, one evaluation, one step of the warm-up.
_START, _STEP, _ROLLOUT, _QUESTION, _EVALUATION, _WARM_UP_STEP = 90.0, 2.1, 0.05, 0.08, 15.0, 0.2

Share = Annotated[float, Field(ge=0, le=1)]
AtLeastTwo = Annotated[int, Field(ge=2)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TinyModel(_Strict):
    """A Qwen2 that is made here; hidden_size is 32 a head."""

    hidden_size: int = Field(ge=32)
    layers: PositiveInt
    heads: PositiveInt


class Base(_Strict):
    """How the tiny model is warmed up before any arm starts.

    Attributes:
        rest_at: held-out accuracy at which a task leaves the mixture until it falls below.
        check_every: steps between two looks at those accuracies.
        first_habit: None: the warm-up never asks to select. Else it teaches to reply to a selection with a label, drawn
            without a look at the contexts: how often with the first one.
    """

    steps: PositiveInt
    batch_size: AtLeastTwo
    learning_rate: PositiveFloat
    rest_at: float = Field(gt=0, le=1)
    check_every: PositiveInt
    first_habit: Share | None


class Step(_Strict):
    """Sizes of one training step; see contextrl_verl.arms.StepSize, which checks them."""

    items: int
    pairs: int
    rollouts: int
    updates: int = 1

    @whole_validator(mode="after")
    def _possible(self) -> Step:
        self.size  # noqa: B018 (raises)
        return self

    @property
    def size(self) -> StepSize:
        return StepSize(self.items, self.pairs, self.rollouts, self.updates)


class Training(_Strict):
    """The same for all arms: steps, steps between validations, learning rate, lambda."""

    steps: PositiveInt
    test_every: PositiveInt
    learning_rate: PositiveFloat
    coef: PositiveFloat


class Data(_Strict):
    """Training pairs and rows, and those that the trainer's own validation asks."""

    pairs: PositiveInt
    rows: PositiveInt
    held_out_pairs: PositiveInt
    held_out_rows: PositiveInt


class Evaluation(_Strict):
    """Pairs, and items of each task, of the evaluation at the end."""

    pairs: AtLeastTwo
    items: AtLeastTwo


@dataclass(frozen=True)
class Cell:
    """One arm with one seed."""

    arm: str
    seed: int

    @property
    def folder(self) -> str:
        return f"seed_{self.seed}/{self.arm}"


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
    gemma_pairs: AtLeastTwo
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
        code = hashlib.sha256(b"".join(PLAN_FILE.with_name(name).read_bytes() for name in _SOURCES)).hexdigest()
        state = [sizes, cell.arm, cell.seed, __version__, importlib.metadata.version("verl"), code]
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]

    def with_(self, part: str, **values: Any) -> Plan:
        """The plan with some values of one of its parts replaced."""
        return self.model_copy(update={part: getattr(self, part).model_copy(update=values)})

    def cell_seconds(self, arm: str) -> float:
        """What a cell takes on two quiet cores, about."""
        pairs = self.step.pairs if ARMS[arm] == "context_awareness" else 0
        asked = 2 * self.data.held_out_pairs + self.data.held_out_rows
        seconds = _START + _EVALUATION + self.training.steps / self.training.test_every * asked * _QUESTION
        seconds += self.training.steps * (_STEP + (self.step.items - pairs) * self.step.rollouts * _ROLLOUT)
        return seconds + (_START + self.training.steps if arm == "da_sft" else 0)

    def seconds(self) -> float:
        """The same of all cells and base models."""
        warm_up = 0 if isinstance(self.model, str) else self.base.steps * _WARM_UP_STEP
        return len(self.seeds) * (_EVALUATION + warm_up) + sum(self.cell_seconds(cell.arm) for cell in self.cells())


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
        problem = error.errors()[0]
        own = problem.get("ctx", {}).get("error")
        if isinstance(own, ConfigError):
            raise own from None
        key = ".".join([name, *map(str, problem["loc"])])
        raise ConfigError(f"{file}: {key} is {problem['input']!r}: {problem['msg']}. Fix: correct it.") from None


def with_paper_ratio(plan: Plan) -> Plan:
    """The plan with the paper's best share of pairs among the items."""
    return plan.with_("step", pairs=pairs_of(plan.step.items, PAPER_RATIO))


def with_first_habit(plan: Plan, habit: float) -> Plan:
    """The plan with a base that was taught to reply to a selection with a label."""
    if not 0 <= habit <= 1:
        raise ConfigError(f"--first-habit is {habit}. Fix: a share between 0 and 1, such as 0.5.")
    return plan.with_("base", first_habit=habit)
