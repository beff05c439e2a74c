"""The one way to name a model in every command: ``--judge model=M --judge base_url=URL --judge max_cost=5``.

A part (judge, solver, proposer, editor, embedder, probed model) is a :class:`ModelSpec` or a small subclass of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, Json, SecretStr, ValidationError

from contextrl_verl.errors import ConfigError
from data_prep.models.budget import Budget

# Servers on one's own machine want some key, any key.
NO_KEY = "none"
Spec = TypeVar("Spec", bound="ModelSpec")


class ModelSpec(BaseModel):
    """A model behind an endpoint: where and how to ask, and what it may cost.

    Attributes:
        model: as the endpoint calls it.
        base_url: OpenAI-compatible address; None for ``OPENAI_BASE_URL`` or OpenAI's own.
        key_variable: name of the environment variable that holds the key.
        cache: folder of answers, so that asking again costs nothing; None asks everything anew.
        concurrency: requests at a time.
        timeout: seconds that the endpoint may be silent.
        tries: requests for one answer when the endpoint fails.
        malformed_tries: requests for one answer when answers cannot be used.
        again_if_malformed: ask again what the cache holds as malformed.
        max_tokens: tokens of one reply, reasoning included; doubled when a reply was cut.
        tokens_per_image: the most an image may cost, for estimates.
        temperature: of sampling; None leaves the field out.
        extra: more fields of the request body, on the command line as JSON: ``extra={"reasoning_effort":"low"}``.
        price_in, price_out: of a million input and output tokens.
        currency: of the prices and the cap; only shown.
        max_cost: amount after which the command asks nothing more; needs prices.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    model: str = Field(min_length=1)
    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    cache: Path | None = Path("outputs/judge_cache")
    concurrency: int = Field(8, ge=1)
    timeout: float = Field(120.0, gt=0)
    tries: int = Field(8, ge=1)
    malformed_tries: int = Field(3, ge=1)
    again_if_malformed: bool = False
    max_tokens: int = Field(2048, ge=1)
    tokens_per_image: int = Field(4096, ge=0)
    temperature: float | None = 0.0
    extra: dict[str, Any] | Json[dict[str, Any]] = {}
    price_in: Decimal | None = Field(None, ge=0)
    price_out: Decimal | None = Field(None, ge=0)
    currency: str = "USD"
    max_cost: Decimal | None = Field(None, ge=0)

    def budget(self) -> Budget:
        """Raises ConfigError for a cap without prices, or one price without the other."""
        prices = self.price_in, self.price_out
        if prices == (None, None) and self.max_cost is None:
            return Budget()
        if None in prices:
            raise ConfigError(
                f"price_in={self.price_in}, price_out={self.price_out}, max_cost={self.max_cost}: a price alone, or a "
                "cap without prices, cannot be counted with. Fix: give both prices, of a million tokens."
            )
        return Budget(prices, self.max_cost, self.currency)


def read_spec(option: str, items: Sequence[str] | None, form: type[Spec] = ModelSpec) -> Spec | None:
    """A model from ``NAME=VALUE`` items; None without any.

    Args:
        option: its name on the command line, for messages.
        items: each one or several ``NAME=VALUE`` with blanks between; a lone word without ``=`` is the model.
        form: the class, with the names it knows.

    Raises:
        ConfigError: twice the same name, an unknown name, or a value of the wrong kind.
    """
    words = [word for item in items or () for word in re.split(r"\s+(?=[a-z_]+=)", item.strip())]
    pairs = [tuple(word.split("=", 1)) if "=" in word else ("model", word) for word in words]
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ConfigError(f"{option} gives a name twice: {' '.join(words)}. Fix: give each once.")
    if not values:
        return None
    try:
        return form.model_validate(values)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = str(wrong["loc"][0])
        raise ConfigError(
            f"{option} {name}: {wrong['msg'].lower()}{f' (found {values[name]!r})' if name in values else ''}. "
            f"Fix: {option} NAME=VALUE with names of {', '.join(form.model_fields)}; model is required."
        ) from None


def read_key(variable: str, wants_key: str | None, environ: Mapping[str, str] = os.environ) -> SecretStr:
    """The key in the named variable.

    Args:
        wants_key: address of a provider that does not answer without a key; None for one's own server.

    Raises:
        ConfigError: no key where one is wanted, or one that cannot stand in a header; never shows the key.
    """
    value = environ.get(variable, "").strip()
    if not value and wants_key:
        raise ConfigError(
            f"The environment variable {variable} is empty, and {wants_key} wants a key. Fix: put the key there, name "
            "another variable with key_variable=..., or your own endpoint with base_url=..."
        )
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigError(
            f"The environment variable {variable} holds characters that no key has (a space, a line break or a letter "
            "outside ASCII). Fix: set it to the key alone."
        )
    return SecretStr(value or NO_KEY)


def scrubbed(text: str, key: SecretStr) -> str:
    """The text without the key, whole or in the shape of its two ends that servers like to quote."""
    value = key.get_secret_value()
    if value in ("", NO_KEY):
        return text
    text = text.replace(value, "<API key>")
    if len(value) >= 12:
        text = re.sub(rf"{re.escape(value[:4])}[\w*.\-]{{2,}}{re.escape(value[-4:])}", "<API key>", text)
    return text


def valid_url(url: str) -> str:
    """The address itself; raises ConfigError if it is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"base_url is {shown_url(url)!r}, which is not an http(s) URL. Fix: http://localhost:8000/v1")
    return url


def shown_url(url: str) -> str:
    """An address without user name, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
