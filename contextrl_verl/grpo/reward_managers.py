"""verl's reward managers, under which pairs are scored by our registry whatever function scores the user's own rows.

A job names this module as ``reward.reward_manager.module.path`` (source ``importlib``); ``reward.reward_manager.name``
stays verl's: ``naive``, ``dapo`` and so on, or a name that a user's module registered.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls

from contextrl_verl.grpo.job_checks import DISPATCH
from reward_fns import compute_score

OURS = "contextrl/"


def by_source(theirs: Callable[..., Any]) -> Callable[..., Any]:
    """A ``compute_score`` that hands rows of the sources ``contextrl/*`` to our registry and all others to ``theirs``.

    ``theirs`` may be async; the result is then async too, as verl looks for that.
    """

    def score(data_source: str, **arguments: Any) -> Any:
        chosen = compute_score if str(data_source).startswith(OURS) else theirs
        return chosen(data_source=data_source, **arguments)

    async def score_async(**arguments: Any) -> Any:
        scored = score(**arguments)
        return await scored if inspect.isawaitable(scored) else scored

    return score_async if inspect.iscoroutinefunction(theirs) else score


def __getattr__(name: str) -> Any:
    try:
        base = get_reward_manager_cls(name)
    except ValueError:
        raise AttributeError(name) from None

    def __init__(self: Any, config: Any, tokenizer: Any, compute_score: Callable[..., Any], **more: Any) -> None:
        if config.reward.custom_reward_function.get("path") == DISPATCH:
            # verl hands its sandbox to its own function only, and without it that would run code here.
            compute_score = partial(compute_score, sandbox_fusion=config.reward.get("sandbox_fusion"))
        else:
            compute_score = by_source(compute_score)
        base.__init__(self, config, tokenizer, compute_score, **more)

    return type(f"{base.__name__}BySource", (base,), {"__init__": __init__})
