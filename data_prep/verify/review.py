"""The file in which a person decides what the judge could not: one JSON object a line, to be edited in place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ValidationError

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import Context, ContrastivePair
from contextrl_verl.pairs.whole_file import write_whole
from data_prep.report.text import shortened
from data_prep.verify.judge import image_type, upper
from data_prep.verify.rules import content_of, text_of

_SHOWN = 4000


class Reviewed(BaseModel):
    """What counts of a line: whose it is, of which content, and what was decided; empty to decide later."""

    pair_id: str
    content: str
    decision: Annotated[Literal["", "VALID", "INVALID"], upper]


def read_review(path: Path) -> dict[int, Reviewed]:
    """All lines of a review file by number, from 1; an absent file has none.

    Raises ConfigError if a line is no such object, or two decisions on a pair contradict each other.
    """
    found: dict[int, Reviewed] = {}
    decided: dict[str, int] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n") if path.is_file() else (), start=1):
        if not line.strip():
            continue
        try:
            entry = found[number] = Reviewed.model_validate_json(line)
        except ValidationError as error:
            wrong = error.errors()[0]
            field = repr(wrong["loc"][0]) if wrong["loc"] else "the record"
            raise ConfigError(
                f"{path}, line {number}: {field} is {str(wrong['input'])[:80]!r} ({wrong['msg']}). Fix: write VALID, "
                "INVALID or nothing between the quotes after 'decision', and change nothing else; a line that is "
                "removed is written anew."
            ) from None
        earlier = decided.setdefault(entry.pair_id, number) if entry.decision else number
        if found[earlier].decision != entry.decision:
            raise ConfigError(
                f"{path}, line {number}: pair {entry.pair_id!r} is {entry.decision}, and {found[earlier].decision} in "
                f"line {earlier}. Fix: keep one of the two lines."
            )
    return found


def apply_review(path: Path, contents: dict[str, str]) -> dict[str, str]:
    """The decisions a person made, VALID or INVALID by pair id; an absent file holds none.

    Args:
        contents: :func:`content_of` of the pairs at hand, by pair id.

    Raises:
        ConfigError: a bad line, or a decision on a pair that is not at hand or has changed since.
    """
    decisions = {}
    for number, entry in read_review(path).items():
        if not entry.decision:
            continue
        if contents.get(entry.pair_id) != entry.content:
            known = entry.pair_id in contents
            problem = "has changed since it was decided" if known else "is decided but not among the pairs"
            fix = "remove the line and decide on the new one" if known else "remove the line, or give its file"
            raise ConfigError(f"{path}, line {number}: pair {entry.pair_id!r} {problem}. Fix: {fix}.")
        decisions[entry.pair_id] = entry.decision
    return decisions


def write_review(path: Path, uncertain: Iterable[tuple[ContrastivePair, str]]) -> int:
    """Add uncertain pairs, with the judge's reasons; lines that are there stay, decided or not. Returns how many wait.

    Images are put into the folder ``NAME_images`` next to the file, so that they can be looked at.
    """
    known = {(entry.pair_id, entry.content): entry.decision for entry in read_review(path).values()}
    lines = [line for line in path.read_text("utf-8").split("\n") if line.strip()] if path.is_file() else []
    images = path.with_name(f"{path.stem}_images")
    for pair, reason in uncertain:
        content = content_of(pair)
        if (pair.pair_id, content) not in known:
            known[pair.pair_id, content] = ""
            supporting, *confounders = (_shown(context, images) for context in pair.contexts)
            record = dict(
                pair_id=pair.pair_id, decision="", reason=reason, question=pair.query,
                answer=shortened(pair.answer, _SHOWN), supporting=supporting, confounders=confounders, content=content,
            )  # fmt: skip
            lines.append(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8"))
    if lines:
        write_whole(path, "\n".join(lines) + "\n")
    return list(known.values()).count("")


def _shown(context: Context, folder: Path) -> Any:
    if context.kind != "images":
        return shortened(text_of(context), _SHOWN)
    names = []
    for image in context.images:
        if (data := image.bytes) is not None:
            name = f"{hashlib.sha256(data).hexdigest()[:16]}.{image_type(data) or 'bin'}"
            write_whole(folder / name, data)
        names.append(image.path if data is None else f"{folder.name}/{name}")
    return names
