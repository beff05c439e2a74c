"""The one ``compute_score`` that verl calls for every data source.

verl calls it in executor threads of several processes and stacks the returned dicts, so it is thread safe and every
return has the keys of ``RESULT_KEYS``.
"""

from __future__ import annotations

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
    found = _table(registry).resolve(data_source) if isinstance(data_source, str) else None
    name, scorer = found or (_VERL, _verl_scorer(data_source, registry))
    # A missing response scores 0 whatever the scorer, but still through it: a wrong ground truth must show up.
    text = solution_str if isinstance(solution_str, str) else ""
    arguments = {"data_source": data_source, "solution_str": text, "ground_truth": ground_truth}
    try:
        outcome = scorer(**arguments, extra_info=extra_info, **_accepted(scorer, kwargs))
        result = _as_result(outcome, name)
    except NotImplementedError:
        if name == _VERL:
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


def _verl_scorer(data_source: Any, entries: Mapping[str, str] | None) -> Scorer:
    try:
        from verl.utils.reward_score import default_compute_score
    except ImportError:
        raise LookupError(_unknown(data_source, entries)) from None

    def score(data_source: str, ground_truth: Any, **arguments: Any) -> Any:
        # Checked after verl had its say on the data source would be too late: its scorers just answer 0.
        if not isinstance(ground_truth, str | Mapping):
            default_compute_score_knows(data_source)
            raise RewardConfigError(
                f"verl's scorer for {data_source!r} needs ground_truth to be a string (or a mapping, for some), not "
                f"{ground_truth!r} ({type(ground_truth).__name__}). Fix reward_model.ground_truth in the data file."
            )
        return default_compute_score(data_source=data_source, ground_truth=ground_truth, **arguments)

    return score
