"""A recipe's rehearsal: a tiny random model of the same architecture, tiny data, two real steps on a CPU.

    python -m contextrl_verl.demo.smoke qwen3 --out FOLDER [--sft]

makes model and data and prints the Hydra overrides that shrink a recipe to them, one a line; a recipe calls it with
SMOKE=1. --sft prints those of the supervised stage of the arm da_sft. --task swe makes tasks of the forge, in whose
sandboxes the model says nothing that could be carried out, turn after turn.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from contextrl_verl.demo import tiny_model, tiny_vision
from contextrl_verl.demo.evidence_pairs import evidence_pairs, question_row, rl_rows
from contextrl_verl.demo.job import ROWS, VAL_ROWS, write_data
from contextrl_verl.demo.run import contextrl
from contextrl_verl.errors import UserError
from contextrl_verl.pairs import Context, ContrastivePair, ImageRef

_COLORS = ("red", "green", "blue", "black", "white", "yellow")
# Unequally long, as real ones: verl 0.9.1 fails on M-RoPE positions of a batch of equally long rows (its issue 7899).
_QUESTIONS = ("Which color is this?", "Name the color of the picture.", "It has one color only: which?", "Color?")
_PROMPT, _RESPONSE = 1024, 8


def _lengths(prompt: int, response: int, rows: int) -> dict[str, Any]:
    """Of one item; ``rows`` of them may go through the trainer together."""
    return {
        "data.max_prompt_length": prompt,
        "data.max_response_length": response,
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": rows * (prompt + response),
        "actor_rollout_ref.rollout.max_model_len": prompt + response,
        "actor_rollout_ref.rollout.max_num_batched_tokens": 2 * (prompt + response),
    }


# What shrinks a recipe to two steps on a CPU; everything else stays the recipe's own.
OVERRIDES = {
    "+platform": "cpu",
    **_lengths(_PROMPT, _RESPONSE, 4),
    "trainer.total_training_steps": 2,
    "trainer.test_freq": 2,
    "trainer.val_before_train": "false",
    "trainer.save_freq": -1,
    "trainer.resume_mode": "disable",
}
_TASKS = 10
SWE_OVERRIDES = OVERRIDES | {
    **_lengths(2560, 1536, 2),
    "contextrl.agent.turns": 3,
    "contextrl.agent.turn_tokens": 16,
    "contextrl.agent.format_errors": 4,
}
SFT_OVERRIDES = {
    "data.max_prompt_length": _PROMPT,
    "data.max_token_len_per_gpu": 4 * _PROMPT,
    "data.train_batch_size": 8,
    "trainer.total_training_steps": 2,
}


def prepare(family: str, folder: Path, task: str = "trace_qa") -> None:
    """Write ``model``, and ``train_`` and ``val_`` rows and pairs, under ``folder``; raises UserError."""
    tokenizer = tiny_model.make_tokenizer()
    if family in tiny_model.FAMILIES:
        tiny_model.make_model(folder / "model", tokenizer, family=family)
        data = rl_rows(32), evidence_pairs(16), rl_rows(2, 1), evidence_pairs(2, 1, "heldout")
    else:
        tiny_vision.make_model(tiny_vision.make_processor(tokenizer, family), family, folder / "model")
        rows, pairs = [_row(number) for number in range(32)], [_pair(number) for number in range(16)]
        data = rows, pairs, rows[:2], pairs[:2]
    write_data(folder, *data)
    if task == "swe":
        train, made = folder / ROWS, ("--source", "forge", "--limit", _TASKS, "--validation", 0.2)
        contextrl("tasks", "swe", *made, "--out", train)
        train.with_suffix(".validation.parquet").replace(folder / VAL_ROWS)


def _picture(number: int) -> bytes:
    Image.new("RGB", (64, 64), _COLORS[number % len(_COLORS)]).save(stream := io.BytesIO(), "PNG")
    return stream.getvalue()


def _row(number: int) -> dict[str, Any]:
    """Asks for a picture's color."""
    question, color = f"<image>{_QUESTIONS[number % len(_QUESTIONS)]}", _COLORS[number % len(_COLORS)]
    images = [{"bytes": _picture(number), "path": None}]
    return question_row(number, question, color, "contextrl/vqa/smoke", images=images)


def _pair(number: int) -> ContrastivePair:
    """Asks which picture has a color."""
    right, wrong = (Context(kind="images", images=[ImageRef(bytes=_picture(at))]) for at in (number, number + 1))
    what = {"pair_id": f"smoke{number}", "domain": "smoke", "query": _QUESTIONS[0], "split": "train"}
    return ContrastivePair(answer=_COLORS[number % len(_COLORS)], supporting=right, confounders=[wrong], **what)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m contextrl_verl.demo.smoke", description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=(*tiny_model.FAMILIES, *tiny_vision.FAMILIES))
    parser.add_argument("--out", type=Path, required=True, help="folder for model and data")
    parser.add_argument("--sft", action="store_true", help="overrides of the supervised stage; makes nothing")
    parser.add_argument("--task", choices=("trace_qa", "swe"), default="trace_qa", help="what the ordinary rows are")
    given = parser.parse_args(arguments)
    if not given.sft:
        try:
            prepare(given.family, given.out, given.task)
        except UserError as error:
            parser.exit(error.status, f"{error}\n")
    for key, value in (SFT_OVERRIDES if given.sft else SWE_OVERRIDES if given.task == "swe" else OVERRIDES).items():
        print(f"{key}={value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
