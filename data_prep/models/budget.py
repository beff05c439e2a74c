"""What was spent, and the cap at which asking stops: requests that run then still end, so concurrency may overshoot."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

# English and code, byte-level BPE of recent models: 3 to 4.5 bytes a token.
BYTES_PER_TOKEN = 3.5
# Role, separators and whatever a chat template puts around a message; the schema of an answer.
_PER_MESSAGE, _PER_REQUEST = 16, 2048


@dataclass
class Budget:
    """Prices per million tokens in any currency, and what they came to.

    Attributes:
        prices: of input and output; None if unknown, and then nothing is counted.
        cap: amount after which nothing more is asked; None for none.
        currency: only shown.
        uncertain: part of ``spent`` whose true cost no answer told; it is counted at its worst case.
    """

    prices: tuple[Decimal, Decimal] | None = None
    cap: Decimal | None = None
    currency: str = "USD"
    spent: Decimal = Decimal(0)
    uncertain: Decimal = Decimal(0)

    @property
    def reached(self) -> bool:
        return self.cap is not None and self.spent >= self.cap

    def cost(self, tokens: tuple[int, int]) -> Decimal:
        """Of input and output tokens; zero without prices."""
        return sum((a * b for a, b in zip(self.prices or (), tokens, strict=False)), Decimal(0)) / 1_000_000

    def add(self, tokens: tuple[int, int], *, uncertain: bool = False) -> None:
        """Count what was billed, or may have been."""
        cost = self.cost(tokens)
        self.spent += cost
        self.uncertain += cost if uncertain else 0

    def summary(self) -> dict[str, Any]:
        """Plain values; empty without prices."""
        if self.prices is None:
            return {}
        cap = None if self.cap is None else float(self.cap)
        spent, uncertain = float(self.spent), float(self.uncertain)
        return {"spent": spent, "of_it_at_worst_case": uncertain, "currency": self.currency, "cap": cap}


def input_tokens(messages: list[dict[str, Any]], per_image: int) -> tuple[int, int]:
    """A guess at the tokens, and a bound: a token of a byte-level tokenizer holds at least one byte of UTF-8."""
    size, around = 0, len(messages) * _PER_MESSAGE
    for message in messages:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                size += len(part["text"].encode("utf-8", "replace"))
            else:
                around += per_image
    return round(size / BYTES_PER_TOKEN) + around, size + around + _PER_REQUEST
