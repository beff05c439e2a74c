"""What a plan takes on two quiet cores, estimated from measured rates; shown by --dry-run, used for nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contextrl_verl.arms import ARMS

if TYPE_CHECKING:
    from bench.replication.plan import Plan

# Measured: a trainer's start, a step and a validation with few rows (verl polls its rollouts every two seconds), one
# evaluation, one step of the warm-up. Guessed: what a sampled row adds to a step.
_START, _STEP, _VALIDATION, _EVALUATION, _WARM_UP_STEP = 60.0, 3.0, 2.1, 15.0, 0.15
_ROLLOUT = 0.004


def cell_seconds(plan: Plan, arm: str) -> float:
    """Seconds of one cell."""
    step, training = plan.step, plan.training
    pairs = step.pairs if ARMS[arm] == "context_awareness" else 0
    seconds = training.steps * (_STEP + (step.items - pairs) * step.rollouts * _ROLLOUT)
    seconds += _START + training.steps / training.test_every * _VALIDATION + _EVALUATION
    if arm == "da_sft":
        seconds += _START + training.steps
    return seconds


def plan_seconds(plan: Plan) -> float:
    """Seconds of all cells and base models."""
    bases = len(plan.seeds) * (_EVALUATION + (0 if isinstance(plan.model, str) else plan.base.steps * _WARM_UP_STEP))
    return bases + sum(cell_seconds(plan, cell.arm) for cell in plan.cells())
