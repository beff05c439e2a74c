"""A feature group, and the groups by name. A new kind of shortcut is one :func:`register` call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from contextrl_verl.errors import ConfigError
from data_prep.audit.view import PairView

# [contexts, columns] numbers of each context, and [columns] numbers of the pair as a whole.
PerContext = Callable[[PairView], np.ndarray]
PerPair = Callable[[PairView], np.ndarray]
Sees = Literal["form", "one side", "evidence"]


@dataclass(frozen=True)
class FeatureGroup:
    """A way to guess the supporting context.

    A guess scores every context by its own columns (``columns``), by products of columns of the context with numbers
    that all contexts of the pair have in common (``crossed``: e.g. "the answer is long" with "this is the longer
    context"), or both.

    Attributes:
        name: of the row in the report.
        description: one line for readers of the report.
        sees: ``form`` (free of content), ``one side`` (words of the answer or of the contexts, never both), or
            ``evidence`` (both, so a guess may be rightly better than chance).
        columns: numbers of each context.
        crossed: numbers of each context, and numbers of the pair they are multiplied with.
        wide: many hashed columns; only the linear model sees them.
        memorises: whether folds may share runs, so that the fate of a run in other couples can be learned.
    """

    name: str
    description: str
    sees: Sees = "form"
    columns: PerContext | None = None
    crossed: tuple[PerContext, PerPair] | None = None
    wide: bool = False
    memorises: bool = False

    def __post_init__(self) -> None:
        if self.columns is None and self.crossed is None:
            raise ConfigError(f"feature group {self.name!r} has neither columns nor crossed. Fix: give one of them.")


GROUPS: dict[str, FeatureGroup] = {}


def register(group: FeatureGroup) -> FeatureGroup:
    """Add a group to those audited by default. Raises ConfigError if the name is taken."""
    if group.name in GROUPS:
        raise ConfigError(f"feature group {group.name!r} is registered twice. Fix: choose another name.")
    GROUPS[group.name] = group
    return group
