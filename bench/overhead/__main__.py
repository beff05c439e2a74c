"""Step time of GRPO with 15 % pairs over that without, measured through verl's trainer.

    python -m bench.overhead --out outputs/overhead          # about ten minutes on two quiet cores
    python -m bench.overhead --document docs/cost.md         # ... and put the figures into the docs

Writes results.json, results.md and results.png. Ends with status 1 if the ratio is above the promised one.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.overhead.measure import measure
from bench.overhead.picture import draw
from bench.overhead.report import BEGIN, END, markdown, released_markdown, verdict, write_into
from bench.overhead.results import OverheadError, summarise
from bench.overhead.sizes import ARMS, Sizes
from contextrl_verl.errors import ConfigError
from contextrl_verl.launch import JobError
from contextrl_verl.pairs.whole_file import whole_file

_SIZES = {
    "rows": "ordinary rows of a step, in both jobs",
    "ratio": "share of the items that are pairs, in the job with pairs",
    "rollouts": "samples of an ordinary row",
    "prompt": "tokens of an ordinary prompt",
    "response": "tokens of a response",
    "pair_prompt": "tokens of a pair's prompt; with its label as long as an ordinary row by default",
    "steps": "steps of each job",
    "hidden": "width of the model",
    "layers": "layers of the model",
    "micro_batch": "rows of a micro-batch",
    "seed": "of the model, the rows and their order",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    given = _parser().parse_args(arguments)
    # Without it a terminated benchmark would leave two Ray clusters behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sizes = Sizes(**{name: getattr(given, name) for name in _SIZES})
        if given.document:
            write_into(given.document, "")
        found = _run(sizes, given.out, shlex.join(["python", "-m", "bench.overhead", *(arguments or sys.argv[1:])]))
        _write(given.out, found)
        if given.document:
            _put(given.document, write_into(given.document, markdown(found)))
    except (ConfigError, JobError, OverheadError) as error:
        print(f"overhead: {error}", file=sys.stderr)
        return 2
    print(f"{verdict(found)}\n{given.out}/results.md, results.json, results.png")
    return int(found["stages"]["step"]["ratio"]["value"] > found["limit"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.overhead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/overhead"), help="folder of the results")
    parser.add_argument("--document", type=Path, help=f"a page to put the figures into, between {BEGIN} and {END}")
    defaults = Sizes()
    for name, text in _SIZES.items():
        value = getattr(defaults, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"{text} (default {value})"
        )
    return parser


def _run(sizes: Sizes, out: Path, command: str) -> dict[str, Any]:
    load = [os.getloadavg()[0]]
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    ) as progress:
        start = progress.add_task("starting verl, Ray and vLLM twice (minutes)", total=None)
        tasks = [progress.add_task(f"steps of {arm}", total=sizes.steps) for arm in ARMS]

        def on_step(job: int, step: int) -> None:
            progress.update(start, total=1, completed=1)
            progress.update(tasks[job], completed=step)

        plain, paired = measure(sizes, out, on_step)
    load.append(os.getloadavg()[0])
    return summarise(sizes, plain, paired, command, load)


def _write(out: Path, found: dict[str, Any]) -> None:
    _put(out / "results.json", json.dumps(found, indent=2) + "\n")
    _put(out / "results.md", f"# What pairs cost\n\n{markdown(found)}\n{released_markdown(found['released'])}")
    with whole_file(out / "results.png") as scratch:
        draw(scratch, found)


def _put(path: Path, text: str) -> None:
    with whole_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
