"""The one ``compute_score`` that verl calls for every data source.

verl calls it in executor threads of several processes and stacks the returned dicts, so it is thread safe and every
return has the keys of ``RESULT_KEYS``.
"""

from __future__ import annotations

import inspect
import logging
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reward_fns import registry
from reward_fns.registry import Registry, RewardConfigError, Scorer, check_mapping, describe, one_line

logger = logging.getLogger(__name__)

RESULT_KEYS = ("score", "acc", "parsed", "reward_fn", "reward_error")
_VERL = "verl"
_ERROR_CHARS = 200
_ALL_FAILED = 16


@dataclass
class _Seen:
    """What one data source has given in this process."""

    failures: int = 0
    succeeded: bool = False
    fault: str = ""
    keys: dict[str, None] = field(default_factory=dict)


_lock = threading.Lock()
_overlay: tuple[Any, Registry] = (None, registry.DEFAULT)
_seen: dict[str, _Seen] = {}
_semaphores: dict[int, threading.Semaphore] = {}


def compute_score(
    data_source: str,
    solution_str: str | None,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    registry: Mapping[str, Scorer | str] | None = None,
    sandbox_fusion: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """Score one response with the scorer that serves ``data_source``, registered or verl's own (docs/rewards.md).

    Args:
        registry: the yaml's; wins over registered names of equal rank.
        sandbox_fusion: verl's block of that name: with a ``url`` in it, scorers get ``sandbox_fusion_url``,
            ``concurrent_semaphore`` (one a process) and ``memory_limit_mb``, so verl's scorers of code run it there and
            never here. These and ``kwargs`` are handed on as far as the scorer accepts them.

    Returns:
        :data:`RESULT_KEYS` and whatever else the scorer's dict holds (numpy and tensor scalars as Python's own).
        ``parsed`` is what was read from the response; ``reward_fn`` the registered name, or ``"verl"``;
        ``reward_error`` why the scorer failed on the response, which then scores 0; each ``""`` if there is none. Keys
        that earlier responses of the data source had in this process, and this one has not, are None: verl's
        validation leaves None out, its estimator gdpo turns it into NaN, which spoils the whole batch.

    Raises:
        LookupError: nothing serves the data source. ImportError: a missing dependency.
        RewardConfigError: a wrong ground truth, registry or sandbox; the first 16 responses for a data source in this
            process all failed.
    """
    data_source, ground_truth, table = _plain(data_source), _plain(ground_truth), _table(registry)
    if not isinstance(data_source, str):
        raise LookupError(_unknown(data_source, table))
    name, scorer = table.resolve(data_source) or (_VERL, _score_with_verl)
    seen = _seen.get(data_source) or _seen.setdefault(data_source, _Seen())
    # A missing response scores 0 whatever the scorer, but still through it: a wrong ground truth must show up.
    text = solution_str if isinstance(solution_str, str) else ""
    kwargs.update(_sandbox(sandbox_fusion))
    failure = None
    try:
        outcome = scorer(
            data_source=data_source,
            solution_str=text,
            ground_truth=ground_truth,
            extra_info=extra_info,
            **_accepted(scorer, kwargs),
        )
        result = _as_result(outcome, name)
    except (RewardConfigError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, NotImplementedError) and scorer is _score_with_verl:
            raise LookupError(_unknown(data_source, table)) from None
        failure = error
        result = dict.fromkeys(RESULT_KEYS) | {"reward_fn": name, "reward_error": one_line(error)[:_ERROR_CHARS]}
    if failure or text is not solution_str:
        result.update(score=0.0, acc=0.0, parsed="")
    return _note(seen, data_source, scorer, result, failure)


def check_sources(sources: Mapping[str, int], registry: Mapping[str, Scorer | str] | None = None) -> list[str]:
    """Look every data source up before a run; ``sources`` maps each to its number of rows. No response is scored.

    Returns one message for each data source that neither the registry nor verl serves, and for each entry of
    ``registry`` (the yaml's) that cannot be loaded or is no plain function of verl's four arguments.
    """
    table, problems = check_mapping({} if registry is None else registry)
    for source, rows in sources.items():
        source = _plain(source)
        try:
            if not isinstance(source, str):
                raise NotImplementedError
            if table.resolve(source) is None:
                _ask_verl(source)
        except NotImplementedError:
            problems.append(_unknown(source, table, rows))
        except ImportError as error:
            problems.append(
                f"verl's own scorer of the data source {source!r} (rows: {rows}) cannot be imported: "
                f"{one_line(error)}. Fix: install what it needs, or serve the data source with a scorer of your own."
            )
        except RewardConfigError as error:
            problems.append(str(error))
    return list(dict.fromkeys(problems))


def _table(entries: Mapping[str, Scorer | str] | None) -> Registry:
    global _overlay
    if entries is None:
        return registry.DEFAULT
    # verl passes the same yaml node with every call; threads racing here only build the same table twice.
    known, table = _overlay
    if known is not entries:
        table = registry.from_mapping(entries)
        _overlay = (entries, table)
    return table


def _sandbox(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """What verl's own default_compute_score is given for its block ``reward.sandbox_fusion``."""
    if config is None:
        return {}
    # A misspelt url must not end in code that runs here.
    if not isinstance(config, Mapping) or "url" not in config:
        raise RewardConfigError(
            f"reward.custom_reward_function.reward_kwargs.sandbox_fusion is {config!r}, not a mapping with a url. "
            "Fix: set it to ${reward.sandbox_fusion}, verl's own block."
        )
    if not config["url"]:
        return {}
    most = config.get("max_concurrent", 64)
    return {
        "sandbox_fusion_url": config["url"],
        "concurrent_semaphore": _semaphores.setdefault(most, threading.Semaphore(most)),
        "memory_limit_mb": config.get("memory_limit_mb", 1024),
    }


def _score_with_verl(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **kwargs: Any
) -> Any:
    """Ask verl's own scorer; NotImplementedError means that verl does not know ``data_source`` (or is not there)."""
    if not isinstance(ground_truth, str | Mapping):
        # verl's scorers would answer 0 for ever. Ask first whether the source is verl's at all, else this blames data.
        _ask_verl(data_source)
        raise RewardConfigError(
            f"verl's scorer for {data_source!r} needs ground_truth to be a string (for some sources a mapping), not "
            f"{ground_truth!r} ({type(ground_truth).__name__}). Fix reward_model.ground_truth in the data file."
        )
    return _verls_scorer()(data_source, solution_str, ground_truth, extra_info, **kwargs)


def _verls_scorer() -> Scorer:
    try:
        from verl.utils.reward_score import default_compute_score
    except ImportError:
        raise NotImplementedError from None
    return default_compute_score


def _ask_verl(data_source: str) -> None:
    """NotImplementedError if verl does not know the data source, ImportError if its scorer needs what is missing."""
    try:
        # Without a url verl would start a process for code, even for none; with one, no code means no request.
        _verls_scorer()(data_source, "", "", sandbox_fusion_url="http://sandbox.invalid")
    except (NotImplementedError, ImportError):
        raise
    except Exception:
        logger.debug("verl's scorer of %r does not take empty texts", data_source, exc_info=True)


def _accepted(scorer: Scorer, kwargs: dict[str, Any]) -> dict[str, Any]:
    if not kwargs:
        return kwargs
    parameters = inspect.signature(scorer).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return kwargs
    return {key: value for key, value in kwargs.items() if key in parameters}


def _plain(value: Any) -> Any:
    """A numpy scalar, or a tensor of no dimensions, as Python's own value."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _number(value: Any, what: str) -> float:
    value = _plain(value)
    if not hasattr(value, "__float__"):
        raise TypeError(f"the {what} is {value!r}, not a number")
    if not math.isfinite(float(value)):
        raise ValueError(f"the {what} is {value!r}, not a finite number")
    return float(value)


def _as_result(outcome: Any, name: str) -> dict[str, Any]:
    if not isinstance(outcome, Mapping):
        # As in verl's default_compute_score, the score is the first of several values.
        several = isinstance(outcome, tuple | list) or getattr(outcome, "ndim", 0) > 0
        outcome = {"score": outcome[0] if several else outcome}
    if "score" not in outcome:
        raise ValueError(f"the scorer's dict has no key 'score', only {list(outcome)}")
    score = _number(outcome["score"], "score")
    # verl's own scorers call it "pred".
    parsed = outcome.get("parsed", outcome.get("pred"))
    return {
        "score": score,
        "acc": _number(outcome.get("acc", score), "acc"),
        "parsed": "" if parsed is None else str(parsed),
        "reward_fn": name,
        # A scorer that hands a result of compute_score on hands its failure on.
        "reward_error": str(outcome.get("reward_error") or "")[:_ERROR_CHARS],
        **{key: _plain(value) for key, value in outcome.items() if key not in RESULT_KEYS},
    }


def _note(
    seen: _Seen, data_source: str, scorer: Scorer, result: dict[str, Any], failure: Exception | None
) -> dict[str, Any]:
    """Count the result, and give it the keys of its data source; RewardConfigError if nothing has ever worked."""
    error = result["reward_error"]
    if seen.succeeded and not (error or seen.fault) and seen.keys.keys() == result.keys():
        return result
    who = "verl's own scorer" if scorer is _score_with_verl else f"the scorer {describe(scorer)}"
    with _lock:
        keys = seen.keys = dict.fromkeys([*RESULT_KEYS, *seen.keys, *result])
        seen.failures += bool(error)
        seen.succeeded = seen.succeeded or not error
        is_first = bool(error) and seen.failures == 1
        if seen.failures == _ALL_FAILED and not seen.succeeded:
            seen.fault = (
                f"The first {_ALL_FAILED} responses for the data source {data_source!r} in this process all made {who} "
                f"fail, the last with: {error}. Fix: mend the scorer (for a response that it cannot read it should "
                "return 0, not raise), then start again."
            )
    if is_first:
        text = "%s failed on a response for %r, which scores 0 (further ones in this process are not logged): %s"
        logger.warning(text, who, data_source, error, exc_info=failure)
    if seen.fault:
        raise RewardConfigError(seen.fault)
    return {key: result.get(key) for key in keys}


def _unknown(data_source: Any, table: Registry, rows: int | None = None) -> str:
    names = ", ".join(table.names()) or "nothing"
    where = "" if rows is None else f" (rows: {rows})"
    return (
        f"No reward function serves the data source {data_source!r}{where}. Registered: {names}; verl's own scorers do "
        f"not know it either. Fix: name a scorer in yaml, reward.custom_reward_function.reward_kwargs.registry: "
        f'{{"{data_source}": "/path/my_reward.py:compute_score"}} (or "package.module:function"), or add one with '
        f'@reward_fns.reward("{data_source}") in a module that the workers import, or correct the data source.'
    )
