"""What people read: text that is safe and honest to show, and the stages of a run in the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# Controls that Unicode has pictures for: U+2400 stands for U+0000, and so on.
_PICTURES = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {127: 0x2421}
# Turn the direction of text, or cannot be seen: shown by their number.
_HIDDEN = re.compile(
    "[\u0080-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
MASK = re.compile(r"<[A-Z]+(?:_[A-Z]+)*_MASKED>")


def visible(text: str) -> str:
    """The text with controls, invisible and direction marks made visible, and lone surrogates replaced.

    A carriage return, with which programs begin a line again, is a line break.
    """
    text = line_breaks(text.encode("utf-8", "replace").decode("utf-8"))
    return _HIDDEN.sub(lambda found: f"⟦U+{ord(found.group()):04X}⟧", text.translate(_PICTURES))


def line_breaks(text: str) -> str:
    """The text with ``\\n`` for every ``\\r\\n`` and ``\\r``."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def shortened(text: str, room: int) -> str:
    """At most about ``room`` characters: start and end, with a mark for what is between."""
    if len(text) <= room:
        return text
    head = room * 2 // 3
    return f"{text[:head]} [… {len(text) - room:,} characters …] {text[len(text) - (room - head) :]}"


def print_stages(title: str, stages: Iterable[dict[str, Any]]) -> None:
    """Print stages as ``summary.json`` holds them, in a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("stage", "unit", "in", "out", "dropped", title=title)
    for stage in stages:
        dropped = ", ".join(f"{reason} {count:,}" for reason, count in stage["dropped"].items())
        cells = (stage["name"], stage["unit"], f"{stage['in']:,}", f"{stage['out']:,}", dropped)
        table.add_row(*map(escape, cells))
    Console().print(table)
