"""Lengths of pairs that were counted before: the driver counts them, and the trainer of the same job finds them here.

JSON in ``$CONTEXTRL_CACHE``, else in the user's cache folder. Whatever cannot be read or written is counted again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from contextrl_verl import __version__
from contextrl_verl.pairs.whole_file import write_whole

# (tokens in the longest order, images) of every pair of some files.
Counts = list[tuple[int, int]]
_KEPT = 50


def place_of(files: Iterable[str], about: Mapping[str, Any], tokenizer: Any, processor: Any) -> Path | None:
    """The file that holds the counts of these pairs: another one if a file, the prompt or the tokenizer changes.

    None for a tokenizer that cannot be written down.

    Args:
        about: all else that lengths depend on.
    """
    try:
        core = json.loads(tokenizer.backend_tokenizer.to_str())
        states = [(os.path.abspath(file), os.stat(file)) for file in files]
    except (AttributeError, OSError):
        return None
    described = {
        "version": __version__,
        "files": [(path, state.st_size, state.st_mtime_ns) for path, state in states],
        "about": about,
        # Padding and truncation are the last call's.
        "tokenizer": [core | {"padding": None, "truncation": None}, tokenizer.special_tokens_map],
        "templates": [tokenizer.chat_template, getattr(processor, "chat_template", None)],
        "images": [repr(getattr(processor, "image_processor", None)), type(processor).__name__],
    }
    digest = hashlib.blake2b(json.dumps(described, sort_keys=True, default=repr).encode(), digest_size=16).hexdigest()
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("CONTEXTRL_CACHE") or os.path.join(cache, "contextrl_verl")) / f"lengths-{digest}.json"


def recall(place: Path | None, pairs: int) -> Counts | None:
    """The counts of so many pairs; None if they are not there or are no such numbers."""
    if place is None:
        return None
    try:
        found = json.loads(place.read_text())
        counts = [(length, images) for length, images in found]
    except (OSError, ValueError, TypeError):
        return None
    good = len(counts) == pairs and all(type(number) is int and number >= 0 for count in counts for number in count)
    return counts if good else None


def remember(place: Path | None, counts: Counts) -> None:
    """Keep the counts, and of all such files the newest."""
    if place is None:
        return
    with contextlib.suppress(OSError):
        write_whole(place, json.dumps(counts))
        for old in sorted(place.parent.glob("lengths-*.json"), key=os.path.getmtime)[:-_KEPT]:
            old.unlink(missing_ok=True)
