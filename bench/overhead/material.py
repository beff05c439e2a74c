"""A model, ordinary rows and pairs whose lengths in tokens are exactly those asked for."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from bench.overhead.sizes import Sizes
from contextrl_verl.demo.evidence_pairs import DATA_SOURCE
from contextrl_verl.demo.tiny_model import make_model, make_tokenizer
from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import ContrastivePair
from contextrl_verl.pairs.files import write_pairs
from contextrl_verl.pairs.prompting import PromptConfig, PromptRenderer, encode_prompt

TEMPLATE = "short"


def write_material(sizes: Sizes, folder: Path) -> None:
    """Write ``model/``, ``rows.parquet``, ``one_row.parquet`` and ``pairs.parquet``."""
    tokenizer = make_tokenizer()
    make_model(
        folder / "model", tokenizer, hidden_size=sizes.hidden, layers=sizes.layers, heads=sizes.hidden // 32,
        init=0.02, seed=sizes.seed,
    )  # fmt: skip
    rows = ordinary_rows(sizes, tokenizer, sizes.rows * 4)
    pd.DataFrame(rows).to_parquet(folder / "rows.parquet")
    pd.DataFrame(rows[:1]).to_parquet(folder / "one_row.parquet")
    write_pairs(pairs(sizes, tokenizer, sizes.pairs * 4), folder / "pairs.parquet")


def ordinary_rows(sizes: Sizes, tokenizer: Any, count: int) -> list[dict[str, Any]]:
    """Rows in verl's columns with prompts of exactly ``sizes.prompt`` tokens."""
    rng, rows = random.Random(f"rows/{sizes.seed}"), []

    def messages(digits: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"say {digits}"}]

    def tokens(digits: str) -> int:
        return len(encode_prompt(messages(digits), tokenizer, PromptConfig(template=TEMPLATE)))

    for index in range(count):
        rows.append(
            {
                "data_source": DATA_SOURCE,
                "prompt": messages(_digits(sizes.prompt, tokens, rng, "prompt")),
                "ability": "cost",
                "reward_model": {"style": "rule", "ground_truth": "0"},
                "extra_info": {"index": index},
            }
        )
    return rows


def pairs(sizes: Sizes, tokenizer: Any, count: int) -> list[ContrastivePair]:
    """Pairs with prompts of exactly ``sizes.pair_prompt`` tokens, in either order."""
    rng, config = random.Random(f"pairs/{sizes.seed}"), PromptConfig(template=TEMPLATE)
    renderer = PromptRenderer(config)

    def pair(digits: str, index: int) -> ContrastivePair:
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

    made = []
    for index in range(count):

        def tokens(digits: str, index: int = index) -> int:
            return len(encode_prompt(renderer.messages(pair(digits, index), [0, 1]), tokenizer, config))

        made.append(pair(_digits(sizes.pair_prompt, tokens, rng, "pair_prompt"), index))
    return made


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
