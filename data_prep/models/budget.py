"""What was spent, and the cap at which asking stops: requests that run then still end, so concurrency may overshoot."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

_MILLION = 1_000_000
# English and code, byte-level BPE of recent models: 3 to 4.5 bytes a token.
BYTES_PER_TOKEN = 3.5
# Role, separators and whatever a chat template puts around a message; the schema of an answer.
_PER_MESSAGE, _PER_REQUEST = 16, 2048


@dataclass
class Budget:
    """Prices per million tokens in any currency, and what they came to.

    Attributes:
        price_in, price_out: None if unknown; then nothing is counted.
        cap: amount after which nothing more is asked; None for none.
        currency: only shown.
        uncertain: part of ``spent`` whose true cost no answer told; it is counted at its worst case.
    """

    price_in: Decimal | None = None
    price_out: Decimal | None = None
    cap: Decimal | None = None
    currency: str = "USD"
    spent: Decimal = Decimal(0)
    uncertain: Decimal = Decimal(0)

    @property
    def known(self) -> bool:
        return self.price_in is not None and self.price_out is not None

    @property
    def reached(self) -> bool:
        return self.cap is not None and self.spent >= self.cap

    def cost(self, tokens: tuple[int, int]) -> Decimal:
        """Of input and output tokens; zero without prices."""
        return (self.price_in * tokens[0] + self.price_out * tokens[1]) / _MILLION if self.known else Decimal(0)

    def add(self, tokens: tuple[int, int], *, uncertain: bool = False) -> None:
        """Count what was billed, or may have been."""
        cost = self.cost(tokens)
        self.spent += cost
        self.uncertain += cost if uncertain else 0

    def money(self, guess: tuple[int, int], worst: tuple[int, int]) -> str:
        """Words for what so many tokens would cost."""
        if not self.known:
            return "no prices given, so no cost"
        return f"{self.cost(guess):.4f} {self.currency} (at most {self.cost(worst):.4f} without retries)"

    def summary(self) -> dict[str, Any]:
        """Plain values; empty without prices."""
        if not self.known:
            return {}
        return {
            "spent": float(self.spent),
            "of_it_at_worst_case": float(self.uncertain),
            "currency": self.currency,
            "cap": None if self.cap is None else float(self.cap),
        }


def input_tokens(messages: list[dict[str, Any]], per_image: int) -> tuple[int, int]:
    """A guess at the tokens, and a bound: a token of a byte-level tokenizer holds at least one byte of UTF-8."""
    size = images = 0
    for message in messages:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                size += len(part["text"].encode("utf-8", "replace"))
            else:
                images += 1
    around = images * per_image + len(messages) * _PER_MESSAGE
    return round(size / BYTES_PER_TOKEN) + around, size + around + _PER_REQUEST
