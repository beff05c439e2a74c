"""The arms of the paper's comparison, as the keys that tell them apart in a job of the same size.

    python -m contextrl_verl.arms da_rl --items 16 --pairs 2 --rollouts 8 --updates 2

prints them as Hydra overrides, one a line, for the recipes.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from math import gcd
from typing import Any

from contextrl_verl.errors import ConfigError

# Arm -> contextrl.objective of its GRPO job.
ARMS = {
    "contextrl": "context_awareness",
    "grpo": "none",
    "da_rl": "selection_reward",
    "da_sft": "none",
    "da_qca": "question_answering",
}
MEANING = {
    "contextrl": "GRPO and the context-awareness loss on the pairs",
    "grpo": "GRPO on as many items, all of them ordinary",
    "da_rl": "pairs as prompts of GRPO, reward 1 for naming the supporting context",
    "da_sft": "supervised training on the selections, then the arm grpo",
    "da_qca": "pairs as ordinary question-context-answer prompts of GRPO",
}


@dataclass(frozen=True)
class StepSize:
    """What one step of every arm has in common."""

    items: int  # questions, ordinary rows and pairs together (the paper's train batch)
    pairs: int  # of the items, where the arm has pairs
    rollouts: int  # samples of an ordinary row (n)
    updates: int = 1  # of the optimizer

    def __post_init__(self) -> None:
        for name in ("items", "rollouts", "updates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}. Fix: at least 1.")
        if not 0 < self.pairs < self.items:
            raise ConfigError(
                f"{self.pairs} of {self.items} items are pairs, and a step needs some of both kinds (the arm without "
                "pairs is grpo). Fix: a ratio of pairs that rounds to between 1 and items - 1."
            )


def pairs_of(items: int, ratio: float) -> int:
    """The number of pairs among ``items`` nearest to a share of ``ratio``, which is between 0 and 1; at least 1."""
    if not 0 < ratio < 1:
        raise ConfigError(
            f"the ratio of pairs is {ratio}, and must be between 0 and 1 (the arm without pairs is grpo). "
            "Fix: a ratio such as 0.15."
        )
    return max(1, round(items * ratio))


def arm_keys(arm: str, size: StepSize) -> dict[str, Any]:
    """Hydra keys of an arm's GRPO job: the same items, rollouts and updates a step, whatever the pairs are used as.

    verl counts a mini-batch in prompts of n samples each; a pair under the joint loss is one row and not n.
    """
    if arm not in ARMS:
        raise ConfigError(f"ARM is {arm!r}, and there is no such arm. Fix: one of {', '.join(ARMS)}.")
    with_pairs = ARMS[arm] != "none"
    rows = size.items * size.rollouts
    if arm == "contextrl":
        rows -= size.pairs * (size.rollouts - 1)
    return {
        "contextrl.objective": ARMS[arm],
        "contextrl.pairs.per_batch": size.pairs if with_pairs else 0,
        "data.train_batch_size": size.items,
        "actor_rollout_ref.rollout.n": size.rollouts,
        # Rounded up: a remainder would be an update more, not a smaller one.
        "actor_rollout_ref.actor.ppo_mini_batch_size": -(-rows // (size.rollouts * size.updates)),
    }


def check_shared(key: str, items: int, ranks: int, *, rows: int = 1, together: int = 1, together_key: str = "") -> None:
    """Raises ConfigError if data-parallel ranks cannot share ``items`` of ``rows`` rows equally; verl says so late.

    Args:
        key: names ``items``.
        together: ranks that share a sequence (Ulysses), set by ``together_key``.
    """
    if ranks % together:
        raise ConfigError(
            f"{together_key} is {together}, and trainer.nnodes * trainer.n_gpus_per_node = {ranks} ranks cannot be "
            f"divided into groups of {together}. Fix: a divisor of {ranks}, or another number of GPUs."
        )
    groups = ranks // together
    if items * rows % groups:
        with_n = f", with n={rows} {items * rows} rows" if rows > 1 else ""
        shared = f", {together} GPUs each," if together > 1 else ""
        raise ConfigError(
            f"{key} is {items}{with_n}, which {groups} data-parallel ranks{shared} cannot share equally "
            "(trainer.nnodes * trainer.n_gpus_per_node). "
            f"Fix: a multiple of {groups // gcd(groups, rows)}, or another number of GPUs."
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m contextrl_verl.arms", description=__doc__.splitlines()[0])
    parser.add_argument("arm", help=", ".join(ARMS))
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--ratio", type=float, help="share of the items that are pairs")
    parser.add_argument("--pairs", type=int, help="number of pairs instead of a ratio")
    parser.add_argument("--rollouts", type=int, required=True)
    parser.add_argument("--updates", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=1, help="GPUs of the job")
    given = parser.parse_args(arguments)
    try:
        pairs = given.pairs if given.pairs is not None else pairs_of(given.items, given.ratio or 0.0)
        keys = arm_keys(given.arm, StepSize(given.items, pairs, given.rollouts, given.updates))
        for key in ("data.train_batch_size", "actor_rollout_ref.actor.ppo_mini_batch_size"):
            check_shared(key, keys[key], given.ranks, rows=given.rollouts)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(f"{key}={value}" for key, value in keys.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
