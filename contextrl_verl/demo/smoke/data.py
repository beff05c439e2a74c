"""Rows and pairs of a rehearsal: texts, or pictures of one color."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from contextrl_verl.demo.evidence_pairs import evidence_pairs, rl_rows
from contextrl_verl.pairs import Context, ContrastivePair, ImageRef
from contextrl_verl.pairs.files import write_pairs

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


def write_text(folder: Path) -> None:
    """Ordinary rows and pairs of short texts."""
    for name, at, split in (("train", 0, "train"), ("val", 1, "heldout")):
        pd.DataFrame(rl_rows(ROWS[at], at)).to_parquet(folder / f"{name}_rows.parquet")
        kind = "train" if name == "train" else "validation"
        found = ({**pair, "split": kind} for pair in evidence_pairs(PAIRS[at], at, split))
        write_pairs(map(ContrastivePair.model_validate, found), folder / f"{name}_pairs.parquet")


def write_images(folder: Path) -> None:
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
