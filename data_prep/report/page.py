"""The report: one HTML file that needs nothing else, and ``summary.json`` next to it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from contextrl_verl.pairs import Context, ContrastivePair
from contextrl_verl.pairs.whole_file import write_whole
from data_prep.common.funnel import Funnel
from data_prep.report.charts import histogram, shares
from data_prep.report.differences import side_by_side
from data_prep.report.pictures import difference, picture
from data_prep.report.text import MASK, shortened, visible

# Beyond this, further examples are left out and the page says so.
MAX_PAGE_BYTES = 8_000_000
_HERE = Path(__file__).parent
_TURN = "━━ "
Status = Literal["kept", "dropped", "right", "wrong"]


@dataclass(frozen=True)
class Example:
    """A couple or pair to show.

    Attributes:
        title: heading, e.g. the pair's id.
        contexts: two or more; the first two stand side by side, others are named only.
        status: of the pair, or of a model's answers to it.
        reason: why.
        question, answer: shown above the contexts.
        facts: more to show, by name: cosine, file, repository, ...
        labels: headings of the contexts.
    """

    title: str
    contexts: Sequence[Context]
    status: Status = "kept"
    reason: str = ""
    question: str = ""
    answer: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    labels: Sequence[str] = ("supporting", "confounder")

    @classmethod
    def of(cls, pair: ContrastivePair, status: Status = "kept", reason: str = "", **facts: Any) -> Example:
        """A pair as an example; its provenance and the extra facts are listed."""
        listed = {"split": pair.split, "domain": pair.domain, **facts, **pair.provenance}
        return cls(pair.pair_id, pair.contexts, status, reason, pair.query, pair.answer, listed)


@dataclass(frozen=True)
class Histogram:
    """Numbers to draw, e.g. the lengths of all contexts."""

    name: str
    values: Iterable[float]


@dataclass(frozen=True)
class Notice:
    """A sentence at the top of the page: ``good``, ``bad`` or just ``plain``."""

    text: str
    tone: Literal["good", "bad", "plain"] = "plain"


def write_report(
    folder: str | os.PathLike[str],
    summary: Mapping[str, Any],
    funnel: Funnel | None = None,
    examples: Iterable[Example] = (),
    *,
    title: str = "Contrastive pairs",
    histograms: Iterable[Histogram] = (),
    notices: Iterable[Notice] = (),
    tables: Mapping[str, Mapping[str, Any]] | None = None,
    max_bytes: int = MAX_PAGE_BYTES,
) -> Path:
    """Write ``index.html`` and ``summary.json``, each whole or not at all.

    Args:
        folder: made if it is not there.
        summary: plain JSON values; ``stages`` is filled in from the funnel.
        funnel: counts by stage and reason, with its samples of dropped records.
        examples: taken from one at a time until the page is full.
        histograms: drawn in this order.
        notices: sentences at the top.
        tables: more counts by name, e.g. ``{"splits": {"train": 10}}``.
        max_bytes: size of the page at most, give or take the page's frame.

    Returns:
        The page's path.
    """
    folder = Path(folder)
    written = dict(summary)
    if funnel is not None:
        funnel.check()
        written["stages"] = [stage.summary() for stage in funnel]
    environment = _environment()
    block = environment.get_template("example.jinja")
    shown: list[Markup] = []
    size = left_out = 0
    for example in examples:
        # Rendered with the same escaping as the page; only the result is marked as done.
        html = "" if left_out else block.render(example=_example_view(example), first=not shown)
        size += len(html.encode())
        if left_out or size > max_bytes:
            left_out += 1
        else:
            shown.append(Markup(html))
    style = (_HERE / "style.css").read_text(encoding="utf-8").strip()
    page = environment.get_template("page.jinja").render(
        title=title,
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii"),
        numbers={key: value for key, value in written.items() if isinstance(value, (int, float, str))},
        stages=_stage_views(funnel) if funnel is not None else [],
        histograms=[histogram(item.name, item.values) for item in histograms],
        notices=list(notices),
        tables=[_table(name, counts) for name, counts in (tables or {}).items()],
        examples=shown,
        left_out=left_out,
    )
    write_whole(folder / "summary.json", json.dumps(written, indent=2, ensure_ascii=True, default=str) + "\n")
    write_whole(folder / "index.html", page)
    return folder / "index.html"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = lambda value, room=2000: visible(shortened(_plain(value), room))
    environment.filters["masks"] = _masks
    environment.filters["number"] = lambda value: f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
    return environment


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _masks(text: str) -> list[tuple[str, bool]]:
    """A text in pieces, with whether each is a mask."""
    pieces = re.split(f"({MASK.pattern})", text)
    return [(piece, number % 2 == 1) for number, piece in enumerate(pieces) if piece]


def _stage_views(funnel: Funnel) -> list[dict[str, Any]]:
    views = []
    for stage in funnel:
        gone = stage.entered - stage.left
        most = max(other.entered for other in funnel if other.unit == stage.unit)
        kept_share, gone_share = shares([stage.left, gone], most)
        reasons = sorted(stage.dropped.items(), key=lambda item: (-item[1], item[0]))
        views.append(
            {
                "name": stage.name,
                "unit": stage.unit,
                "entered": stage.entered,
                "left": stage.left,
                "gone": gone,
                "bars": (kept_share, min(gone_share, 100 - kept_share)),
                "reasons": [{"name": one, "count": n, "samples": stage.samples.get(one, [])} for one, n in reasons],
            }
        )
    return views


def _table(name: str, counts: Mapping[str, Any]) -> dict[str, Any]:
    # A bar for what is a number above zero.
    sizes = [value if isinstance(value, (int, float)) and value > 0 else 0 for value in counts.values()]
    widths = shares(sizes, max(sizes, default=0) or 1)
    return {"name": name, "rows": list(zip(counts, counts.values(), widths, strict=True))}


def _example_view(example: Example) -> dict[str, Any]:
    view: dict[str, Any] = {"example": example, "diff": None, "pictures": None, "sizes": []}
    contexts = list(example.contexts)[:2]
    if contexts and contexts[0].kind == "images":
        view["pictures"] = [[picture(image) for image in context.images] for context in contexts]
        view["sizes"] = [f"{len(context.images)} images" if len(context.images) > 1 else "" for context in contexts]
        if len(contexts) == 2:
            view["apart"] = difference(contexts[0].images[0], contexts[1].images[0])
        return view
    texts = [_text(context) for context in contexts]
    view["sizes"] = [_size(context, text) for context, text in zip(contexts, texts, strict=True)]
    if len(texts) == 2:
        view["diff"] = side_by_side(*texts)
    elif texts:
        view["alone"] = visible(shortened(texts[0], 20_000))
    return view


def _text(context: Context) -> str:
    if context.kind == "text":
        return context.text
    return "\n".join(f"{_TURN}{message.role}\n{message.content}" for message in context.messages)


def _size(context: Context, text: str) -> str:
    turns = f"{len(context.messages):,} turns, " if context.kind == "messages" else ""
    masks = len(MASK.findall(text))
    return f"{turns}{len(text):,} characters" + (f", {masks} mask{'s' if masks > 1 else ''}" if masks else "")
