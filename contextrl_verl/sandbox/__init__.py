"""Where commands that a model wrote may run: boxes, each with a repository in it, that hold what they do."""

from contextrl_verl.sandbox.box import (
    WORKPLACE,
    Base,
    Box,
    Finished,
    InfrastructureError,
    Limits,
    Rung,
    Sandbox,
)
from contextrl_verl.sandbox.machine import open_sandbox, rungs

__all__ = [
    "WORKPLACE",
    "Base",
    "Box",
    "Finished",
    "InfrastructureError",
    "Limits",
    "Rung",
    "Sandbox",
    "open_sandbox",
    "rungs",
]
