"""Which scorer serves which ``data_source``: exact names first, then the longest prefix.

A scorer has verl's own signature, ``fn(data_source, solution_str, ground_truth, extra_info=None, ...)``, is a plain
(not ``async``) function, and returns a number or a dict holding ``score`` and optionally ``acc`` and ``parsed``.

Names: ``"my/data"`` is exact. A name that ends in ``"/"`` is the prefix with the slash, one that ends in ``"*"`` the
prefix without the star, so ``"my/"`` serves ``my/a`` and ``my/a/b`` but not ``my``, and ``"my*"`` serves all three.
``match="exact"`` or ``match="prefix"`` overrides the reading of the ending; a lone ``"*"`` serves everything.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

Scorer = Callable[..., Any]
Match = Literal["auto", "exact", "prefix"]
F = TypeVar("F", bound=Scorer)

_REQUIRED = ("data_source", "solution_str", "ground_truth", "extra_info")


class RewardConfigError(ValueError):
    """The reward is set up wrongly (ground truth, labels, registry entry). Never caused by the response text."""


class Registry:
    """A table from names to scorers, optionally laid over a ``parent`` table.

    Across both tables an exact name beats any prefix and a longer prefix beats a shorter one; for the same name and
    kind this table beats its parent.
    """

    def __init__(self, parent: Registry | None = None) -> None:
        self._parent = parent
        self._exact: dict[str, Scorer | str] = {}
        self._prefix: dict[str, Scorer | str] = {}

    def register(self, name: str, fn: Scorer | str, match: Match = "auto") -> None:
        """Serve ``name`` with ``fn``, a scorer or ``"package.module:function"`` (imported at first use).

        Registering the same scorer again does nothing. Raises RewardConfigError when the name already belongs to a
        different scorer, or when the scorer cannot be called with verl's four arguments.
        """
        key, is_prefix = _read_name(name, match)
        if not isinstance(fn, str):
            _check_scorer(name, fn)
        elif fn.count(":") != 1 or not all(fn.split(":")):
            raise RewardConfigError(
                f"The reward registry entry {name!r} reads {fn!r}, which is not of the form 'package.module:function'. "
                f"Write for instance {name!r}: 'my_rewards.text:score'."
            )
        table = self._prefix if is_prefix else self._exact
        known = table.setdefault(key, fn)
        if known is not fn and _identity(known) != _identity(fn):
            raise RewardConfigError(
                f"The data source {name!r} is already served by {_describe(known)}; refusing to replace it with "
                f"{_describe(fn)}. Register the new scorer under another name, or list it under "
                f"reward.custom_reward_function.reward_kwargs.registry, which takes precedence for one run."
            )

    def resolve(self, data_source: str) -> tuple[str, Scorer] | None:
        """Return ``(registered name, scorer)`` for ``data_source``, or None when nothing serves it.

        Raises RewardConfigError when the matching entry names a function that cannot be imported or called.
        """
        layers = [self] if self._parent is None else [self, self._parent]
        for layer in layers:
            if data_source in layer._exact:
                return data_source, _load(layer._exact, data_source, data_source)
        best: tuple[str, Registry] | None = None
        for layer in layers:
            for prefix in layer._prefix:
                if data_source.startswith(prefix) and (best is None or len(prefix) > len(best[0])):
                    best = (prefix, layer)
        if best is None:
            return None
        name = _prefix_name(best[0])
        return name, _load(best[1]._prefix, best[0], name)

    def names(self) -> list[str]:
        """Sorted names served, prefixes written with their ``*`` (or trailing ``/``)."""
        own = {*self._exact, *map(_prefix_name, self._prefix)}
        return sorted(own | set(self._parent.names() if self._parent else ()))


def _read_name(name: str, match: Match) -> tuple[str, bool]:
    if not isinstance(name, str) or not name:
        raise RewardConfigError(f"A data source name must be a non-empty string, not {name!r}.")
    if match not in ("auto", "exact", "prefix"):
        raise RewardConfigError(f"match must be 'auto', 'exact' or 'prefix', not {match!r}.")
    if match == "exact" or (match == "auto" and name[-1] not in "/*"):
        return name, False
    return name.removesuffix("*"), True


def _prefix_name(prefix: str) -> str:
    return prefix if prefix.endswith("/") else prefix + "*"


def _identity(fn: Scorer | str) -> tuple[str, str]:
    # A module imported twice (reload, Ray's by-value pickling) makes a new object of the same function.
    if isinstance(fn, str):
        module, _, qualname = fn.partition(":")
        return module, qualname
    qualname = getattr(fn, "__qualname__", "")
    # Lambdas and closures share a qualname without being the same function.
    return (fn.__module__, qualname) if qualname and "<" not in qualname else ("", str(id(fn)))


def _describe(fn: Scorer | str) -> str:
    return fn if isinstance(fn, str) else f"{getattr(fn, '__module__', '?')}:{getattr(fn, '__qualname__', repr(fn))}"


def _check_scorer(name: str, fn: Scorer) -> None:
    wanted = "fn(data_source, solution_str, ground_truth, extra_info=None, **kwargs)"
    if not callable(fn) or inspect.iscoroutinefunction(fn):
        raise RewardConfigError(f"The scorer for {name!r} must be a plain (not async) function {wanted}, not {fn!r}.")
    try:
        inspect.signature(fn).bind(**dict.fromkeys(_REQUIRED))
    except TypeError as error:
        raise RewardConfigError(
            f"The scorer {_describe(fn)} for {name!r} cannot be called by keyword as {wanted}: {error}."
        ) from error


def _load(table: dict[str, Scorer | str], key: str, name: str) -> Scorer:
    fn = table[key]
    if not isinstance(fn, str):
        return fn
    module, _, attribute = fn.partition(":")
    try:
        loaded = importlib.import_module(module)
        for part in attribute.split("."):
            loaded = getattr(loaded, part)
    except (ImportError, AttributeError) as error:
        raise RewardConfigError(
            f"The reward registry maps {name!r} to {fn!r}, which cannot be imported: {error}. The module must be "
            f"importable in every worker process (installed, or on PYTHONPATH) and must define {attribute!r}."
        ) from error
    _check_scorer(name, loaded)
    table[key] = loaded
    return loaded


DEFAULT = Registry()
"""The process-wide table that ``reward`` and ``register`` fill."""


def register(name: str, fn: Scorer | str, match: Match = "auto") -> None:
    """Add ``fn`` to the process-wide table; see ``Registry.register``."""
    DEFAULT.register(name, fn, match)


def reward(name: str, match: Match = "auto") -> Callable[[F], F]:
    """Decorator form of ``register``: ``@reward("my/data*")``. Returns the function unchanged."""

    def decorate(fn: F) -> F:
        DEFAULT.register(name, fn, match)
        return fn

    return decorate


def resolve(data_source: str) -> tuple[str, Scorer] | None:
    """Look ``data_source`` up in the process-wide table; see ``Registry.resolve``."""
    return DEFAULT.resolve(data_source)


def from_mapping(entries: Mapping[str, str]) -> Registry:
    """Build a table from ``{name: "package.module:function"}`` (a yaml node), laid over the process-wide one."""
    if not isinstance(entries, Mapping):
        raise RewardConfigError(
            f"reward_kwargs.registry must map data sources to 'package.module:function', not be {entries!r}."
        )
    overlay = Registry(parent=DEFAULT)
    for name, target in entries.items():
        if not isinstance(target, str):
            raise RewardConfigError(f"The reward registry entry {name!r} must be a string, not {target!r}.")
        overlay.register(name, target)
    return overlay
