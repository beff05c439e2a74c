"""Repository and base commit from an instance id, in the spellings of SWE-bench and its relatives."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from data_prep.trajectories.readers.types import UnusableError

# Neither part holds two underscores in a row, so that names of folders with settings in them are not taken for ids.
_OWNER = r"(?:instance_)?(?P<owner>[A-Za-z0-9][A-Za-z0-9-]*)__(?P<name>(?:[A-Za-z0-9.-]|_(?!_))+?)"
_SHAPES = (
    # SWE-smith: owner__name.commit8.kind__hash
    re.compile(_OWNER + r"\.(?P<commit>[0-9a-f]{7,40})\.(?P<rest>.+)"),
    # SWE-bench Pro: instance_owner__name-commit40, with a version behind
    re.compile(_OWNER + r"-(?P<commit>[0-9a-f]{40})(?P<rest>-v[\w.]*)?"),
    # SWE-bench, SWE-Gym, SWE-rebench: owner__name-number; SWE-agent's own issues: -i and a number
    re.compile(_OWNER + r"-(?P<rest>i?\d+)"),
)
# Trial folders of evaluation harnesses put a random word behind the task's name.
_TRIAL = re.compile(r"__[A-Za-z0-9]{6,8}$")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class Instance(NamedTuple):
    """What an instance id says."""

    instance_id: str
    repository: str
    commit: str


def parse_instance(instance_id: str) -> Instance | None:
    """None where the id is in no known spelling."""
    for shape in _SHAPES:
        found = shape.fullmatch(instance_id)
        if found:
            commit = found.groupdict().get("commit") or ""
            return Instance(instance_id, f"{found['owner']}/{found['name']}", commit)
    return None


def find_instance(
    stated: Iterable[object], names: Iterable[str] = (), repository: object = None, commit: object = None
) -> Instance:
    """The instance of a record.

    Args:
        stated: values of the record that may be its id, best first; what is not text is passed over.
        names: names of file and folders, used where the record does not say.
        repository, commit: what the record itself says. The commit wins over the id's; the repository is used where the
            id is in no known spelling.

    Raises:
        UnusableError: ``no instance id`` or ``no repository``.
    """
    said = [text.strip() for text in stated if isinstance(text, str) and text.strip()]
    base = commit if isinstance(commit, str) else ""
    for text in (*said, *names):
        found = parse_instance(text) or parse_instance(_TRIAL.sub("", text))
        if found:
            return found._replace(commit=base or found.commit)
    if not said:
        raise UnusableError(
            "no instance id", "neither the record nor its file says which task it is; add the field instance_id"
        )
    if isinstance(repository, str) and _REPOSITORY.fullmatch(repository):
        return Instance(said[0], repository, base)
    raise UnusableError(
        "no repository",
        f"instance id {said[0][:80]!r}; spell it owner__name-number or owner__name.commit.rest, or add the field repo",
    )
