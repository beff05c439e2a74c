"""Small pairs for the tests."""

from __future__ import annotations

from contextrl_verl.pairs import Context, ContrastivePair


def text_pair(number: int, confounders: int = 1, length: int = 3) -> ContrastivePair:
    """A small text pair; contexts differ in one number."""
    contexts = [Context(kind="text", text=f"{'log line. ' * length}value {number + i}") for i in range(confounders + 1)]
    return ContrastivePair(
        pair_id=f"p{number}",
        domain="test",
        query="what is the value?",
        answer=str(number),
        supporting=contexts[0],
        confounders=contexts[1:],
        provenance={"number": number},
    )
