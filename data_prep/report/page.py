"""The report: one HTML file that needs nothing else, and ``summary.json`` next to it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image, ImageChops

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import Context, ContrastivePair, ImageRef
from contextrl_verl.pairs.prompting import open_image
from contextrl_verl.pairs.whole_file import write_whole
from data_prep.common.funnel import Funnel
from data_prep.report.differences import side_by_side
from data_prep.report.text import MASK, shortened, visible

# Beyond this, further examples are left out and the page says so.
MAX_PAGE_BYTES = 8_000_000
_HERE = Path(__file__).parent
_TURN = "━━ "
_BINS = 16
_LONGEST_SIDE = 448
# Larger images are compared at this size.
_COMPARED = 2048
_HUNK = re.compile(r"^@@ .*@@", re.M)
# Lines of a patch by how they begin; the first that fits.
_PATCH_LINES = {"+++ ": "file", "--- ": "file", "diff --git ": "file", "@@ ": "hunk", "+": "add", "-": "del"}
Status = Literal["kept", "dropped", "right", "wrong"]


@dataclass(frozen=True)
class Example:
    """A couple or pair to show; its first two contexts stand side by side, others are named only.

    Attributes:
        status: of the pair, or of a model's answers to it; ``reason`` why.
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


class Histogram(NamedTuple):
    """Numbers to be counted in bins."""

    name: str
    values: Iterable[float]


def write_report(
    folder: str | os.PathLike[str],
    summary: Mapping[str, Any],
    funnel: Funnel | None = None,
    examples: Iterable[Any] = (),
    *,
    title: str = "Contrastive pairs",
    block: str = "example.jinja",
    histograms: Iterable[Histogram] = (),
    notices: Iterable[str] = (),
    tables: Mapping[str, Mapping[str, Any]] | None = None,
    max_bytes: int = MAX_PAGE_BYTES,
) -> Path:
    """Write ``index.html`` and ``summary.json``, each whole or not at all, and return the page's path.

    Args:
        summary: plain JSON values; ``stages`` is filled in from the funnel.
        funnel: counts by stage and reason, with its samples of dropped records.
        examples: taken from one at a time until the page has ``max_bytes``, give or take its frame; each is an
            :class:`Example`, or what another ``block`` shows as its ``item``.
        notices: sentences at the top.
        tables: more counts by name, e.g. ``{"splits": {"train": 10}}``; histograms follow them.
    """
    folder, funnel = Path(folder), funnel or Funnel()
    funnel.check()
    written = {**summary, **({"stages": [stage.summary() for stage in funnel]} if funnel.stages else {})}
    environment = _environment()
    template = environment.get_template(block)
    shown: list[Markup] = []
    size = left_out = 0
    for example in examples:
        # Rendered with the same escaping as the page; only the result is marked as done.
        html = "" if left_out else template.render(item=example, first=not shown, **_view(example))
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
        stages=funnel.stages,
        notices=list(notices),
        tables={**(tables or {}), **dict(map(_binned, histograms))},
        examples=shown,
        left_out=left_out,
    )
    write_whole(folder / "summary.json", json.dumps(written, indent=2, ensure_ascii=True, default=str) + "\n")
    write_whole(folder / "index.html", page)
    return folder / "index.html"


def _binned(histogram: Histogram) -> tuple[str, Counter[str]]:
    """Name and counts of a histogram; bins grow in steps of equal ratio if values span over two powers of ten."""
    given = np.fromiter(histogram.values, float)
    values = given[np.isfinite(given)]
    counts = Counter({"not finite": len(given) - len(values)} if len(values) < len(given) else {})
    if not len(values):
        return f"{histogram.name}: no values", counts
    low, high = values.min(), values.max()
    if whole := high - low < _BINS and (values == np.floor(values)).all():
        edges = np.arange(low, high + 2)
    elif 0 < low < high / 100:
        edges = np.geomspace(low, high, _BINS + 1)
    else:
        edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    for number, start, end in zip(np.histogram(values, edges)[0], edges, edges[1:], strict=False):
        counts[_short(start) if whole else f"{_short(start)} to {_short(end)}"] += int(number)
    tenth, middle, nine = map(_short, np.quantile(values, [0.1, 0.5, 0.9]))
    return f"{histogram.name}: median {middle}, 80 % between {tenth} and {nine}", counts


