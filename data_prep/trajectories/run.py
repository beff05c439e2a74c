"""The one form in which every reader delivers an agent's run, and the mark where something was taken out of it."""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict

from contextrl_verl.errors import UserError
from contextrl_verl.pairs import Message

PATCH_MASKED = "<PATCH_MASKED>"
# What viewers put in front of a line.
NUMBERING = re.compile(r"[ \t]*(?:\d+[ \t:|-]*)?[+>|]?")


class TrajectoryError(UserError, ValueError):
    """A file or record that is not a run: says which, why, and what to do."""


class AgentRun(BaseModel):
    """One run of a coding agent on one issue.

    Attributes:
        instance_id: name of the task, as the source spells it.
        repository: ``owner/name``.
        commit: base commit, possibly shortened; empty when the source does not say.
        issue: text of the issue.
        messages: all turns; content is plain text.
        patch: the submitted unified diff, or a recovered one; empty when there is none.
        outcome: whether the task's tests passed.
        source: format of the file and the reader's name, e.g. ``mini-swe-agent-1``.
        patch_origin: ``submitted``, ``joined`` (from a table of tasks) or ``replayed`` (from the run's own edits).
    """

    model_config = ConfigDict(frozen=True)
    instance_id: str
    repository: str
    commit: str = ""
    issue: str
    messages: tuple[Message, ...]
    patch: str = ""
    outcome: Literal["resolved", "unresolved", "unknown"] = "unknown"
    source: str
    patch_origin: Literal["submitted", "joined", "replayed", "none"] = "submitted"

    @cached_property
    def run_id(self) -> str:
        """The same for the same content wherever it is stored: instance id and a digest of turns and patch."""
        digest = hashlib.blake2b(digest_size=6)
        for message in self.messages:
            digest.update(f"{message.role}\0{message.content}\0".encode("utf-8", "surrogatepass"))
        digest.update(self.patch.encode("utf-8", "surrogatepass"))
        return f"{self.instance_id}@{digest.hexdigest()}"
