"""Recover the patch of a run that does not carry one, from the run's own commands and their output; runs nothing.

Best is a whole ``git diff`` that the run printed after its last edit. Otherwise the edits are replayed on the texts
that the run showed. If the text around an edit was never shown there is no patch: a part would be a wrong answer.
Left out as the run's scratch work: new files at the top of the repository, and anything outside of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from unidiff import PatchSet
from unidiff.errors import UnidiffParseError

from data_prep.trajectories.partial_file import LostError
from data_prep.trajectories.repo_state import Workspace
from data_prep.trajectories.run import AgentRun


@dataclass(frozen=True)
class Replay:
    """What could be recovered.

    Attributes:
        patch: the unified diff; empty where it could not be known.
        how: ``shown`` (the run printed it), ``replayed`` or ``none``.
        unknown: files whose change could not be known, and why.
    """

    patch: str = ""
    how: str = "none"
    unknown: dict[str, str] = field(default_factory=dict)


def replayed_patch(run: AgentRun) -> Replay:
    """Recover the patch of a run."""
    workspace = Workspace(run)
    edited = {
        path: text for path, text in sorted(workspace.files.items()) if text.edited and (text.existed or "/" in path)
    }
    if workspace.shown_diff:
        try:
            shown = {part.path for part in PatchSet(workspace.shown_diff)}
        except UnidiffParseError:
            shown = set()
        if shown and all(path in shown for path, text in edited.items() if text.existed):
            return Replay(workspace.shown_diff, "shown")
    parts: list[str] = []
    unknown: dict[str, str] = {}
    for path, text in edited.items():
        try:
            parts.append(text.diff(path))
        except LostError as error:
            unknown[path] = str(error)
    patch = "".join(parts)
    if unknown or not patch:
        return Replay(unknown=unknown)
    return Replay(patch, "replayed")
