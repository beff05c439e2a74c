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
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.common import BEGIN, END, write_into
from bench.overhead.jobs import ARMS, Sizes
from bench.overhead.measure import measure
from bench.overhead.report import draw, markdown, released_markdown, summarise, verdict
from contextrl_verl.errors import UserError
from contextrl_verl.pairs.whole_file import write_whole


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    given = _parser().parse_args(arguments)
    # Without it a terminated benchmark would leave two Ray clusters behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sizes = Sizes(**{one.name: getattr(given, one.name) for one in fields(Sizes)})
        if given.document:
            write_into(given.document, "")
        found = _run(sizes, given.out, shlex.join(["python", "-m", "bench.overhead", *(arguments or sys.argv[1:])]))
        write_whole(given.out / "results.json", json.dumps(found, indent=2) + "\n")
        told = f"# What pairs cost\n\n{markdown(found)}\n{released_markdown(found['released'])}"
        write_whole(given.out / "results.md", told)
        draw(given.out / "results.png", found)
        if given.document:
            write_whole(given.document, write_into(given.document, markdown(found)))
    except UserError as error:
        print(f"overhead: {error}", file=sys.stderr)
        return 2
    print(f"{verdict(found)}\n{given.out}/results.md, results.json, results.png")
    return int(found["stages"]["step"]["ratio"]["value"] > found["limit"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.overhead",
        description=f"{__doc__}\nWhat the sizes mean:\n{Sizes.__doc__.partition('Attributes:')[2]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/overhead"), help="folder of the results")
    parser.add_argument("--document", type=Path, help=f"a page to put the figures into, between {BEGIN} and {END}")
    for one in fields(Sizes):
        name, value = one.name.replace("_", "-"), one.default
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"default {value}")
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


if __name__ == "__main__":
    sys.exit(main())
