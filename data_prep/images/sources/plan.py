"""Which source a text names, and its work cut into payloads."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from data_prep.common.seeded import draw
from data_prep.images.errors import ImagePairError
from data_prep.images.sources import easy_vqa, folder, hf, table
from data_prep.images.sources.columns import choose_columns
from data_prep.images.sources.options import SourceOptions, read_options
from data_prep.images.sources.types import Found, Source

# In the order in which they are asked whether a text names them.
SOURCES: dict[str, Source] = {module.NAME: cast(Source, module) for module in (easy_vqa, hf, folder, table)}


def plan_source(source: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Payloads for :func:`data_prep.images.sources.scan.scan_images`, in the source's order.

    Args:
        source: ``easy_vqa``, ``hf:NAME``, or the path of a file or folder.
        options: see :class:`SourceOptions`. Without ``store``, every payload needs one added before it is worked on.

    Raises:
        ImagePairError: no such source, a wrong option, or a column that cannot be found.
    """
    settings = read_options(options)
    found, kind = _find(source, settings)
    columns = choose_columns(found, settings.columns, source)
    wanted = sorted({column if column in found.columns else column.split(".")[0] for column in columns.values()})
    shared = {
        "source": kind,
        "name": settings.name or found.name,
        "columns": columns,
        "root": found.root,
        "domain": settings.domain or found.domain or "image",
        "limits": vars(settings.limits),
        "seed": settings.seed,
        "highest": highest_draw(found, settings),
        "store": settings.store,
    }
    return [{**shared, "span": {**span, "columns": wanted}} for span in found.spans]


def describe_source(source: str, options: Mapping[str, Any]) -> list[Any]:
    """What tells that a source or its options have changed, for :func:`data_prep.common.pipeline.fingerprint`.

    Pictures that a table names by path are not looked at. Raises as :func:`plan_source`.
    """
    settings = read_options(options)
    found, kind = _find(source, settings)
    return [kind, found.name, found.inputs, settings.model_dump(exclude={"store"})]


def _find(source: str, settings: SourceOptions) -> tuple[Found, str]:
    if settings.root and not Path(settings.root).is_dir():
        raise ImagePairError(f"root is {settings.root!r}. Fix: give a folder that exists.")
    for kind, module in SOURCES.items():
        if module.claims(source):
            return module.find(source, settings), kind
    state = "exists, but holds nothing that is read here" if Path(source).exists() else "is no known source or path"
    forms = "; ".join(module.FORM for module in SOURCES.values())
    raise ImagePairError(f"--source {source!r} {state}. Fix: give one of: {forms}.")


def highest_draw(found: Found, settings: SourceOptions) -> str | None:
    """The draw of the last question that is taken; None takes all. Each part then knows its own share."""
    if not settings.limit or found.keys is None:
        return None
    drawn = heapq.nsmallest(settings.limit, (draw(settings.seed, key) for key in found.keys()))
    return drawn[-1].hex() if len(drawn) == settings.limit else None
