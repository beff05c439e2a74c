"""The marks that stand in a context where something was taken out, and what viewers put in front of a line."""

import re

PATCH_MASKED = "<PATCH_MASKED>"
ELIDED = re.compile(r"<ELIDED (\d+) tokens>")
NUMBERING = re.compile(r"[ \t]*(?:\d+[ \t:|-]*)?[+>|]?")


def elided(tokens: int) -> str:
    """The mark for so many tokens left out."""
    return f"<ELIDED {tokens} tokens>"
