"""The page docs/replication.md: fixed text around the figures of one run's ``results.json``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from bench.replication.picture import draw
from bench.replication.report import cost_table, markdown, scores_table, start_text
from contextrl_verl.pairs.whole_file import write_whole

PAGE, PICTURE = "replication.md", "images/replication.png"

_HEAD = """# Replication at a desk

<!-- Written by python -m bench.replication --page RESULTS.json; change bench/replication/page.py. -->

The paper's claim is a comparison: with the same data and budget, GRPO with the context-awareness loss beats GRPO, and
the same pairs used in other ways do not help. Here all five arms ([arms.md](arms.md)) run through verl's own trainer,
with several seeds, on a model small enough for two cores. It shows what the objectives do to a model that can be
trained in minutes; it is no evidence about models of 8 billion weights.

"""

_METHOD = """
## What is trained and asked
- **Model**: a Qwen2 made here for each seed, warmed up in plain PyTorch before any arm starts, because from random
  weights no arm would get a reward. The warm-up teaches all six tasks to a partial skill, and to tell by
  number which of two contexts supports an answer ("which? 1 or 2"). It is never taught to select, so selection starts
  at chance. Asked to select, it replies as to a question of the main task: da_rl then gets no reward and has nothing to
  learn from, while the joint loss compares the labels however improbable they are ("probability on the labels" in the
  table). With `--first-habit P` it is also taught that the reply is a label, the first one with probability P. That
  decides how da_rl does: it learns from the labels it happens to write. In a plain imitation of the two losses (no
  trainer, 48 pairs a step, one seed) da_rl was as fast as contextrl from a base that replied with either label equally
  often. The start without a habit was made the default after that was seen: read both before you conclude.
- **Main task** (ordinary rows of every arm): read a value from a trace of two tool calls.
- **Pairs**: two tool calls with their output that differ in one digit; held-out pairs have keys and digits in
  combinations that no training pair has.
- **Untrained tasks**, of other formats, 20 to 90 tokens: a needle among other lines; one of several needles;
  variables assigned to each other; the value that a *tool* of a trace printed; the last of several writes. Greedy
  answers, exact match, on items that no training prompt equals.
- **The same for all arms**: base model, items a step, steps, rollouts, learning rate, order seeds; only what
  `contextrl_verl.arms` lists differs. da_sft trains as many pairs before as contextrl does during its steps, at the
  same learning rate.
- **Not the paper's**: lambda, learning rate and the share of pairs, since so small a model is trained from near
  nothing; `--paper-ratio` takes 15 % of pairs. So large a lambda and learning rate can cost the main task a lot:
  with them, look at the tasks and not at selection alone. Pictures are left out: a tiny model that can see was not
  feasible in the time.

## Intervals
Every seed draws its own weights, data and items, and the arms of a seed are asked the same items. The interval over
seeds and items is Student's t over the seeds' paired differences. With two seeds it is wide, as it must be: the quick
plan can show that something runs, and hardly that one arm is better. A bootstrap would be narrow and wrong
(`tests/replication/test_replication_statistics.py`). Look first whether grpo raises the main task above the base. Where
it does not, as in some thirty steps of the quick plan, a difference tells what an arm breaks and not what it adds.

## Run it
    make replication             # all arms, eight seeds: a night on two cores
    make replication QUICK=1     # two seeds, about an hour
    python -m bench.replication --gpu --model CHECKPOINT   # a larger plan on a GPU, with a model of yours
    python -m bench.replication --dry-run                  # cells and their times, and nothing runs

A stopped run goes on with the cell that was cut short. Everything follows from `bench/replication/seeds.yaml`.
"""


def other_start_text(results: dict[str, Any]) -> str:
    """A run from another base, in short: it belongs next to the first, because the start decides how da_rl does."""
    seeds = ", ".join(map(str, results["plan"]["seeds"]))
    steps = results["plan"]["training"]["steps"]
    parts = [
        f"{start_text(results)} Seeds {seeds}, {steps} steps, arms {', '.join(results['arms'])}; all else as above.",
        results["claim"]["told"],
        scores_table(results),
        cost_table(results),
    ]
    return "\n## From another start\n" + "\n\n".join(parts) + "\n"


def write_page(results: dict[str, Any], docs: Path, other: dict[str, Any] | None = None) -> Path:
    """Write the page and its picture below ``docs`` and return the page.

    Args:
        results: of the run that the page is about.
        other: results of a run from another start, told in short.
    """
    (docs / PICTURE).parent.mkdir(parents=True, exist_ok=True)
    scratch = docs / f"{PICTURE}.part.png"
    draw(results, scratch)
    shutil.move(scratch, docs / PICTURE)
    page = docs / PAGE
    second = "" if other is None else other_start_text(other)
    write_whole(page, f"{_HEAD}## What came out\n{markdown(results, PICTURE)}{second}{_METHOD}")
    return page
