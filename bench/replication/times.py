"""What a plan takes on two quiet cores, estimated from measured rates; shown by --dry-run, used for nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contextrl_verl.arms import ARMS

if TYPE_CHECKING:
    from bench.replication.plan import Plan

# Measured with the plan quick: a trainer's start, one sampled row, one trained pair, a validation, one evaluation.
_START, _ROLLOUT, _PAIR, _VALIDATION, _EVALUATION = 60.0, 0.01, 0.005, 1.5, 15.0
_WARM_UP_STEP = 0.15


def cell_seconds(plan: Plan, arm: str) -> float:
    """Seconds of one cell."""
    step, training = plan.step, plan.training
    pairs = step.pairs if ARMS[arm] == "context_awareness" else 0
    seconds = training.steps * ((step.items - pairs) * step.rollouts * _ROLLOUT + pairs * _PAIR)
    seconds += _START + training.steps / training.test_every * _VALIDATION + _EVALUATION
    if arm == "da_sft":
        seconds += _START + training.steps * step.pairs * _PAIR
    return seconds


def plan_seconds(plan: Plan) -> float:
    """Seconds of all cells and base models."""
    bases = len(plan.seeds) * (_EVALUATION + (0 if isinstance(plan.model, str) else plan.base.steps * _WARM_UP_STEP))
    return bases + sum(cell_seconds(plan, cell.arm) for cell in plan.cells())
