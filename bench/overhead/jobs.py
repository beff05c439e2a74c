"""The two jobs that are compared: sizes, Hydra keys, and rows whose lengths in tokens are exactly those asked for."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from contextrl_verl.arms import StepSize, arm_keys, pairs_of
from contextrl_verl.demo.evidence_pairs import DATA_SOURCE
from contextrl_verl.demo.tiny_model import make_model, make_tokenizer
from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import ContrastivePair
from contextrl_verl.pairs.files import write_pairs
from contextrl_verl.pairs.prompting import PromptConfig, PromptRenderer, encode_prompt

# Job 0 trains on the ordinary rows alone, job 1 on the same rows and the pairs.
ARMS = ("grpo", "contextrl")
_PROMPT = PromptConfig(template="short")


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
        seed: of the model, the rows and their order.
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
        longest = max(self.prompt + self.response, self.pair_prompt + 1)
        if longest > 4096:
            raise ConfigError(f"a row has {longest} tokens, and the model holds 4096. Fix: shorter rows or pairs.")
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

    def mini_batch(self, job: int) -> int:
        """Rows of the one update of a step, filler included."""
        return self.step_keys(job)["actor_rollout_ref.actor.ppo_mini_batch_size"] * self.rollouts

    def step_keys(self, job: int) -> dict[str, Any]:
        """The keys of the arm, by the same function as the recipes."""
        # In the paper's comparison the arm grpo has more ordinary rows instead of pairs; here it has the same ones.
        items, pairs = ((self.rows, 1), (self.rows + self.pairs, self.pairs))[job]
        return arm_keys(ARMS[job], StepSize(items, pairs, self.rollouts))


def job_keys(sizes: Sizes, job: int, material: Path, turns: Path) -> dict[str, Any]:
    """Hydra overrides of one of the two jobs.

    Args:
        job: 0 without pairs, 1 with.
        material: the folder that :func:`write_material` filled.
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
        "contextrl.prompt.template": _PROMPT.template,
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


def write_material(sizes: Sizes, folder: Path) -> None:
    """Write ``model/``, ``rows.parquet``, ``one_row.parquet`` and ``pairs.parquet``."""
    tokenizer = make_tokenizer()
    width = {"hidden_size": sizes.hidden, "layers": sizes.layers, "heads": sizes.hidden // 32}
    make_model(folder / "model", tokenizer, **width, init=0.02, seed=sizes.seed)
    rows = pd.DataFrame(ordinary_rows(sizes, tokenizer, sizes.rows * 4))
    rows.to_parquet(folder / "rows.parquet")
    rows[:1].to_parquet(folder / "one_row.parquet")
    write_pairs(pairs(sizes, tokenizer, sizes.pairs * 4), folder / "pairs.parquet")


def ordinary_rows(sizes: Sizes, tokenizer: Any, count: int) -> list[dict[str, Any]]:
    """Rows in verl's columns with prompts of exactly ``sizes.prompt`` tokens."""
    rng = random.Random(f"rows/{sizes.seed}")

    def messages(digits: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"say {digits}"}]

    def tokens(digits: str) -> int:
        return len(encode_prompt(messages(digits), tokenizer, _PROMPT))

    return [
        {
            "data_source": DATA_SOURCE,
            "prompt": messages(_digits(sizes.prompt, tokens, rng, "prompt")),
            "ability": "cost",
            "reward_model": {"style": "rule", "ground_truth": "0"},
            "extra_info": {"index": index},
        }
        for index in range(count)
    ]


def pairs(sizes: Sizes, tokenizer: Any, count: int) -> list[ContrastivePair]:
    """Pairs with prompts of exactly ``sizes.pair_prompt`` tokens, in either order."""
    rng, renderer = random.Random(f"pairs/{sizes.seed}"), PromptRenderer(_PROMPT)

    def pair(digits: str, index: int = 0) -> ContrastivePair:
        half = (len(digits) + 1) // 2
        contexts = [{"kind": "text", "text": text} for text in (digits[:half], digits[half:])]
        return ContrastivePair.model_validate(
            {
                "pair_id": f"cost-{index:05d}",
                "domain": "cost",
                "query": "which?",
                "answer": "0",
                "supporting": contexts[0],
                "confounders": contexts[1:],
                "provenance": {"generator": "bench.overhead", "seed": sizes.seed},
                "split": "train",
            }
        )

    def tokens(digits: str) -> int:
        return len(encode_prompt(renderer.messages(pair(digits), [0, 1]), tokenizer, _PROMPT))

    return [pair(_digits(sizes.pair_prompt, tokens, rng, "pair_prompt"), index) for index in range(count)]


def _digits(wanted: int, tokens: Callable[[str], int], rng: random.Random, name: str) -> str:
    """Random digits with which a prompt has exactly the wanted number of tokens: a digit is one token."""
    fewest = "01"
    missing = wanted - tokens(fewest)
    if missing < 0:
        raise ConfigError(f"{name} is {wanted} tokens, and the template alone has {wanted - missing}. Fix: raise it.")
    digits = fewest + "".join(rng.choice("0123456789") for _ in range(missing))
    if tokens(digits) != wanted:
        raise ConfigError(f"{name} came out as {tokens(digits)} tokens instead of {wanted}: a digit is not one token.")
    return digits
