"""Makes a rehearsal's model and data, and prints the Hydra overrides that shrink a recipe to them, one a line.

    python -m contextrl_verl.demo.smoke qwen3 --out FOLDER [--sft]

A recipe calls it with SMOKE=1; --sft prints those of the supervised stage of the arm da_sft.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from contextrl_verl.demo.smoke import data, text_models, vision_models
from contextrl_verl.demo.tiny_model import make_tokenizer

_PROMPT, _RESPONSE = 1024, 8


def prepare(family: str, folder: Path) -> None:
    """Write ``model``, and ``train_`` and ``val_`` rows and pairs, under ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    if family in text_models.FAMILIES:
        text_models.make_model(tokenizer, family, folder / "model")
        data.write_text(folder)
    else:
        vision_models.make_model(vision_models.make_processor(tokenizer, family), family, folder / "model")
        data.write_images(folder)


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
        "data.train_batch_size": data.PAIRS[0] // 2,
        "trainer.total_training_steps": 2,
    }


def main(arguments: list[str] | None = None) -> int:
    families = (*text_models.FAMILIES, *vision_models.FAMILIES)
    parser = argparse.ArgumentParser(prog="python -m contextrl_verl.demo.smoke", description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=families)
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
