"""Who plays a part in a command (judge, proposer, editor, ...): a model behind an endpoint, and what it may cost.

On the command line a role is a repeated ``NAME=VALUE``, as in Hydra: ``--judge model=m --judge max_cost=5``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_prep.models.budget import Budget, Prices
from data_prep.models.cache import ReplyCache
from data_prep.models.chat import ChatSettings
from data_prep.models.errors import RemoteError
from data_prep.models.key import DEFAULT_VARIABLE
from data_prep.models.retry import RetryPolicy

Role = TypeVar("Role", bound="EndpointRole")


class EndpointRole(BaseModel):
    """Settings of one role.

    Attributes:
        model: as the endpoint calls it.
        base_url: OpenAI-compatible address; None for ``OPENAI_BASE_URL`` or OpenAI's own.
        key_variable: name of the environment variable that holds the key.
        cache: folder of answers; asking again costs nothing.
        concurrency: requests at a time.
        timeout: seconds for one request.
        tries: requests for one answer when the endpoint fails.
        max_tokens: tokens of one reply, reasoning included.
        tokens_per_image: the most an image may cost, for the cap.
        temperature: of sampling; None leaves the field out.
        price_in, price_out: of a million input and output tokens.
        currency: of the prices and the cap; only shown.
        max_cost: spending cap of one command; needs prices.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    model: str = Field(min_length=1)
    base_url: str | None = None
    key_variable: str = DEFAULT_VARIABLE
    cache: Path = Path("outputs/judge_cache")
    concurrency: int = Field(8, ge=1)
    timeout: float = Field(120.0, gt=0)
    tries: int = Field(6, ge=1)
    max_tokens: int = Field(2048, ge=1)
    tokens_per_image: int = Field(4096, ge=0)
    temperature: float | None = 0.0
    price_in: float | None = None
    price_out: float | None = None
    currency: str = "USD"
    max_cost: float | None = None

    def settings(self) -> ChatSettings:
        """Where and how to ask."""
        return ChatSettings(
            model=self.model,
            base_url=self.base_url,
            key_variable=self.key_variable,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            concurrency=self.concurrency,
            timeout=self.timeout,
            tokens_per_image=self.tokens_per_image,
            retry=RetryPolicy(attempts=self.tries),
        )

    def replies(self) -> ReplyCache:
        """The cache of answers; makes its folder."""
        return ReplyCache(self.cache)

    def budget(self) -> Budget:
        """Raises RemoteError for one price without the other, or a cap without prices."""
        if (self.price_in is None) != (self.price_out is None):
            raise RemoteError(
                "Only one of the two prices (--price-in and --price-out, or price_in and price_out) is given. "
                "Fix: give both."
            )
        prices = None if self.price_in is None else Prices.of(self.price_in, self.price_out, self.currency)
        return Budget(prices, self.max_cost)


def read_role(option: str, items: Sequence[str], form: type[Role] = EndpointRole) -> Role | None:
    """A role from ``NAME=VALUE`` items; None without any.

    Args:
        option: its name on the command line, for messages.
        items: a lone word without ``=`` is the model.
        form: the role's class, with the names it knows.

    Raises:
        RemoteError: an item that is none, twice the same name, an unknown name, or a value of the wrong kind.
    """
    values: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            name, value = "model", item
        if name in values:
            raise RemoteError(f"{option} gives {name!r} twice: {values[name]!r} and {value!r}. Fix: give it once.")
        values[name] = value
    if not values:
        return None
    try:
        return form.model_validate(values)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = ".".join(map(str, wrong["loc"]))
        raise RemoteError(
            f"{option} {name}: {wrong['msg'].lower()}{f' (found {values[name]!r})' if name in values else ''}. "
            f"Fix: {option} NAME=VALUE with names of {', '.join(form.model_fields)}; model is required."
        ) from None
