"""What the cascade needs to know of a run: a few hundred bytes, so that a hundred thousand runs fit in memory."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]{2,}")
_NUMBER = re.compile(r"(\d+)$")


@dataclass(frozen=True)
class Light:
    """A run without its text.

    Attributes:
        stored: file and row of the first pass, see :func:`data_prep.trajectories.scan.stored_run`.
        places: (file, qualified symbol or "", kind: ``function``, ``class`` or ``module``, how it was found).
        words: ids and counts of the issue's words, ids ascending; see :func:`issue_words`.
        added: digests of the patch's added lines.
    """

    run_id: str
    instance_id: str
    repository: str
    commit: str
    stored: tuple[str, int]
    places: tuple[tuple[str, str, str, str], ...]
    words: tuple[np.ndarray, np.ndarray]
    added: frozenset[int]

    @property
    def number(self) -> int | None:
        """The number an instance id ends in: of a pull request, so it grows with time."""
        found = _NUMBER.search(self.instance_id)
        return int(found.group(1)) if found else None


def digest32(text: str) -> int:
    """A stable 32-bit digest."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")


def issue_words(text: str, limit: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Ids (int64, ascending) and counts (float32) of the most frequent words of an issue, lower case, identifiers whole
    and by their parts."""
    counts: Counter[str] = Counter()
    for word in _WORD.findall(text):
        lower = word.lower()
        counts[lower] += 1
        parts = [part for part in lower.split("_") if len(part) > 2]
        if len(parts) > 1:
            counts.update(parts)
    merged: Counter[int] = Counter()
    for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]:
        merged[digest32(word)] += count
    ids = np.array(sorted(merged), dtype=np.int64)
    return ids, np.array([merged[int(word)] for word in ids], dtype=np.float32)


def added_lines(patch: str) -> frozenset[int]:
    """Digests of the added lines, without white space; short ones such as ``else:`` do not count."""
    lines = (re.sub(r"\s", "", line[1:]) for line in patch.splitlines() if line[:1] == "+" and line[:4] != "+++ ")
    return frozenset(digest32(line) for line in lines if len(line) >= 8)
