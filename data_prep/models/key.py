"""The endpoint's key: read from the environment, kept out of every text."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

from data_prep.models.errors import RemoteError

DEFAULT_VARIABLE = "OPENAI_API_KEY"
DEFAULT_URL = "https://api.openai.com/v1"
# Servers on one's own machine want some key, any key.
NO_KEY = "none"


class Secret:
    """A key that shows itself only to who asks for it by name."""

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def scrub(self, text: str) -> str:
        """The text without the key, whole or in the shape of its two ends that servers like to quote."""
        if self._value == NO_KEY:
            return text
        text = text.replace(self._value, "<API key>")
        if len(self._value) >= 12:
            head, tail = re.escape(self._value[:4]), re.escape(self._value[-4:])
            text = re.sub(rf"{head}[\w*.\-]{{2,}}{tail}", "<API key>", text)
        return text

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__

    def __reduce__(self):
        raise TypeError("a key is not pickled: every process reads it from the environment")


def read_key(variable: str, base_url: str | None, environ: Mapping[str, str] = os.environ) -> Secret:
    """The key in the named variable.

    Without one, an endpoint named by its URL is called without a key (local servers want none).

    Raises:
        RemoteError: no key for the default endpoint, or one that cannot stand in a header; never shows the key.
    """
    value = environ.get(variable, "").strip()
    if not value:
        if base_url:
            return Secret(NO_KEY)
        raise RemoteError(
            f"The environment variable {variable} is empty, and {DEFAULT_URL} wants a key. Fix: put the key there, "
            "name another variable with --key-variable, or name your own endpoint with --base-url."
        )
    if not value.isascii() or not value.isprintable() or " " in value:
        raise RemoteError(
            f"The environment variable {variable} holds characters that no key has (a space, a line break or a "
            "letter outside ASCII). Fix: set it to the key alone."
        )
    return Secret(value)


def endpoint_url(base_url: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """The endpoint's address; raises RemoteError if it is not one."""
    return valid_url(base_url or environ.get("OPENAI_BASE_URL") or DEFAULT_URL)


def valid_url(url: str) -> str:
    """The address itself; raises RemoteError if it is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RemoteError(
            f"The endpoint's address is {shown_url(url)!r}, which is not an http(s) URL. "
            "Fix: give it as in http://localhost:8000/v1."
        )
    return url


def shown_url(url: str) -> str:
    """An address without user name, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
