"""What a failed request means: try again, leave this one, or stop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from data_prep.models.errors import Refused, RemoteError, Transient
from data_prep.models.key import Secret
from data_prep.models.retry import retry_after

if TYPE_CHECKING:
    from data_prep.models.chat import ChatSettings

_SHOWN = 300
# The server said that it did not do the work; other 5xx (gateways) may come after it was done.
_FREE_5XX = {500, 501, 503, 529}
# The connection was never made, so nothing was asked.
_NEVER_SENT = {"ConnectError", "ConnectTimeout", "UnsupportedProtocol", "PoolTimeout"}


def classify(error: Exception, secret: Secret, url: str, settings: ChatSettings) -> Exception:
    """A Transient, Refused or RemoteError for any exception of the client; none of them shows the key."""
    import openai

    if isinstance(error, (asyncio.TimeoutError, openai.APITimeoutError)):
        sent = type(error.__cause__).__name__ not in _NEVER_SENT
        return Transient("timeout", f"no answer within {settings.timeout:g} seconds.", charged=sent)
    if isinstance(error, openai.APIConnectionError):
        sent = type(error.__cause__).__name__ not in _NEVER_SENT
        what = secret.scrub(str(error.__cause__ or error))[:_SHOWN]
        return Transient("connection", f"the connection failed ({what}).", charged=sent)
    if not isinstance(error, openai.APIStatusError):
        what = secret.scrub(f"{type(error).__name__}: {error}")[:_SHOWN]
        return RemoteError(f"A request to {url} could not be made ({what}). Fix: see the settings it was made from.")
    quota = error.code == "insufficient_quota"
    return by_status(error.status_code, _text(error), error.response.headers, secret, url, settings, quota=quota)


def by_status(
    status: int,
    said: str,
    headers: Mapping[str, str],
    secret: Secret,
    url: str,
    settings: ChatSettings,
    *,
    quota: bool = False,
) -> Exception:
    """The same for an HTTP status, whatever client received it.

    Args:
        said: the server's words.
        quota: whether a 429 means that nothing more can be asked with this account.
    """
    detail = f"HTTP {status}: {secret.scrub(said)[:_SHOWN]}"
    if status == 429 and not quota:
        return Transient("429", detail, retry_after(headers))
    if status == 408:
        return Transient("timeout", detail, retry_after(headers))
    if status >= 500:
        return Transient(str(status), detail, retry_after(headers), charged=status not in _FREE_5XX)
    fixes = {
        401: f"see that the environment variable {settings.key_variable} holds a valid key",
        402: "pay the account's bill, or use another endpoint",
        403: f"see that the key in {settings.key_variable} may use the model {settings.model!r}",
        404: f"correct the model {settings.model!r} or the endpoint's address, which often ends in /v1",
        429: "the account's quota is used up: raise it, or use another endpoint",
    }
    if status in fixes:
        return RemoteError(f"The endpoint {url} answers {detail} Fix: {fixes[status]}.")
    return Refused(detail)


def _text(error: Exception) -> str:
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(message or getattr(error, "message", error)).split())
