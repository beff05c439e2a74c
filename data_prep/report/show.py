"""What a file of pairs holds, as a report."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from contextrl_verl.pairs import Context
from contextrl_verl.pairs.files import PairFile
from data_prep.report.page import Example, Histogram, write_report
from data_prep.report.text import MASK


def show_pairs(path: Path, out: Path, *, examples: int = 20, seed: int = 1) -> Path:
    """Write the report of a file; every pair is read once, one at a time.

    Raises:
        PairFormatError: the file or a row of it is not valid.
    """
    file = PairFile(path)
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("split", "domain", "kind", "contexts in a pair")}
    lengths: dict[str, array[float]] = {}
    for pair in tqdm(file, total=len(file), desc=str(path), unit="pair", delay=2, leave=False):
        counts["split"][pair.split] += 1
        counts["domain"][pair.domain] += 1
        counts["kind"][pair.supporting.kind] += 1
        counts["contexts in a pair"][str(len(pair.contexts))] += 1
        _add(lengths, "answer, characters", len(pair.answer))
        sizes = [_size(context) for context in pair.contexts]
        for context, size in zip(pair.contexts, sizes, strict=True):
            _add(lengths, f"context, {'bytes' if context.kind == 'images' else 'characters'}", size)
            if context.kind == "messages":
                _add(lengths, "context, turns", len(context.messages))
                _add(lengths, "context, masks", sum(len(MASK.findall(m.content)) for m in context.messages))
        _add(lengths, "longest over shortest context", max(sizes) / max(min(sizes), 1))
    chosen = sorted(random.Random(seed).sample(range(len(file)), min(examples, len(file))))
    summary = {"file": path.name, "pairs": len(file), "shown": len(chosen), "seed": seed}
    return write_report(
        out,
        summary | {name.replace(" ", "_"): dict(sorted(count.items())) for name, count in counts.items()},
        None,
        (Example.of(file[row], row=row) for row in chosen),
        title=f"Contrastive pairs: {path.name}",
        histograms=[Histogram(name, values) for name, values in lengths.items()],
        tables={name: dict(count.most_common(40)) for name, count in counts.items()},
    )


def _add(lengths: dict[str, array[float]], name: str, value: float) -> None:
    lengths.setdefault(name, array("d")).append(value)


def _size(context: Context) -> int:
    if context.kind == "images":
        return sum(len(i.bytes) if i.bytes is not None else Path(i.path).stat().st_size for i in context.images)
    return len(context.text or "") + sum(len(message.content) for message in context.messages or ())
