"""Rewards by data source, for verl's ``reward.custom_reward_function``.

Set ``path: pkg://reward_fns.dispatch`` and ``name: compute_score``. Add a scorer with ``@reward("my/data")``, with
``register``, or for one run in yaml under ``reward_kwargs.registry``. A job with a sandbox for code also sets
``reward_kwargs.sandbox_fusion`` to ``${reward.sandbox_fusion}``.
"""

# Importing registers them.
from reward_fns import choice, math_answer, question_answering, short_answer  # noqa: F401
from reward_fns.choice import parse_choice
from reward_fns.dispatch import check_sources, compute_score
from reward_fns.registry import RewardConfigError, register, resolve, reward

__all__ = ["RewardConfigError", "check_sources", "compute_score", "parse_choice", "register", "resolve", "reward"]
