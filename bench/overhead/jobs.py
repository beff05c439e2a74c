"""The two jobs that are compared: sizes, Hydra keys, and rows whose lengths in tokens are exactly those asked for."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contextrl_verl.arms import StepSize, arm_keys
from contextrl_verl.demo.evidence_pairs import DIGITS, question_row, text_pair
from contextrl_verl.demo.job import small_job, write_data
from contextrl_verl.demo.tiny_model import TEMPLATE, make_model, make_tokenizer, selection_prompt
from contextrl_verl.pairs import ContrastivePair
from contextrl_verl.pairs.prompting import PromptConfig, encode_prompt

# Job 0 trains on the ordinary rows alone, job 1 on the same rows and the pairs: 15 % of all items.
ARMS, ROWS, PAIRS, ROLLOUTS = ("grpo", "contextrl"), 17, 3, 8
# Tokens of an ordinary row, of which every response has all; with its label a pair is as long.
PROMPT, RESPONSE, PAIR_PROMPT = 128, 128, 255
MODEL = {"heads": 4, "layers": 4, "init": 0.02}


def step_keys(job: int) -> dict[str, Any]:
    """The keys of the arm, by the same function as the recipes."""
    # In the paper's comparison the arm grpo has more ordinary rows instead of pairs; here it has the same ones.
    return arm_keys(ARMS[job], StepSize(ROWS + job * PAIRS, PAIRS, ROLLOUTS))


def mini_batch(job: int) -> int:
    """Rows of the one update of a step, filler included."""
    return step_keys(job)["actor_rollout_ref.actor.ppo_mini_batch_size"] * ROLLOUTS


def job_keys(job: int, steps: int, material: Path, turns: Path) -> dict[str, Any]:
    """Hydra overrides of one of the two jobs.

    Args:
        job: 0 without pairs, 1 with.
        material: the folder that :func:`write_material` filled.
        turns: the folder through which the jobs take turns.
    """
    sizes = {"steps": steps, "rate": 1e-6, "micro_batch": ROLLOUTS, "tokens": [max(PROMPT, PAIR_PROMPT), RESPONSE]}
    # Without pairs it is verl's own engine and no part of ours.
    engine = {} if job else {"actor_rollout_ref.model.model_type": "language_model"}
    return small_job(material, material / ARMS[job], material / "model", 1, **sizes) | {
        **engine,
        **step_keys(job),
        "contextrl.pairs.val_files": [],
        "data.custom_cls.path": str(Path(__file__).with_name("turns.py").resolve()),
        "data.custom_cls.name": "TurnTakingDataset",
        "+data.turns.folder": str(turns),
        "+data.turns.job": job,
        "+data.turns.steps": steps,
        "actor_rollout_ref.actor.use_kl_loss": True,
        "actor_rollout_ref.actor.kl_loss_coef": 0.001,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": ROLLOUTS,
        "actor_rollout_ref.rollout.max_num_seqs": ROWS * ROLLOUTS,
        # Every response is as long as it may be, so that the weights cannot change what a step costs.
        "actor_rollout_ref.rollout.ignore_eos": True,
        # A validation stands between steps and outside their timer; there a job waits for its turn.
        "trainer.test_freq": 1,
        # Two jobs on one machine, each with its own Ray, whatever else runs there.
        "+ray_kwargs.ray_init.address": "local",
    }


def write_material(folder: Path) -> None:
    """Write the model and the files of both jobs; one row is validated, in turns."""
    tokenizer = make_tokenizer()
    make_model(folder / "model", tokenizer, **MODEL)
    rows = ordinary_rows(tokenizer, ROWS * 4)
    write_data(folder, rows, pairs(tokenizer, PAIRS * 4), rows[:1], [])


def ordinary_rows(tokenizer: Any, count: int) -> list[dict[str, Any]]:
    """Rows with prompts of exactly PROMPT tokens."""
    rng = random.Random("rows")
    asked = [_digits(PROMPT, tokenizer, "say {}".format, rng) for _ in range(count)]
    return [question_row(index, f"say {digits}", "0") for index, digits in enumerate(asked)]


def pairs(tokenizer: Any, count: int) -> list[ContrastivePair]:
    """Pairs with prompts of exactly PAIR_PROMPT tokens, in either order."""
    rng = random.Random("pairs")

    def pair(digits: str, index: int = 0) -> ContrastivePair:
        half = (len(digits) + 1) // 2
        return text_pair(f"cost-{index:05d}", "which?", "0", digits[:half], digits[half:])

    def prompt(digits: str) -> str:
        return selection_prompt(pair(digits), [0, 1])

    return [pair(_digits(PAIR_PROMPT, tokenizer, prompt, rng), index) for index in range(count)]


def _digits(wanted: int, tokenizer: Any, prompt: Callable[[str], str], rng: random.Random) -> str:
    """Random digits with which a prompt has exactly the wanted number of tokens: a digit is one token."""
    message = {"role": "user", "content": prompt("01")}
    more = wanted - len(encode_prompt([message], tokenizer, PromptConfig(template=TEMPLATE)))
    return "01" + "".join(rng.choices(DIGITS, k=more))
