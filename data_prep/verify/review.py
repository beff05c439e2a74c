"""The file in which a person decides what the judge could not: one JSON object a line, to be edited in place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import Context, ContrastivePair
from contextrl_verl.pairs.whole_file import write_whole
from data_prep.verify.rules import content_of, text_of

_ENDINGS = {b"\x89P": ".png", b"\xff\xd8": ".jpg", b"GI": ".gif", b"RI": ".webp"}
_SHOWN = 4000


class ReviewError(ConfigError):
    """A line of the review file that cannot be used: says which, what it holds, and the fix."""


@dataclass(frozen=True)
class Reviewed:
    """One line: whose it is and what was decided; ``decision`` is None while it is empty."""

    line: int
    pair_id: str
    content: str
    decision: str | None


def shortened(text: str, room: int = _SHOWN) -> str:
    """Start and end of a long text, with a mark between that says how much is not shown."""
    if len(text) <= room:
        return text
    head = room * 2 // 3
    tail = room - head
    return f"{text[:head]}\n[... {len(text) - room:,} characters not shown here ...]\n{text[-tail:]}"


def read_review(path: Path) -> list[Reviewed]:
    """All lines of a review file; an absent file has none.

    Raises:
        ReviewError: a line is no such object, or its decision is neither empty nor VALID nor INVALID.
    """
    if not path.is_file():
        return []
    found: list[Reviewed] = []
    by_pair: dict[str, Reviewed] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ReviewError(
                f"{where}: not JSON ({error}). Fix: change nothing but the text between the quotes after 'decision'."
            ) from None
        if not isinstance(record, dict) or any(
            not isinstance(record.get(name), str) for name in ("pair_id", "content", "decision")
        ):
            raise ReviewError(
                f"{where}: 'pair_id', 'content' or 'decision' is missing or not text. Fix: put the line back as it "
                "was, or remove it; it is written anew."
            )
        decision = record["decision"].strip().upper()
        if decision not in ("", "VALID", "INVALID"):
            raise ReviewError(
                f"{where}: 'decision' of pair {record['pair_id']!r} is {record['decision']!r}. "
                "Fix: write VALID or INVALID, or leave it empty to decide later."
            )
        entry = Reviewed(number, record["pair_id"], record["content"], decision or None)
        earlier = by_pair.setdefault(entry.pair_id, entry)
        if earlier.decision and entry.decision and earlier.decision != entry.decision:
            raise ReviewError(
                f"{where}: pair {entry.pair_id!r} is {entry.decision}, and {earlier.decision} in line {earlier.line}. "
                "Fix: keep one of the two lines."
            )
        if entry.decision:
            by_pair[entry.pair_id] = entry
        found.append(entry)
    return found


def apply_review(path: Path, contents: dict[str, str]) -> dict[str, str]:
    """The decisions a person made, by pair id.

    Args:
        path: the review file; absent means no decisions.
        contents: :func:`content_of` of the pairs at hand, by pair id.

    Raises:
        ReviewError: a bad line, or a decision on a pair that is not at hand or has changed since.
    """
    decisions = {}
    for entry in read_review(path):
        if entry.decision is None:
            continue
        where = f"{path}, line {entry.line}: pair {entry.pair_id!r}"
        if entry.pair_id not in contents:
            raise ReviewError(f"{where} is decided but not among the pairs. Fix: remove the line, or give its file.")
        if contents[entry.pair_id] != entry.content:
            raise ReviewError(
                f"{where} has changed since it was decided. Fix: remove the line and decide on the new one."
            )
        decisions[entry.pair_id] = entry.decision
    return decisions


def write_review(path: Path, uncertain: Iterable[tuple[ContrastivePair, str]]) -> int:
    """Add pairs to the review file; lines that are there stay as they are, decided or not.

    Images are put into the folder ``NAME_images`` next to the file, so that they can be looked at.

    Args:
        uncertain: pairs with the judge's reasons.

    Returns:
        How many lines wait for a decision.
    """
    known = {(entry.pair_id, entry.content): entry.decision for entry in read_review(path)}
    waiting = sum(decision is None for decision in known.values())
    lines = [line for line in path.read_text("utf-8").split("\n") if line.strip()] if path.is_file() else []
    images = path.with_name(f"{path.stem}_images")
    for pair, reason in uncertain:
        content = content_of(pair)
        if (pair.pair_id, content) in known:
            continue
        record: dict[str, Any] = {
            "pair_id": pair.pair_id,
            "decision": "",
            "reason": reason,
            "question": pair.query,
            "answer": shortened(pair.answer),
            "supporting": _shown(pair.supporting, images),
            "confounders": [_shown(context, images) for context in pair.confounders],
            "content": content,
        }
        lines.append(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8"))
        waiting += 1
    if lines:
        write_whole(path, "\n".join(lines) + "\n")
    return waiting


def _shown(context: Context, folder: Path) -> Any:
    if context.kind != "images":
        return shortened(text_of(context))
    return [image.path if image.bytes is None else _stored(image.bytes, folder) for image in context.images]


def _stored(data: bytes, folder: Path) -> str:
    name = hashlib.sha256(data).hexdigest()[:16] + _ENDINGS.get(data[:2], ".bin")
    if not (folder / name).is_file():
        write_whole(folder / name, data)
    return f"{folder.name}/{name}"
