"""The files of a seed that every arm trains on and is validated with, in verl's columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from bench.replication.pairs import pairs
from bench.replication.tasks import MAIN, items
from contextrl_verl.pairs.files import write_pairs

if TYPE_CHECKING:
    from bench.replication.plan import Data

DATA_SOURCE = "contextrl/exact_match/replication"
PAIRS, HELD_OUT_PAIRS = "pairs.parquet", "held_out_pairs.parquet"
ROWS, HELD_OUT_ROWS = "rows.parquet", "held_out_rows.parquet"
# The evaluation asks other held-out items than the trainer's validation: seeds of their own.
VALIDATION, EVALUATION = 10_000, 20_000


def write_data(folder: Path, data: Data, seed: int) -> None:
    """Write the four files of a seed."""
    folder.mkdir(parents=True, exist_ok=True)
    write_pairs(pairs(data.pairs, seed, "train"), folder / PAIRS)
    write_pairs(pairs(data.held_out_pairs, seed + VALIDATION, "heldout"), folder / HELD_OUT_PAIRS)
    _write_rows(folder / ROWS, data.rows, seed, "train")
    _write_rows(folder / HELD_OUT_ROWS, data.held_out_rows, seed + VALIDATION, "heldout")


def _write_rows(path: Path, count: int, seed: int, split: str) -> None:
    rows = [
        {
            "data_source": DATA_SOURCE,
            "prompt": [{"role": "user", "content": item.prompt}],
            "ability": item.task,
            "reward_model": {"style": "rule", "ground_truth": item.answer},
            "extra_info": {"index": index, "split": split},
        }
        for index, item in enumerate(items(MAIN, count, seed, split))
    ]
    pd.DataFrame(rows).to_parquet(path)
