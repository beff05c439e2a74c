"""What can go wrong with an endpoint, by what the caller has to do about it."""

from __future__ import annotations

from dataclasses import dataclass

from contextrl_verl.errors import UserError


class RemoteError(UserError, RuntimeError):
    """The whole command has to stop: wrong key, unknown model, endpoint down. One paragraph with the fix."""


class CapReached(Exception):
    """The worst case of one more request does not fit under the spending cap."""


class Refused(Exception):
    """The endpoint does not take this one request (a 4xx that concerns its content)."""


@dataclass(eq=False)
class Transient(Exception):
    """A failure worth another try.

    Attributes:
        cause: short name for the counts: ``429``, ``500``, ``timeout``, ``connection``.
        detail: text for people, free of secrets.
        retry_after: seconds the server asked to wait; None if it did not say.
        charged: whether the endpoint may have done (and bill) the work.
    """

    cause: str
    detail: str
    retry_after: float | None = None
    charged: bool = False

    def __str__(self) -> str:
        return self.detail
