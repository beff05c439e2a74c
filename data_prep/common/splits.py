"""Draws and splits that depend on a seed and on names, never on order or machine."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

from contextrl_verl.errors import ConfigError

NAMES = ("train", "validation", "probe")


def draw(seed: int, *names: str) -> bytes:
    """A stable pseudo-random key for sorting."""
    return hashlib.blake2b("\0".join([str(seed), *names]).encode("utf-8", "surrogatepass"), digest_size=8).digest()


def read_shares(given: str | Mapping[str, float]) -> dict[str, float]:
    """``train=0.8,validation=0.1,probe=0.1``, or a mapping, as a dict; raises ConfigError unless the shares are some
    that sum to 1."""
    named = given.items() if isinstance(given, Mapping) else ()
    text = ",".join(f"{name}={share}" for name, share in named) or str(given)
    with suppress(ValueError):
        shares = {name.strip(): float(value) for name, value in (part.split("=") for part in text.split(","))}
        if set(shares) <= set(NAMES) and abs(sum(shares.values()) - 1) < 1e-6 and min(shares.values()) >= 0:
            return shares
    raise ConfigError(
        f"--splits is {text!r}. Fix: shares of train, validation and probe that sum to 1, e.g. "
        "train=0.9,validation=0.1."
    )


def assign_components(groups: Sequence[Sequence[str]], shares: Mapping[str, float], *, seed: int = 1) -> list[str]:
    """A split for every group of names: no name is in two of them.

    Groups that share a name, directly or through others, form a component; components go, in an order drawn from the
    seed, to the split that is furthest behind its share (shares sum to 1). A component is never cut, so shares are met
    as far as it goes.
    """
    from scipy.cluster.hierarchy import DisjointSet

    together = DisjointSet(name for group in groups for name in group)
    for first, *others in groups:
        for other in others:
            together.merge(first, other)
    # A component is called by its first name, so that nothing depends on the order of the groups.
    root = {name: first for names in together.subsets() for first in [min(names)] for name in names}
    sizes = Counter(root[group[0]] for group in groups)
    filled = dict.fromkeys(shares, 0)
    where: dict[str, str] = {}
    for component in sorted(sizes, key=lambda name: draw(seed, name)):
        behind = max(shares, key=lambda split: shares[split] * len(groups) - filled[split])
        where[component] = behind
        filled[behind] += sizes[component]
    return [where[root[group[0]]] for group in groups]
