"""Runs a source through its parts, as the commands do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from made_pictures import encoded, noisy

from data_prep.common.funnel import Funnel
from data_prep.common.pipeline import Done, run_parts, total
from data_prep.images.item import VqaItem, read_items
from data_prep.images.sources.base import SourceOptions
from data_prep.images.sources.scan import plan_source, scan_images
from data_prep.images.store import ImageStore


def scan(source: Path | str, folder: Path, workers: int = 1, **options: Any) -> list[Done]:
    """The parts of the source, done in ``folder``."""
    payloads = [{**part, "store": str(folder / "store")} for part in plan_source(str(source), SourceOptions(**options))]
    how = {"title": "t", "suffix": ".jsonl", "workers": workers, "progress": False}
    return run_parts(folder / "scan", payloads, scan_images, **how)


def read(source: Path | str, folder: Path, **options: Any) -> tuple[list[VqaItem], dict[str, int], ImageStore]:
    """Items, drops by reason, and the store; the counts are checked."""
    done = scan(source, folder, **options)
    funnel: Funnel = total(done)
    funnel.check()
    (stage,) = funnel
    items = list(read_items([part.path for part in done]))
    assert stage.left == len(items)
    assert len({item.item_id for item in items}) == len(items)
    store = ImageStore(folder / "store")
    for item in items:
        assert item.image in store
    return items, dict(stage.dropped), store


def lines(path: Path, *rows: object) -> Path:
    """Write a JSONL file; texts go in as they are."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def row(image: object, question: object = "what?", answer: object = "this", **more: object) -> dict[str, object]:
    return {"image": image, "question": question, "answer": answer, **more}


def picture_folder(folder: Path) -> Path:
    """Pictures of noise, numbered, in a folder inside."""
    (folder / "deep").mkdir(parents=True)
    for number in range(4):
        (folder / "deep" / f"{number}.png").write_bytes(encoded(noisy(number)))
    return folder
