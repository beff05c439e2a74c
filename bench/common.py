"""What benchmarks share: tables, figures between the marks of a page, fresh processes, peak memory, pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.whole_file import whole_file

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ratio:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def median_ratio(plain: Sequence[float], other: Sequence[float], seed: int = 0) -> Ratio:
    """Median of ``other`` over median of ``plain``, with the percentile bootstrap over rounds.

    The two times of a round are drawn together, so a time in which the machine was slow for both does not widen the
    interval.
    """
    from scipy.stats import bootstrap

    if len(plain) != len(other) or len(plain) < 2:
        raise ValueError(f"{len(plain)} and {len(other)} times; a round has one of each, and there are at least two")

    def ratio(one: Any, two: Any, axis: int = -1) -> Any:
        return np.median(two, axis) / np.median(one, axis)

    times = (np.asarray(plain, float), np.asarray(other, float))
    found = bootstrap(times, ratio, paired=True, method="percentile", rng=np.random.default_rng(seed))
    return Ratio(float(ratio(*times)), *map(float, found.confidence_interval))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], align: str = "l") -> str:
    """A Markdown table; ``align`` has l or r for each column, and its last letter serves for the rest."""
    marks = ["---:" if (align + align[-1] * len(head))[at] == "r" else "---" for at in range(len(head))]
    lines = [f"| {' | '.join(map(str, row))} |" for row in (head, *rows)]
    return "\n".join([lines[0], f"|{'|'.join(marks)}|", *lines[1:]])


def write_into(document: Path, text: str, begin_mark: str = BEGIN, end_mark: str = END) -> str:
    """The document with ``text`` between two marks.

    Raises:
        ConfigError: the marks are not there.
    """
    before, begin, rest = document.read_text().partition(begin_mark)
    _, end, after = rest.partition(end_mark)
    if not begin or not end:
        raise ConfigError(
            f"{document} has no lines {begin_mark!r} and {end_mark!r} in this order. Fix: put them where it goes."
        )
    return f"{before}{begin}\n{text.strip()}\n{end}{after}"


def fresh(*arguments: str, without: Sequence[str] = ()) -> Any:
    """What a Python process of its own prints last, as JSON.

    Args:
        arguments: of the interpreter.
        without: variables that its environment lacks.

    Raises:
        MemoryError: it ran out of memory.
        RuntimeError: it failed otherwise; the message is the end of what it said.
    """
    environment = {name: value for name, value in os.environ.items() if name not in without}
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        memory = done.returncode == -9 or "out of memory" in done.stderr.lower()
        raise (MemoryError if memory else RuntimeError)(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


class Peak:
    """Highest memory while it is entered, in bytes: of a GPU, or of this process above that when it was made."""

    def __init__(self, device: str = "cpu") -> None:
        self.device, self.bytes = device, 0
        self._before = self._now() if device == "cpu" else 0

    @staticmethod
    def _now() -> int:
        import psutil

        return psutil.Process().memory_info().rss

    def __enter__(self) -> Peak:
        if self.device == "cpu":
            self._ended = threading.Event()
            self._thread = threading.Thread(target=self._watch)
            self._thread.start()
        else:
            import torch

            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(0.002):
            self.bytes = max(self.bytes, self._now() - self._before)

    def __exit__(self, *_: object) -> None:
        if self.device == "cpu":
            self._ended.set()
            self._thread.join()
        else:
            import torch

            torch.cuda.synchronize()
            self.bytes = torch.cuda.max_memory_allocated()


@contextmanager
def picture(
    path: Path, columns: int, rows: int = 1, *, size: tuple[float, float], title: str = "", **more: Any
) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, written as PNG when the block ends; ``more`` is for ``Figure.subplots``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    yield figure, figure.subplots(rows, columns, **more)
    if title:
        figure.suptitle(title, fontsize=10)
    with whole_file(path) as scratch:
        figure.savefig(scratch, dpi=130, format="png")


def versions(*names: str) -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
