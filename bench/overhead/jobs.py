"""The two jobs that are compared: Hydra keys, rows of exactly the lengths asked for, and the tokens of their steps.

A token is one position of one sequence in one pass, padding included, because it is computed; all ranks together. verl
scores every row before the update, under the policy that sampled it and under the reference (``scoring`` passes), and
runs it once forward and backward in the update.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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
# verl fills a step up to a multiple of its mini-batch with rows of this many tokens.
FILLER = 128
# Tokens of a pair's row in a scoring pass: contextrl_verl.grpo.model_rows leaves its contexts out.
SCORED = 2


def step_keys(job: int) -> dict[str, Any]:
    """The keys of the arm, by the same function as the recipes."""
    # In the paper's comparison the arm grpo has more ordinary rows instead of pairs; here it has the same ones.
    return arm_keys(ARMS[job], StepSize(ROWS + job * PAIRS, PAIRS, ROLLOUTS))


def job_keys(job: int, steps: int, material: Path, turns: Path) -> dict[str, Any]:
    """Hydra overrides of a job: ``material`` is what :func:`write_material` filled, ``turns`` the folder of turns."""
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
    asked = _digits(count, PROMPT, tokenizer, "say {}".format)
    return [question_row(index, f"say {digits}", "0") for index, digits in enumerate(asked)]


def pairs(tokenizer: Any, count: int) -> list[ContrastivePair]:
    """Pairs with prompts of exactly PAIR_PROMPT tokens, in either order."""

    def pair(digits: str, index: int = 0) -> ContrastivePair:
        half = (len(digits) + 1) // 2
        return text_pair(f"cost-{index:05d}", "which?", "0", digits[:half], digits[half:])

    made = _digits(count, PAIR_PROMPT, tokenizer, lambda digits: selection_prompt(pair(digits), [0, 1]))
    return [pair(digits, index) for index, digits in enumerate(made)]


def _digits(count: int, wanted: int, tokenizer: Any, prompt: Callable[[str], str]) -> list[str]:
    """Random digits with which prompts have exactly the wanted number of tokens: a digit is one token."""
    message = {"role": "user", "content": prompt("01")}
    more = wanted - len(encode_prompt([message], tokenizer, PromptConfig(template=TEMPLATE)))
    rng = random.Random(wanted)
    return ["01" + "".join(rng.choices(DIGITS, k=more)) for _ in range(count)]


class Tokens(NamedTuple):
    """Tokens sampled by the rollout, and positions forwarded and backwarded by the trainer."""

    sampled: int
    forward: int
    backward: int

    @property
    def work(self) -> int:
        """The trainer's work in forward passes of one token, of which a backward pass costs two; without sampling."""
        return self.forward + 2 * self.backward


def ordinary(sequences: int, prompt: int, response: int, scoring: int = 2) -> Tokens:
    """Sampled sequences; lengths are means."""
    positions = sequences * (prompt + response)
    return Tokens(sequences * response, positions * (scoring + 1), positions)


def carrier(pairs: int, prompt: int, scoring: int = 2) -> Tokens:
    """Pairs as this project trains on them: one row each, a prompt and one label; nothing is sampled."""
    update = pairs * (prompt + 1)
    return Tokens(0, update + pairs * SCORED * scoring, update)


def filler(rows: int, mini_batch: int, scoring: int = 2) -> Tokens:
    """The rows that verl adds so that a step is a multiple of ``ppo_mini_batch_size * n``."""
    return ordinary(-rows % mini_batch, FILLER, 0, scoring)


def tokens_of(job: int, scoring: int = 2) -> dict[str, Tokens]:
    """The tokens of a job's step by kind of row."""
    mini_batch = step_keys(job)["actor_rollout_ref.actor.ppo_mini_batch_size"] * ROLLOUTS
    return {
        "ordinary rows": ordinary(ROWS * ROLLOUTS, PROMPT, RESPONSE, scoring),
        "pairs": carrier(job * PAIRS, PAIR_PROMPT, scoring),
        "filler": filler(ROWS * ROLLOUTS + job * PAIRS, mini_batch, scoring),
    }
