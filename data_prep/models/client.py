"""The OpenAI client behind an endpoint, with its key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from data_prep.models.errors import RemoteError
from data_prep.models.key import Secret


def openai_client(read_key: Callable[[], Secret], url: str, timeout: float, extra: str) -> tuple[Secret, Any]:
    """The key and an open client.

    Args:
        read_key: called once the libraries are known to be there.
        extra: of this package that installs them, for the message.

    Raises:
        RemoteError: a library is not installed, or there is no key.
    """
    try:
        import tenacity  # noqa: F401
        from openai import AsyncOpenAI
    except ImportError as error:
        raise RemoteError(
            f"Asking an endpoint needs the package {error.name!r}. Fix: pip install 'contextrl-verl[{extra}]'."
        ) from None
    secret = read_key()
    # Retries are ours: they know about the cap, and they are counted.
    return secret, AsyncOpenAI(api_key=secret.reveal(), base_url=url, max_retries=0, timeout=timeout)
