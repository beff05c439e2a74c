"""A spending cap that concurrent requests cannot exceed.

Before a request its worst case is set aside; afterwards the true cost takes its place. A request that may have been
worked on although no answer came (a timeout) is counted at its worst case.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal

from data_prep.models.errors import CapReached, RemoteError

_MILLION = Decimal(1_000_000)


@dataclass(frozen=True)
class Prices:
    """Price per million tokens, in any currency.

    Attributes:
        input, output: as decimal strings or numbers; zero for one's own machine.
        currency: only shown.
    """

    input: Decimal
    output: Decimal
    currency: str = "USD"

    @classmethod
    def of(cls, input: str | float | Decimal, output: str | float | Decimal, currency: str = "USD") -> Prices:
        """Raises RemoteError on a price that is negative or not finite."""
        values = [Decimal(str(value)) for value in (input, output)]
        for name, value in zip(("input", "output"), values, strict=True):
            if not value.is_finite() or value < 0:
                raise RemoteError(f"The {name} price is {value} a million tokens. Fix: give a number of at least 0.")
        return cls(values[0], values[1], currency)

    @classmethod
    def each(cls, price: str | float | Decimal, currency: str = "USD") -> Prices:
        """A price per piece (a picture): output then counts pieces, not tokens. Raises RemoteError as :meth:`of`."""
        return cls.of(0, Decimal(str(price)) * _MILLION, currency)

    def cost(self, input_tokens: int, output_tokens: int) -> Decimal:
        return (self.input * input_tokens + self.output * output_tokens) / _MILLION


class Budget:
    """What was spent, what is set aside, and the cap on both together.

    Args:
        prices: None if unknown; then nothing is counted and there can be no cap.
        cap: largest amount; None for none.

    Raises:
        RemoteError: a cap without prices, or a negative one.
    """

    def __init__(self, prices: Prices | None = None, cap: str | float | Decimal | None = None) -> None:
        self.prices = prices
        self.cap = None if cap is None else Decimal(str(cap))
        if self.cap is not None and (not self.cap.is_finite() or self.cap < 0):
            raise RemoteError(f"The spending cap is {cap}. Fix: give an amount of at least 0.")
        if self.cap is not None and prices is None:
            raise RemoteError(
                f"A spending cap of {cap} needs prices to count with. Fix: give the endpoint's price per million "
                "input and output tokens (--price-in, --price-out)."
            )
        self.spent = Decimal(0)
        self.uncertain = Decimal(0)
        self.reserved = Decimal(0)
        self.over_worst_case = 0
        # Grows when an endpoint bills more than the worst case, so that the next reservation holds.
        self._factor = Decimal(1)
        self._changed = asyncio.Condition()

    async def reserve(self, input_tokens: int, output_tokens: int) -> Decimal:
        """Set the worst case of one request aside; waits while running requests may still give some back.

        Raises:
            CapReached: it does not fit although nothing is running.
        """
        if self.prices is None:
            return Decimal(0)
        async with self._changed:
            while True:
                worst = self.prices.cost(input_tokens, output_tokens) * self._factor
                if self.cap is None or self.spent + self.reserved + worst <= self.cap:
                    self.reserved += worst
                    return worst
                if not self.reserved:
                    raise CapReached
                await self._changed.wait()

    def enter_loop(self) -> None:
        """Be used in another event loop from now on; nothing may be running. What was spent stays."""
        self._changed = asyncio.Condition()

    async def settle(self, worst: Decimal, tokens: tuple[int, int] | None, charged: bool = True) -> None:
        """Put the true cost in place of what was set aside.

        Args:
            worst: what ``reserve`` returned.
            tokens: input and output tokens as billed; None if the endpoint did not say.
            charged: False if the request cannot have cost anything.
        """
        if self.prices is None:
            return
        async with self._changed:
            self.reserved -= worst
            if charged and tokens is None:
                self.spent += worst
                self.uncertain += worst
            elif charged:
                cost = self.prices.cost(*tokens)
                self.spent += cost
                if cost > worst:
                    self.over_worst_case += 1
                    if worst:
                        self._factor *= cost / worst
            self._changed.notify_all()