def _short(value: float) -> str:
    return f"{value:,.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "shown": _shown,
        # A text in pieces: every second is a mask.
        "masks": re.compile(f"({MASK.pattern})").split,
        "patch": _patch_pieces,
        "number": lambda value: f"{value:,}" if isinstance(value, int) else f"{value:,.4g}",
        # For bars: what is no number above zero has none.
        "size": lambda value: max(value, 0) if isinstance(value, (int, float)) else 0,
    }
    return environment


def _shown(value: Any, room: int = 2000) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return visible(shortened(text, room))


def _patch_pieces(text: str) -> list[tuple[str, str]]:
    """A text in pieces with the kind of their lines (``add``, ``del``, ``hunk``, ``file``), empty if it is no patch."""
    if not _HUNK.search(text):
        return [("", text)]
    kinds = [(next((kind for sign, kind in _PATCH_LINES.items() if line.startswith(sign)), ""), line)
             for line in text.splitlines(keepends=True)]  # fmt: skip
    return [(kind, "".join(line for _, line in group)) for kind, group in groupby(kinds, itemgetter(0))]


def _view(example: Any) -> dict[str, Any]:
    """What the template shows of an example's contexts."""
    view: dict[str, Any] = {"diff": None, "pictures": None, "apart": None, "alone": None}
    if not isinstance(example, Example):
        return {}
    contexts = list(example.contexts)[:2]
    if contexts and contexts[0].kind == "images":
        view["pictures"] = [[_picture(image) for image in context.images] for context in contexts]
        view["sizes"] = [f"{len(context.images)} images" if len(context.images) > 1 else "" for context in contexts]
        if len(contexts) == 2:
            view["apart"] = _difference(contexts[0].images[0], contexts[1].images[0])
        return view
    texts, view["sizes"] = [], []
    for context in contexts:
        turns = context.messages or ()
        texts.append(context.text or "\n".join(f"{_TURN}{message.role}\n{message.content}" for message in turns))
        masks = len(MASK.findall(texts[-1]))
        counts = [(len(turns), "turn"), (len(texts[-1]), "character"), (masks, "mask")]
        view["sizes"].append(", ".join(f"{count:,} {name}{'s' * (count > 1)}" for count, name in counts if count))
    if len(texts) == 2:
        view["diff"] = side_by_side(*texts)
    elif texts:
        view["alone"] = texts[0]
    return view


class _Picture(NamedTuple):
    """An image to show; ``url`` is empty if it cannot be, then ``note`` says why."""

    url: str
    width: int = 0
    height: int = 0
    note: str = ""


def _picture(image: ImageRef) -> _Picture:
    """A thumbnail, decoded and encoded anew, so that nothing of the file but its pixels gets into the page."""
    try:
        return _encoded(open_image(image))
    except ConfigError as error:
        return _Picture("", note=shortened(visible(str(error)), 300))


def _difference(left: ImageRef, right: ImageRef) -> _Picture | None:
    """Where two images of one size differ, brightened; None if they cannot be compared."""
    try:
        one, other = open_image(left), open_image(right)
    except ConfigError:
        return None
    if one.size != other.size:
        return None
    for image in (one, other):
        image.thumbnail((_COMPARED, _COMPARED))
    apart = ImageChops.difference(one, other)
    most = max(high for _, high in apart.getextrema()) or 255
    share = sum(apart.convert("L").histogram()[9:]) / (one.width * one.height)
    shown = _encoded(ImageChops.invert(apart.point(lambda value: min(255, value * 255 // most))))
    return shown._replace(note=f"{share:.1%} of the pixels differ")


def _encoded(image: Image.Image) -> _Picture:
    size, stream = f"{image.width} × {image.height}", io.BytesIO()
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    image.save(stream, "WEBP", quality=90)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return _Picture(f"data:image/webp;base64,{data}", image.width, image.height, size)
