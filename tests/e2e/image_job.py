"""A job of a few steps on a tiny vision-language model: image pairs, image rows and text-only rows in every batch.

In a pair of images, the supporting context is the bright one; every fourth pair shows two images a context.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pandas as pd
from image_factory import as_png, noise
from PIL import Image

from contextrl_verl.demo.evidence_pairs import DATA_SOURCE
from contextrl_verl.demo.tiny_model import make_tokenizer
from contextrl_verl.demo.tiny_vision import make_model, make_processor
from contextrl_verl.pairs import Context, ContrastivePair, ImageRef
from contextrl_verl.pairs.files import write_pairs

STEPS, ROWS, PAIRS, ROLLOUTS, HELD_OUT = 4, 8, 32, 4, 8


def bright_pair(number: int, split: str) -> ContrastivePair:
    """A pair of images of one color; decided by its number."""
    rng = random.Random(f"{split}/{number}")

    def context(bright: bool) -> Context:
        low, high = (190, 255) if bright else (0, 60)
        shown = [
            Image.new("RGB", (rng.choice([56, 84]), 56), tuple(rng.randint(low, high) for _ in range(3)))
            for _ in range(2 if number % 4 == 3 else 1)
        ]
        return Context(kind="images", images=[ImageRef(bytes=as_png(image)) for image in shown])

    return ContrastivePair(
        pair_id=f"{split}{number}",
        domain="bright",
        query="which is bright?",
        answer="this",
        supporting=context(True),
        confounders=[context(False)],
        split=split,
    )


def ordinary_row(number: int) -> dict[str, Any]:
    """An ordinary row; every second one shows one or two pictures, the same ones again every eight rows."""
    shown = [] if number % 2 else [noise(number % 8 + at, 56, 84) for at in range(1 + number // 2 % 2)]
    text = f"{'<image>' * len(shown)}say {number % 10} of {number}"
    return {
        "data_source": DATA_SOURCE,
        "prompt": [{"role": "user", "content": text}],
        "images": [{"bytes": as_png(image), "path": None} for image in shown],
        "ability": "copy",
        "reward_model": {"style": "rule", "ground_truth": str(number % 10)},
        "extra_info": {"index": number},
    }


def write_data(folder: Path, family: str) -> None:
    """The model and four files."""
    make_model(make_processor(make_tokenizer(), family), family, folder / "model")
    write_pairs([bright_pair(n, "train") for n in range(STEPS * PAIRS // 2)], folder / "train_pairs.parquet")
    write_pairs([bright_pair(n, "validation") for n in range(HELD_OUT)], folder / "heldout_pairs.parquet")
    for name, numbers in (("train", range(STEPS * ROWS)), ("heldout", range(100, 104))):
        pd.DataFrame([ordinary_row(number) for number in numbers]).to_parquet(folder / f"{name}_rows.parquet")


def job_keys(data: Path, out: Path) -> dict[str, Any]:
    """Hydra overrides that make users_own/users_grpo.yaml this job; ``data`` holds the files, ``out`` the rollouts."""
    return {
        "data.train_batch_size": ROWS + PAIRS,
        "data.train_max_samples": STEPS // 2 * ROWS,
        "data.max_prompt_length": 128,
        "data.max_response_length": 4,
        "contextrl.pairs.per_batch": PAIRS,
        "contextrl.pairs.orders": "both",
        "contextrl.prompt.template": "short",
        "contextrl.loss.coef": 1.0,
        "contextrl.loss.schedule": "linear_warmup",
        "contextrl.loss.warmup_steps": 4,
        # The last module, beside this file, writes down how far log-probabilities differ.
        "actor_rollout_ref.model.external_lib": ["json", "contextrl_verl.grpo.register", "log_prob_probe"],
        # Two mini-batches a step: (8 rows * 4 rollouts + 32 pairs) / (4 * 2).
        "actor_rollout_ref.actor.ppo_mini_batch_size": 8,
        # Small, so that some micro-batches hold no image at all.
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 256,
        "actor_rollout_ref.actor.optim.lr": 1e-3,
        "actor_rollout_ref.rollout.n": ROLLOUTS,
        "actor_rollout_ref.rollout.max_model_len": 160,
        "+actor_rollout_ref.rollout.limit_images": 4,
        "algorithm.filter_groups.enable": True,
        "algorithm.filter_groups.metric": "acc",
        "trainer.total_epochs": 2,
        "trainer.test_freq": STEPS,
        "trainer.val_before_train": True,
        "trainer.save_freq": -1,
        "trainer.resume_mode": "disable",
        "trainer.rollout_data_dir": str(out / "rollouts"),
    }
