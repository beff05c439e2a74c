"""The one ``compute_score`` that verl calls for every data source.

verl calls it in executor threads of several processes and stacks the returned dicts, so it is thread safe and every
return has the keys of ``RESULT_KEYS``.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from reward_fns import registry
from reward_fns.registry import Registry, RewardConfigError, Scorer

logger = logging.getLogger(__name__)

RESULT_KEYS = ("score", "acc", "parsed", "reward_fn")
_VERL = "verl"
_overlay: tuple[Any, Registry] = (None, registry.DEFAULT)
_warned: set[str] = set()


def compute_score(
    data_source: str,
    solution_str: str | None,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    registry: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """Score one response with the scorer that serves ``data_source``.

    Looks in the registry (exact name, then longest prefix; the yaml ``registry`` wins over registered names of equal
    rank), then among verl's own data sources. ``kwargs`` (the yaml reward_kwargs and verl's own extras) are handed on
    as far as the scorer accepts them.

    Returns ``{"score": float, "acc": float, "parsed": str, "reward_fn": str}``; ``parsed`` is what was read from the
    response, ``""`` if nothing was, and ``reward_fn`` the registered name, or ``"verl"``. A response that is not a
    string, or that makes a scorer fail, scores 0. Raises LookupError for a data source that nothing serves,
    RewardConfigError (a ValueError) for a wrong ground truth or registry, and ImportError for a missing dependency.
    """
    if not isinstance(data_source, str):
        raise LookupError(_unknown(data_source, registry))
    name, scorer = _table(registry).resolve(data_source) or (_VERL, _score_with_verl)
    # A missing response scores 0 whatever the scorer, but still through it: a wrong ground truth must show up.
    text = solution_str if isinstance(solution_str, str) else ""
    arguments = {"data_source": data_source, "solution_str": text, "ground_truth": ground_truth}
    try:
        outcome = scorer(**arguments, extra_info=extra_info, **_accepted(scorer, kwargs))
        result = _as_result(outcome, name)
    except NotImplementedError:
        if scorer is _score_with_verl:
            raise LookupError(_unknown(data_source, registry)) from None
        return _failed(name, data_source)
    except (RewardConfigError, ImportError):
        raise
    except Exception:
        return _failed(name, data_source)
    return result if text is solution_str else {**result, "score": 0.0, "acc": 0.0, "parsed": ""}


def _table(entries: Mapping[str, str] | None) -> Registry:
    global _overlay
    if entries is None:
        return registry.DEFAULT
    # verl passes the same yaml node with every call; threads racing here only build the same table twice.
    known, table = _overlay
    if known is not entries:
        table = registry.from_mapping(entries)
        _overlay = (entries, table)
    return table


def _score_with_verl(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **kwargs: Any
) -> Any:
    """Ask verl's own scorer; NotImplementedError means that verl does not know ``data_source`` (or is not there)."""
    try:
        from verl.utils.reward_score import default_compute_score
    except ImportError:
        raise NotImplementedError from None
    if isinstance(ground_truth, str | Mapping):
        return default_compute_score(data_source, solution_str, ground_truth, extra_info, **kwargs)
    # verl's scorers would answer 0 for ever. Ask first whether the source is verl's at all, else this blames the data.
    with contextlib.suppress(ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError):
        default_compute_score(data_source, "", "", extra_info, **kwargs)
    raise RewardConfigError(
        f"verl's scorer for {data_source!r} needs ground_truth to be a string (for some sources a mapping), not "
        f"{ground_truth!r} ({type(ground_truth).__name__}). Fix reward_model.ground_truth in the data file."
    )


@lru_cache(maxsize=256)
def _parameters(scorer: Scorer) -> frozenset[str] | None:
    parameters = inspect.signature(scorer).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return frozenset(parameters)


def _accepted(scorer: Scorer, kwargs: dict[str, Any]) -> dict[str, Any]:
    known = _parameters(scorer) if kwargs else None
    return kwargs if known is None else {key: value for key, value in kwargs.items() if key in known}


def _as_result(outcome: Any, name: str) -> dict[str, Any]:
    if not isinstance(outcome, Mapping):
        outcome = {"score": outcome}
    score = float(outcome["score"])
    acc = float(outcome.get("acc", score))
    if not (math.isfinite(score) and math.isfinite(acc)):
        raise ArithmeticError(f"score {score} or acc {acc} is not finite")
    # verl's own scorers call it "pred".
    parsed = outcome.get("parsed", outcome.get("pred"))
    return {"score": score, "acc": acc, "parsed": "" if parsed is None else str(parsed), "reward_fn": name}


def _failed(name: str, data_source: str) -> dict[str, Any]:
    if data_source not in _warned:
        _warned.add(data_source)
        logger.warning(
            "the scorer %r failed on a response for %r; it scores 0 (further ones in this process are not logged)",
            name,
            data_source,
            exc_info=True,
        )
    return {"score": 0.0, "acc": 0.0, "parsed": "", "reward_fn": name}


def _unknown(data_source: Any, entries: Mapping[str, str] | None) -> str:
    names = ", ".join(_table(entries).names()) or "nothing"
    return (
        f"No reward function serves the data source {data_source!r}. Registered: {names}; verl's own scorers do not "
        f"know it either. Add one with @reward_fns.reward({data_source!r}) in a module that the workers import, or in "
        f"yaml: reward.custom_reward_function.reward_kwargs.registry: "
        f'{{"{data_source}": "package.module:function"}}.'
    )
