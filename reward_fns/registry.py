"""Which scorer serves which ``data_source``: exact names first, then the longest prefix.

A scorer has verl's own signature, ``fn(data_source, solution_str, ground_truth, extra_info=None, ...)``, is a plain
(not ``async``) function, and returns a number, a tuple that begins with one, or a dict holding ``score`` and optionally
``acc``, ``parsed`` and more. It is given itself or by its place: ``"package.module:function"``, also written
``"pkg://package.module:function"``, or ``"/path/file.py:function"``, also ``"file:///path/file.py:function"``.

Names: ``"my/data"`` is exact. A name that ends in ``"/"`` is the prefix with the slash, one that ends in ``"*"`` the
prefix without the star, so ``"my/"`` serves ``my/a`` and ``my/a/b`` but not ``my``, and ``"my*"`` serves all three; a
lone ``"*"`` serves everything.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import os
import threading
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

Scorer = Callable[..., Any]

_YAML = "reward.custom_reward_function.reward_kwargs.registry"
_files: dict[str, ModuleType] = {}
_files_lock = threading.RLock()


class RewardConfigError(ValueError):
    """The reward is set up wrongly (ground truth, labels, registry entry). Never caused by the response text."""


class Registry:
    """A table from names to scorers, optionally laid over a ``parent`` table.

    Across both tables an exact name beats any prefix and a longer prefix beats a shorter one; for the same name this
    table beats its parent.
    """

    def __init__(self, parent: Registry | None = None) -> None:
        self._parent = parent
        self._table: dict[str, Scorer | str] = {}
        self._loaded: dict[str, Scorer] = {}
        # With the number of entries at that time: they are only ever added.
        self._resolved: dict[str, tuple[int, tuple[str, Scorer] | None]] = {}

    def register(self, name: str, fn: Scorer | str) -> None:
        """Serve ``name`` with ``fn``, a scorer or the place of one (loaded at first use); again is no change.

        Raises RewardConfigError when the name already belongs to another scorer, the place is not of a form that the
        module's docstring lists, or the scorer is not a plain function of verl's four arguments.
        """
        if not isinstance(name, str) or not name:
            raise RewardConfigError(f"A data source name must be a non-empty string, not {name!r}.")
        if isinstance(fn, str):
            _split(name, fn)
        else:
            _check_scorer(name, fn)
        known = self._table.setdefault(name.removesuffix("*") if name.endswith("/*") else name, fn)
        if known is not fn and _identity(known) != _identity(fn):
            raise RewardConfigError(
                f"The data source {name!r} is already served by {describe(known)}; refusing to replace it with "
                f"{describe(fn)}. Fix: register the new scorer under another name, or list it under {_YAML}, which "
                f"takes precedence for one run."
            )

    def resolve(self, data_source: str) -> tuple[str, Scorer] | None:
        """``(registered name, scorer)`` for a data source; None when nothing serves it. Raises what ``load`` raises."""
        known, size = self._resolved.get(data_source), len(self)
        if known is None or known[0] != size:
            known = self._resolved[data_source] = size, self._look_up(data_source)
        return known[1]

    def __len__(self) -> int:
        return len(self._table) + (len(self._parent) if self._parent is not None else 0)

    def _look_up(self, data_source: str) -> tuple[str, Scorer] | None:
        entries = self._entries()
        prefixes = [n for n in entries if n[-1] in "/*" and data_source.startswith(n.removesuffix("*"))]
        longest = max(prefixes, key=lambda n: len(n.removesuffix("*")), default="")
        name = data_source if data_source in entries else longest
        if not name:
            return None
        fn = entries[name]
        if isinstance(fn, str):
            if fn not in self._loaded:
                self._loaded[fn] = load(name, fn)
            fn = self._loaded[fn]
        return name, fn

    def names(self) -> list[str]:
        """Sorted names served, prefixes written with their ``*`` (or trailing ``/``)."""
        return sorted(self._entries())

    def _entries(self) -> dict[str, Scorer | str]:
        return {**(self._parent._entries() if self._parent is not None else {}), **self._table}


def _identity(fn: Scorer | str) -> tuple[str, str]:
    # A module imported twice (reload, Ray's by-value pickling) makes a new object of the same function.
    if isinstance(fn, str):
        return tuple(fn.rpartition(":")[::2])
    qualname = getattr(fn, "__qualname__", "")
    # Lambdas and closures share a qualname without being the same function.
    return (fn.__module__, qualname) if qualname and "<" not in qualname else ("", str(id(fn)))


def describe(fn: Scorer | str) -> str:
    """A scorer as ``module:name``, as itself if it has no name; the place of one as it is."""
    qualname = getattr(fn, "__qualname__", "")
    return f"{fn.__module__}:{qualname}" if qualname else str(fn)


def one_line(error: BaseException) -> str:
    """The error's type and message on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def load(name: str, fn: Scorer | str) -> Scorer:
    """The scorer of the entry ``name: fn``; a file is run once a process.

    Raises RewardConfigError when there is no such scorer, its module or file fails, or it is not a plain function of
    verl's four arguments.
    """
    if isinstance(fn, str):
        place, attribute = _split(name, fn)
        try:
            loaded = _module(place)
            for part in attribute.split("."):
                loaded = getattr(loaded, part)
        except (Exception, SystemExit) as error:
            raise RewardConfigError(
                f"The reward registry maps {name!r} to {fn!r}, which cannot be loaded: {one_line(error)}. "
                f"Fix: correct the entry (in a job: {_YAML}). A module must be importable in every worker process "
                f"(installed, or on PYTHONPATH), a file must be there on every node, and it must define {attribute!r}."
            ) from error
        fn = loaded
    _check_scorer(name, fn)
    return fn


