"""What benchmarks share: tables, figures between the marks of a page, fresh processes and their memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contextrl_verl.errors import ConfigError

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
ROOT = Path(__file__).parents[1]


class Ratio(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def median_ratio(plain: Sequence[float], other: Sequence[float]) -> Ratio:
    """Median of ``other`` over median of ``plain``, with the percentile bootstrap over rounds.

    A round's two times are drawn together: one in which the machine was slow for both does not widen the interval.
    """
    from scipy.stats import bootstrap

    def ratio(one: Any, two: Any, axis: int = -1) -> Any:
        return np.median(two, axis) / np.median(one, axis)

    times = (np.asarray(plain, float), np.asarray(other, float))
    found = bootstrap(times, ratio, paired=True, method="percentile", rng=np.random.default_rng(0))
    return Ratio(float(ratio(*times)), *map(float, found.confidence_interval))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def write_into(document: Path, text: str, begin_mark: str = BEGIN, end_mark: str = END) -> str:
    """The document with ``text`` between two marks; ConfigError if they are not there."""
    before, begin, rest = document.read_text().partition(begin_mark)
    _, end, after = rest.partition(end_mark)
    if not begin or not end:
        raise ConfigError(f"{document} lacks {begin_mark!r} and {end_mark!r}. Fix: put them where the text goes.")
    return f"{before}{begin}\n{text.strip()}\n{end}{after}"


def fresh(code: str, *arguments: str) -> Any:
    """What code in a Python process of its own prints last, as JSON.

    Raises:
        MemoryError: it ran out of memory.
        RuntimeError: it failed otherwise; the message is the end of what it said.
    """
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        memory = done.returncode == -9 or "out of memory" in done.stderr.lower()
        raise (MemoryError if memory else RuntimeError)(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def resident(field: str = "VmHWM") -> int:
    """Bytes that this process held at most, or holds now (``VmRSS``); getrusage's would be its parent's too."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) << 10


_TIMED = """
import json, sys, time
started, cpu = time.perf_counter(), time.process_time()
{code}
seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
from bench.common import resident
print(json.dumps([found, dict(seconds=seconds, cpu_seconds=cpu, peak_mib=resident() >> 20)]))
"""


def compare(codes: dict[str, str], *arguments: str, rounds: int = 1) -> None:
    """Print what each piece of code says it ``found``, its median time and peak memory, and the ratios of the two.

    Every round runs each in a process of its own, in turns, so that the machine's load is the same for both.
    """
    import pandas as pd

    told = {name: [] for name in codes}
    for _ in range(rounds):
        for name, code in codes.items():
            found, figures = fresh(_TIMED.format(code=code), *arguments)
            told[name].append(figures)
            print(f"{name}: {found}, {figures}", flush=True)
    one, other = (pd.DataFrame(figures).median() for figures in told.values())
    for what, ratio in (one / other).items():
        print(f"{what}: {' / '.join(codes)} = {ratio:.4g}")


def versions(*names: str) -> dict[str, str]:
    """Of the packages that are installed."""
    return {name: version(name) for name in names if any(Distribution.discover(name=name))}
