"""The body of a request, and what to leave out when an endpoint does not take it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from data_prep.models.reply import FreeText

if TYPE_CHECKING:
    from data_prep.models.chat import ChatSettings

_FORMAT_WORDS = re.compile(r"response_format|json_schema|json_object|structured output|guided", re.I)
_LIMIT_WORDS = re.compile(r"max_(completion_)?tokens", re.I)
_NOT_TAKEN = re.compile(r"unsupported|not supported|does not support|unrecogni[sz]ed|unknown|extra|not permitted", re.I)


@dataclass(frozen=True)
class RequestForm:
    """What the endpoint is known to take.

    Attributes:
        output: how structure is asked for; the prompt always describes it as well.
        limit_field: name of the token limit; older servers know ``max_tokens`` only.
        temperature: whether the field is sent; some reasoning models refuse it.
    """

    output: Literal["json_schema", "json_object", "plain text"] = "json_schema"
    limit_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    temperature: bool = True

    def body(
        self, settings: ChatSettings, messages: list[dict[str, Any]], form: type[BaseModel], limit: int
    ) -> dict[str, Any]:
        """Arguments of the client's ``create``."""
        body: dict[str, Any] = {"model": settings.model, "messages": messages}
        fields: dict[str, Any] = {self.limit_field: limit, **settings.extra}
        if self.temperature and settings.temperature is not None:
            fields["temperature"] = settings.temperature
        if issubclass(form, FreeText):
            return body | {"extra_body": fields}
        if self.output == "json_schema":
            schema = {"name": form.__name__.lower(), "strict": True, "schema": form.model_json_schema()}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self.output == "json_object":
            fields["response_format"] = {"type": "json_object"}
        # Not as keyword arguments: the client's own list of them changes from release to release.
        return body | {"extra_body": fields}

    def without_what(self, refusal: str) -> tuple[RequestForm, str] | None:
        """The next form to try after a refusal and a sentence about it; None if the refusal is not about the form."""
        if self.output != "plain text" and _FORMAT_WORDS.search(refusal):
            output = "json_object" if self.output == "json_schema" else "plain text"
            return replace(self, output=output), f"the endpoint refuses {self.output}; asking for {output} instead"
        if not _NOT_TAKEN.search(refusal):
            return None
        if self.limit_field == "max_completion_tokens" and _LIMIT_WORDS.search(refusal):
            return (
                replace(self, limit_field="max_tokens"),
                "the endpoint refuses max_completion_tokens; sending max_tokens instead",
            )
        if self.temperature and "temperature" in refusal.lower():
            return replace(self, temperature=False), "the endpoint refuses temperature; leaving it out"
        return None
