"""The yaml block ``contextrl.agent``: the sandbox of an episode, its budgets, its wording, and where it is kept."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import BaseModel, ConfigDict, Field, field_validator

from contextrl_verl.errors import ConfigError
from contextrl_verl.sandbox.box import Limits


class AgentSettings(BaseModel):
    """Names, defaults and bounds. Times are seconds. The tokens of an episode, what commands gave back included, are at
    most ``data.max_response_length``."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    # where commands run
    sandbox: str = "auto"
    limits: Limits = Field(default_factory=Limits)  # ``limits.seconds`` is the most that one command may take
    concurrent: int = Field(default=16, ge=1)  # episodes of one worker at a time
    max_infrastructure_share: float = Field(default=0.25, ge=0, le=1)  # of the episodes; above it the job stops
    # budgets of an episode
    turns: int = Field(default=50, ge=1)
    turn_tokens: int = Field(default=2048, ge=1)
    seconds: float = Field(default=1800.0, gt=0)
    format_errors: int = Field(default=3, ge=1)  # in a row
    repeats: int = Field(default=4, ge=2)  # the same command with the same result, in a row
    # what the model sees
    fence: str = Field(default="bash", pattern=r"^[A-Za-z][\w+-]{0,40}$")
    output_head: int = Field(default=5000, ge=1)  # characters of a long output's two ends
    output_tail: int = Field(default=5000, ge=0)
    templates: str | None = None  # a folder; a file in it stands for ours of that name
    records: str | None = None  # a folder for one file an episode

    @field_validator("limits")
    @classmethod
    def _positive(cls, limits: Limits) -> Limits:
        for name, value in asdict(limits).items():
            if not value > 0:
                raise ConfigError(f"contextrl.agent.limits.{name} is {value}. Fix: a number above 0.")
        return limits
