"""What two jobs of the default sizes would have logged, for tests of the report."""

from bench.overhead.measure import Measured
from bench.overhead.results import TOKENS, summarise
from bench.overhead.sizes import Sizes
from bench.overhead.stages import STAGES

SIZES = Sizes(steps=5)
# 136 rows of 256 tokens; three pairs of 256 and five filler rows of 128 on top.
PLAIN_TOKENS, PAIRED_TOKENS = 136 * 256, 136 * 256 + 3 * 256 + 5 * 128


def steps(seconds: float, tokens: int, count: int = 5) -> list[dict[str, float]]:
    part = seconds / (len(STAGES) + 1)
    one = {f"timing_s/{stage}": part for stage in STAGES} | {"timing_s/step": seconds, TOKENS: tokens}
    return [dict(one) for _ in range(count)]


def measured(ratio: float) -> tuple[Measured, Measured]:
    return (
        Measured(steps(10.0, PLAIN_TOKENS), 6 * 2**30, 2 * 2**30),
        Measured(steps(10.0 * ratio, PAIRED_TOKENS), 7 * 2**30, 2 * 2**30),
    )


def found(ratio: float = 1.05) -> dict:
    return summarise(SIZES, *measured(ratio), "python -m bench.overhead", [0.5, 1.5])
