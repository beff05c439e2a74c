"""The one way to name a model in every command, and what it may cost: ``--judge model=M --judge base_url=URL``.

A part (judge, solver, proposer, editor, embedder, probed model) is a :class:`ModelSpec` or a small subclass of it.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from contextrl_verl.errors import ConfigError, printable, told_by
from data_prep.common.settings_file import load_settings

# Servers on one's own machine want some key, any key.
NO_KEY = "none"
# The most that an image may cost, for estimates and where an answer does not tell.
TOKENS_PER_IMAGE = 4096
Spec = TypeVar("Spec", bound="ModelSpec")


@dataclass
class Budget:
    """Prices of a million input and output tokens, and what they came to; without prices nothing is counted.

    Attributes:
        cap: amount after which nothing more is asked; what runs then still ends, so concurrency may overshoot.
        uncertain: part of ``spent`` whose true cost no answer told; it is counted at its worst case.
    """

    prices: tuple[Decimal, Decimal] | None = None
    cap: Decimal | None = None
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
        found = {"spent": self.spent, "of_it_at_worst_case": self.uncertain, "cap": self.cap}
        return {name: None if value is None else float(value) for name, value in found.items()}


class ModelSpec(BaseModel):
    """A model behind an endpoint: where and how to ask, and what it may cost.

    Attributes:
        base_url: OpenAI-compatible address; None for ``OPENAI_BASE_URL`` or OpenAI's own.
        key_variable: name of the environment variable that holds the key.
        cache: folder of answers, so that asking again costs nothing; None asks everything anew.
        timeout: seconds that the endpoint may be silent.
        tries: requests for one answer when the endpoint fails; malformed_tries: when answers cannot be used.
        again_if_malformed: ask again what the cache holds as malformed.
        max_tokens: tokens of one reply, reasoning included; doubled when a reply was cut.
        temperature: of sampling; None leaves the field out.
        extra: more fields of the request body: ``extra={"reasoning_effort":"low"}``.
        price_in, price_out: of a million input and output tokens, in any currency.
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
    temperature: float | None = 0.0
    extra: dict[str, Any] = {}
    price_in: Decimal | None = Field(None, ge=0)
    price_out: Decimal | None = Field(None, ge=0)
    max_cost: Decimal | None = Field(None, ge=0)

    def budget(self) -> Budget:
        """Raises ConfigError for a cap without prices, or one price without the other."""
        if self.price_in is None and self.price_out is None and self.max_cost is None:
            return Budget()
        if self.price_in is None or self.price_out is None:
            raise ConfigError(
                f"price_in={self.price_in}, price_out={self.price_out}, max_cost={self.max_cost}: a price alone, or a "
                "cap without prices, cannot be counted with. Fix: give both prices, of a million tokens."
            )
        return Budget((self.price_in, self.price_out), self.max_cost)


def read_spec(option: str, items: Sequence[str] | None, form: type[Spec] = ModelSpec) -> Spec | None:
    """A model of the class ``form`` from an option's items, each one or several ``NAME=VALUE`` with blanks between, or
    the model alone; None without any. Raises ConfigError: a name twice or unknown, or a value of the wrong kind."""
    words = [word for item in items or () for word in re.split(r"\s+(?=[a-z_]+=)", item.strip())]
    named = [word if "=" in word else f"model={word}" for word in words]
    return load_settings(form, None, named, option=option) if named else None


def read_key(variable: str, wants_key: str | None) -> SecretStr:
    """The key in the named variable of the environment; ``wants_key``: address of a provider that wants one. Raises
    ConfigError: no key where one is wanted, or one that cannot stand in a header; never shows the key."""
    value = os.environ.get(variable, "").strip()
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
    """The text :func:`printable` and without the key: whole, in URL encoding, base64 or hexadecimal, its beginning of
    eight characters or more, and the shape of its two ends that servers like to quote."""
    text, value = printable(text), key.get_secret_value()
    if value in ("", NO_KEY):
        return text
    forms = [re.escape(value), re.escape(quote(value, safe="")), f"(?i:{value.encode().hex()})"]
    if len(value) >= 12:
        first, last, between = re.escape(value[:4]), re.escape(value[-4:]), rf"[{re.escape(value)}\w*.…\-]"
        forms += [rf"{re.escape(value[:8])}{between}*", rf"{first}{between}{{2,}}{last}"]
        for before in range(3):
            # Of the characters around, which are not known, the first and the last ones depend too.
            code = base64.b64encode(b"\0" * before + value.encode()).decode().rstrip("=")
            middle = code[-(-before * 8 // 6) : len(code) - ((before + len(value)) % 3 > 0)]
            either = re.escape(middle).replace(r"\+", "[+-]").replace("/", "[/_]")
            forms.append(rf"[\w+/-]{{0,4}}{either}[\w+/-]{{0,4}}={{0,2}}")
    return re.sub("|".join(forms), "<API key>", text)


def shown_url(url: str) -> str:
    """An address without user name, password and query; raises ConfigError if it is none."""
    parts = urlsplit(url)
    shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"base_url is {shown!r}, which is not an http(s) URL. Fix: http://localhost:8000/v1")
    return shown


def load_sentence_encoder(model: str, option: str, error: type[Exception]) -> Any:
    """The sentence-transformers model of that name or folder, for texts or pictures; its own code is never run.
    Raises error: the library is missing or the model cannot be loaded; names the ``option`` that asked for it."""
    unreachable = "" if Path(model).exists() else _hub_problem()
    fix = "the name of a sentence-transformers model, or its folder on this machine"
    if unreachable and not any(_cached(name) for name in (model, f"sentence-transformers/{model}")):
        raise error(
            f"{option} is {model!r}, which is no folder here and not in the hub's cache, and the hub does not answer "
            f"({unreachable}). Fix: {fix}."
        )
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as problem:
        if getattr(problem, "name", None) == "sentence_transformers":
            raise error(f"{option} needs sentence-transformers. Fix: pip install 'contextrl-verl[embed]'.") from None
        raise error(
            f"{option} needs sentence-transformers, which cannot be imported ({told_by(problem)}). Fix: mend the "
            "library that it names."
        ) from None
    try:
        return SentenceTransformer(model, trust_remote_code=False, local_files_only=bool(unreachable))
    except Exception as problem:  # the libraries below raise whatever the network and the files bring them to
        raise error(f"{option} is {model!r}, which cannot be loaded ({told_by(problem)}). Fix: {fix}.") from None


def _hub_problem() -> str:
    """Why the hub cannot be reached, or nothing. Its client would try every file of a model six times to tell."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception as problem:  # httpx's or requests', by the hub's version
        return told_by(problem) or type(problem).__name__
    return ""


def _cached(model: str) -> bool:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, f"models--{model.replace('/', '--')}").is_dir()
