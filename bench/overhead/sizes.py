"""The sizes of the two jobs that are compared, and the Hydra keys they lead to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contextrl_verl.arms import StepSize, arm_keys, pairs_of
from contextrl_verl.errors import ConfigError

# Job 0 trains on the ordinary rows alone, job 1 on the same rows and the pairs.
ARMS = ("grpo", "contextrl")


@dataclass(frozen=True)
class Sizes:
    """One benchmark.

    Attributes:
        rows: ordinary rows of a step, the same in both jobs.
        ratio: pairs / (rows + pairs) in the job with pairs.
        rollouts: samples of an ordinary row.
        prompt, response: tokens of an ordinary row; every response has exactly that many.
        pair_prompt: tokens of a pair's prompt, both contexts included; with its label a pair is then as long as an
            ordinary row.
        steps: steps of each job, the left out first one included.
        hidden, layers: of the model.
        micro_batch: rows of a micro-batch in every pass.
    """

    rows: int = 17
    ratio: float = 0.15
    rollouts: int = 8
    prompt: int = 128
    response: int = 128
    pair_prompt: int = 255
    steps: int = 12
    hidden: int = 128
    layers: int = 4
    micro_batch: int = 8
    seed: int = 1

    def __post_init__(self) -> None:
        least = {"rows": 2, "rollouts": 1, "prompt": 32, "response": 1, "pair_prompt": 64, "steps": 3, "hidden": 32}
        for name, value in {**least, "layers": 1, "micro_batch": 1}.items():
            if getattr(self, name) < value:
                raise ConfigError(f"{name} is {getattr(self, name)}. Fix: at least {value}.")
        if self.hidden % 32:
            raise ConfigError(f"hidden is {self.hidden}, and heads are 32 wide. Fix: a multiple of 32.")
        if self.longest > 4096:
            raise ConfigError(f"a row has {self.longest} tokens, and the model holds 4096. Fix: shorter rows or pairs.")
        for rows in (self.mini_batch(0), self.mini_batch(1)):
            if rows % self.micro_batch:
                raise ConfigError(
                    f"micro_batch is {self.micro_batch}, and an update has {rows} rows, which it does not divide. "
                    f"Fix: a divisor of rollouts={self.rollouts}."
                )

    @property
    def pairs(self) -> int:
        """Pairs of a step: the number next to the wanted ratio of all items."""
        return pairs_of(round(self.rows / (1 - self.ratio)) if 0 < self.ratio < 1 else 1, self.ratio)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(self.prompt + self.response, self.pair_prompt + 1)

    def mini_batch(self, job: int) -> int:
        """Rows of the one update of a step, filler included."""
        return self.step_keys(job)["actor_rollout_ref.actor.ppo_mini_batch_size"] * self.rollouts

    def step_keys(self, job: int) -> dict[str, Any]:
        """The keys of the arm, by the same function as the recipes."""
        if job == 1:
            return arm_keys(ARMS[1], StepSize(self.rows + self.pairs, self.pairs, self.rollouts))
        # In the paper's comparison the arm grpo has more ordinary rows instead of pairs; here it has the same ones.
        return arm_keys(ARMS[0], StepSize(self.rows, 1, self.rollouts))


def job_keys(sizes: Sizes, job: int, material: Path, turns: Path) -> dict[str, Any]:
    """Hydra overrides of one of the two jobs.

    Args:
        sizes: of both.
        job: 0 without pairs, 1 with.
        material: the folder that :func:`bench.overhead.material.write_material` filled.
        turns: the folder through which the jobs take turns.
    """
    keys = {
        "data.train_files": [str(material / "rows.parquet")],
        "data.val_files": [str(material / "one_row.parquet")],
        "data.max_prompt_length": max(sizes.prompt, sizes.pair_prompt),
        "data.max_response_length": sizes.response,
        "data.custom_cls.path": str(Path(__file__).with_name("turns.py").resolve()),
        "data.custom_cls.name": "TurnTakingDataset",
        "+data.turns.folder": str(turns),
        "+data.turns.job": job,
        "+data.turns.steps": sizes.steps,
        "contextrl.seed": sizes.seed,
        "contextrl.pairs.train_files": [str(material / "pairs.parquet")],
        "contextrl.prompt.template": "short",
        "actor_rollout_ref.model.path": str(material / "model"),
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": sizes.micro_batch,
        "actor_rollout_ref.actor.use_kl_loss": True,
        "actor_rollout_ref.actor.kl_loss_coef": 0.001,
        "actor_rollout_ref.actor.optim.lr": 1e-6,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": sizes.micro_batch,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": sizes.micro_batch,
        "actor_rollout_ref.rollout.max_model_len": max(sizes.prompt, sizes.pair_prompt) + sizes.response,
        "actor_rollout_ref.rollout.max_num_seqs": sizes.rows * sizes.rollouts,
        # Every response is as long as it may be, so that the weights cannot change what a step costs.
        "actor_rollout_ref.rollout.ignore_eos": True,
        "actor_rollout_ref.rollout.seed": sizes.seed,
        "trainer.total_training_steps": sizes.steps,
        # A validation stands between steps and outside their timer; there a job waits for its turn.
        "trainer.test_freq": 1,
        "trainer.val_before_train": True,
        "trainer.save_freq": -1,
        "trainer.resume_mode": "disable",
        # Two jobs on one machine, each with its own Ray, whatever else runs there.
        "+ray_kwargs.ray_init.address": "local",
    }
    if job == 0:
        # verl's own engine and no part of ours.
        keys["actor_rollout_ref.model.model_type"] = "language_model"
    return keys | sizes.step_keys(job)