def _split(name: str, fn: str) -> tuple[str, str]:
    place, _, attribute = fn.rpartition(":")
    if not place or not all(part.isidentifier() for part in attribute.split(".")):
        raise RewardConfigError(
            f"The reward registry entry {name!r} reads {fn!r}, which is not of the form 'package.module:function' or "
            f"'/path/file.py:function'. Fix: write for instance {name!r}: 'my_rewards.text:score' (in a job: {_YAML})."
        )
    return place, attribute


def _module(place: str) -> ModuleType:
    # What verl's import_utils.load_module reads, and the form without pkg://.
    if place.startswith("pkg://") or not ("/" in place or place.endswith(".py")):
        return importlib.import_module(place.removeprefix("pkg://").replace("/", "."))
    path = os.path.abspath(place.removeprefix("file://"))
    # verl runs a file anew for every function of it; threads that score would run it at the same time.
    with _files_lock:
        if path not in _files:
            spec = importlib.util.spec_from_file_location(f"custom_module_{hash(path)}", path)
            if spec is None or spec.loader is None:
                raise ImportError(f"{path} is not a Python file")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            _files[path] = module
        return _files[path]


def _check_scorer(name: str, fn: Scorer) -> None:
    wanted = "fn(data_source, solution_str, ground_truth, extra_info=None, **kwargs)"
    called = fn
    while isinstance(called, functools.partial):
        called = called.func
    unusual = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    if (
        not callable(called)
        or isinstance(called, type)
        or any(is_unusual(part) for is_unusual in unusual for part in (called, type(called).__call__))
    ):
        raise RewardConfigError(
            f"The reward registry serves {name!r} with {describe(fn)}, which is not a plain function (it is async, a "
            f"generator, a class, or cannot be called). Fix: name a function {wanted} that returns the score itself."
        )
    try:
        # What else it needs may be in the job's reward_kwargs.
        inspect.signature(fn).bind_partial(data_source="", solution_str="", ground_truth="", extra_info=None)
    except (TypeError, ValueError) as error:
        raise RewardConfigError(
            f"The reward registry serves {name!r} with {describe(fn)}, which cannot be called by keyword as {wanted}: "
            f"{error}. Fix: give it these arguments."
        ) from error


# The process-wide table.
DEFAULT = Registry()
register = DEFAULT.register
resolve = DEFAULT.resolve


def reward(name: str) -> Callable[[Scorer], Scorer]:
    """Decorator form of ``register``: ``@reward("my/data*")``. Returns the function unchanged."""

    def decorate(fn: Scorer) -> Scorer:
        register(name, fn)
        return fn

    return decorate


def from_mapping(entries: Mapping[str, Scorer | str]) -> Registry:
    """The table of ``{name: scorer, or the place of one}`` (a yaml node), laid over the process-wide one.

    Raises RewardConfigError when it is no mapping, or an entry cannot be registered.
    """
    if not isinstance(entries, Mapping):
        raise RewardConfigError(_no_mapping(entries))
    overlay = Registry(parent=DEFAULT)
    for name, fn in entries.items():
        overlay.register(name, fn)
    return overlay


def check_mapping(entries: Mapping[str, Scorer | str]) -> tuple[Registry, list[str]]:
    """Return the table of ``entries`` and one message for each that is wrong, after loading every scorer.

    The names of wrong entries are served, too, so that nobody reports a data source of theirs a second time.
    """
    overlay, problems = Registry(parent=DEFAULT), []
    if not isinstance(entries, Mapping):
        return overlay, [_no_mapping(entries)]
    for name, fn in entries.items():
        try:
            overlay.register(name, load(name, fn))
        except RewardConfigError as error:
            problems.append(str(error))
            with contextlib.suppress(RewardConfigError):
                overlay.register(name, _serve_nothing)
    return overlay, problems


def _no_mapping(entries: Any) -> str:
    return (
        f"{_YAML} is {entries!r}, not a mapping. Fix: map data sources to scorers in it, as in "
        "{'my/data': '/path/my_reward.py:compute_score'}."
    )


def _serve_nothing(data_source: str, solution_str: str, ground_truth: Any, extra_info: Any) -> float:
    raise RewardConfigError(f"The reward registry entry that serves {data_source!r} is wrong.")
