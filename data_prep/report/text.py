"""Text that is safe and honest to show: nothing invisible, nothing that turns the reading direction."""

from __future__ import annotations

import re

# Controls that Unicode has pictures for: U+2400 stands for U+0000, and so on.
_PICTURES = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {127: 0x2421}
# Turn the direction of text, or cannot be seen: shown by their number.
_HIDDEN = re.compile(
    "[\u0080-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
MASK = re.compile(r"<[A-Z]+(?:_[A-Z]+)*_MASKED>")


def visible(text: str) -> str:
    """The text with controls, invisible and direction marks made visible, and lone surrogates replaced."""
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n")
    return _HIDDEN.sub(lambda found: f"⟦U+{ord(found.group()):04X}⟧", text.translate(_PICTURES))


def shortened(text: str, room: int) -> str:
    """At most about ``room`` characters: start and end, with a mark for what is between."""
    if len(text) <= room:
        return text
    head = room * 2 // 3
    return f"{text[:head]} [… {len(text) - room:,} characters …] {text[len(text) - (room - head) :]}"
