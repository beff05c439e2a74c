"""What a plan takes on two quiet cores, estimated from measured rates; shown by --dry-run, used for nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contextrl_verl.arms import ARMS

if TYPE_CHECKING:
    from bench.replication.plan import Plan

# Measured on two cores: a trainer's start, a step and what a sampled row adds to it (verl polls its rollouts every two
# seconds), a held-out question of a validation, one evaluation, one step of the warm-up.
_START, _STEP, _ROLLOUT, _QUESTION, _EVALUATION, _WARM_UP_STEP = 90.0, 2.1, 0.05, 0.08, 15.0, 0.2


def cell_seconds(plan: Plan, arm: str) -> float:
    """Seconds of one cell."""
    step, training = plan.step, plan.training
    pairs = step.pairs if ARMS[arm] == "context_awareness" else 0
    seconds = training.steps * (_STEP + (step.items - pairs) * step.rollouts * _ROLLOUT)
    asked = 2 * plan.data.held_out_pairs + plan.data.held_out_rows
    seconds += _START + training.steps / training.test_every * asked * _QUESTION + _EVALUATION
    if arm == "da_sft":
        seconds += _START + training.steps
    return seconds


def plan_seconds(plan: Plan) -> float:
    """Seconds of all cells and base models."""
    bases = len(plan.seeds) * (_EVALUATION + (0 if isinstance(plan.model, str) else plan.base.steps * _WARM_UP_STEP))
    return bases + sum(cell_seconds(plan, cell.arm) for cell in plan.cells())
