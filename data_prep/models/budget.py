"""What was spent, and the cap at which asking stops: requests that run then still end, so concurrency may overshoot."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

_MILLION = 1_000_000


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
