"""A recipe's rehearsal: a tiny random model of the same architecture, tiny data, two real steps on a CPU.

    python -m contextrl_verl.demo.smoke qwen3 --out FOLDER [--sft]

makes model and data and prints the Hydra overrides that shrink a recipe to them, one a line; a recipe calls it with
SMOKE=1. --sft prints those of the supervised stage of the arm da_sft.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from contextrl_verl.demo import tiny_model, tiny_vision
from contextrl_verl.demo.evidence_pairs import evidence_pairs, rl_rows
from contextrl_verl.pairs import Context, ContrastivePair, ImageRef
from contextrl_verl.pairs.files import write_pairs

_PROMPT, _RESPONSE = 1024, 8
_COLORS = ("red", "green", "blue", "black", "white", "yellow")
# Unequally long, as real ones: verl 0.9.1 fails on M-RoPE positions of a batch of equally long rows (its issue 7899).
_QUESTIONS = (
    "Which color is this?",
    "Name the color of the picture.",
    "The picture has one color only. Which one is it?",
    "Color?",
)
# Training, validation.
ROWS, PAIRS = (32, 2), (16, 2)


def prepare(family: str, folder: Path) -> None:
    """Write ``model``, and ``train_`` and ``val_`` rows and pairs, under ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_model.make_tokenizer()
    if family in tiny_model.FAMILIES:
        tiny_model.make_model(folder / "model", tokenizer, family=family)
        _write_text(folder)
    else:
        tiny_vision.make_model(tiny_vision.make_processor(tokenizer, family), family, folder / "model")
        _write_images(folder)


def overrides() -> dict[str, Any]:
    """What shrinks a recipe to two steps on a CPU; everything else stays the recipe's own."""
    length = _PROMPT + _RESPONSE
    return {
        "+platform": "cpu",
        "data.max_prompt_length": _PROMPT,
        "data.max_response_length": _RESPONSE,
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 4 * length,
        "actor_rollout_ref.rollout.max_model_len": length,
        "actor_rollout_ref.rollout.max_num_batched_tokens": 2 * length,
        "trainer.total_training_steps": 2,
        "trainer.test_freq": 2,
        "trainer.val_before_train": "false",
        "trainer.save_freq": -1,
        "trainer.resume_mode": "disable",
    }


def sft_overrides() -> dict[str, Any]:
    """The same for the supervised stage."""
    return {
        "data.max_prompt_length": _PROMPT,
        "data.max_token_len_per_gpu": 4 * _PROMPT,
        "data.train_batch_size": PAIRS[0] // 2,
        "trainer.total_training_steps": 2,
    }


def _write_text(folder: Path) -> None:
    """Ordinary rows and pairs of short texts."""
    for name, at, split in (("train", 0, "train"), ("val", 1, "heldout")):
        pd.DataFrame(rl_rows(ROWS[at], at)).to_parquet(folder / f"{name}_rows.parquet")
        kind = "train" if name == "train" else "validation"
        found = ({**pair, "split": kind} for pair in evidence_pairs(PAIRS[at], at, split))
        write_pairs(map(ContrastivePair.model_validate, found), folder / f"{name}_pairs.parquet")


def _write_images(folder: Path) -> None:
    """Rows that ask for a picture's color, and pairs that ask which picture has one."""
    for name, at in (("train", 0), ("val", 1)):
        rows = [_row(number) for number in range(ROWS[at])]
        pd.DataFrame(rows).to_parquet(folder / f"{name}_rows.parquet")
        write_pairs([_pair(number, name) for number in range(PAIRS[at])], folder / f"{name}_pairs.parquet")


def _picture(color: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), color).save(stream, "PNG")
    return stream.getvalue()


def _row(number: int) -> dict[str, Any]:
    color = _COLORS[number % len(_COLORS)]
    return {
        "data_source": "contextrl/vqa/smoke",
        "prompt": [{"role": "user", "content": f"<image>{_QUESTIONS[number % len(_QUESTIONS)]}"}],
        "images": [{"bytes": _picture(color), "path": None}],
        "ability": "smoke",
        "reward_model": {"style": "rule", "ground_truth": color},
        "extra_info": {"index": number},
    }


def _pair(number: int, split: str) -> ContrastivePair:
    right, wrong = _COLORS[number % len(_COLORS)], _COLORS[(number + 1) % len(_COLORS)]

    def context(color: str) -> Context:
        return Context(kind="images", images=[ImageRef(bytes=_picture(color))])

    return ContrastivePair(
        pair_id=f"{split}{number}",
        domain="smoke",
        query=_QUESTIONS[0],
        answer=right,
        supporting=context(right),
        confounders=[context(wrong)],
        split="train" if split == "train" else "validation",
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m contextrl_verl.demo.smoke", description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=(*tiny_model.FAMILIES, *tiny_vision.FAMILIES))
    parser.add_argument("--out", type=Path, required=True, help="folder for model and data")
    parser.add_argument("--sft", action="store_true", help="overrides of the supervised stage; makes nothing")
    given = parser.parse_args(arguments)
    if given.sft:
        keys = sft_overrides()
    else:
        prepare(given.family, given.out)
        keys = overrides()
    print("\n".join(f"{key}={value}" for key, value in keys.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
