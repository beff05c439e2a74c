"""``contextrl show``: a page about any file of pairs, or about records of an agent's episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def show(
    pairs: Annotated[
        Path,
        typer.Argument(help="File of pairs (.parquet, .jsonl), or an episode's record (.json) or a folder of them."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for index.html and summary.json.")] = Path("outputs/report"),
    examples: Annotated[int, typer.Option("--examples", "-n", min=0, help="So many to show, drawn at random.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 1,
) -> None:
    """Write a static page: a file of pairs with counts and examples side by side, or episodes turn by turn."""
    from data_prep.report.episode import ENDING, write_episodes

    if pairs.is_dir() or pairs.suffix == ENDING:
        typer.echo(f"report written to {write_episodes(pairs, out, examples, seed)}")
        return
    import random
    from array import array
    from collections import Counter, defaultdict

    from tqdm import tqdm

    from contextrl_verl.pairs.files import PairFile
    from data_prep.report.page import Example, Histogram, write_report
    from data_prep.report.text import MASK

    file = PairFile(pairs)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    lengths: dict[str, array[float]] = defaultdict(lambda: array("d"))
    for pair in tqdm(file, total=len(file), desc=str(pairs), unit="pair", delay=2, leave=False):
        sizes, kind = [_size(context) for context in pair.contexts], pair.supporting.kind
        facts = {"split": pair.split, "domain": pair.domain, "kind": kind, "contexts in a pair": str(len(sizes))}
        for name, fact in facts.items():
            counts[name][fact] += 1
        lengths["answer, characters"].append(len(pair.answer))
        lengths[f"context, {'bytes' if kind == 'images' else 'characters'}"].extend(sizes)
        for context in pair.contexts if kind == "messages" else ():
            lengths["context, turns"].append(len(context.messages))
            lengths["context, masks"].append(sum(len(MASK.findall(turn.content)) for turn in context.messages))
        lengths["longest over shortest context"].append(max(sizes) / max(min(sizes), 1))
    chosen = sorted(random.Random(seed).sample(range(len(file)), min(examples, len(file))))
    summary = {"file": pairs.name, "pairs": len(file), "shown": len(chosen), "seed": seed}
    page = write_report(
        out,
        summary | {name.replace(" ", "_"): dict(sorted(count.items())) for name, count in counts.items()},
        None,
        (Example.of(file[row], row=row) for row in chosen),
        title=f"Contrastive pairs: {pairs.name}",
        histograms=[Histogram(name, values) for name, values in lengths.items()],
        tables={name: dict(count.most_common(40)) for name, count in counts.items()},
    )
    typer.echo(f"report written to {page}")


def _size(context: Any) -> int:
    """Characters of its text, or bytes of its images."""
    texts = [context.text or "", *(message.content for message in context.messages or ())]
    files = (len(i.bytes) if i.bytes is not None else Path(i.path).stat().st_size for i in context.images or ())
    return sum(map(len, texts)) + sum(files)
