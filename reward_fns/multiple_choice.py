"""Multiple choice with lettered options: 1 when the response states the right letter, else 0."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from reward_fns.choice import parse_choice
from reward_fns.registry import RewardConfigError, reward
from reward_fns.text import require_str

_DEFAULT_OPTIONS = 10


@reward("contextrl/multiple_choice*")
def score_multiple_choice(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> dict[str, Any]:
    """Score one response in {0.0, 1.0}.

    ``ground_truth`` is a capital letter; ``extra_info["num_options"]`` (2 to 26, default 10) says how many there are.
    Raises RewardConfigError when either is out of range.
    """
    count = (extra_info or {}).get("num_options")
    count = _DEFAULT_OPTIONS if count is None else count
    # Parquet and pandas hand integers over as numpy scalars or whole floats.
    if isinstance(count, bool | str) or not hasattr(count, "__int__") or int(count) != count or not 2 <= count <= 26:
        raise RewardConfigError(f'extra_info["num_options"] must be a whole number from 2 to 26, not {count!r}.')
    letters = tuple(string.ascii_uppercase[: int(count)])
    if require_str(ground_truth, "multiple-choice") not in letters:
        raise RewardConfigError(
            f"The multiple-choice reward's ground_truth {ground_truth!r} is not one of the letters A to {letters[-1]}."
        )
    choice = parse_choice(solution_str, letters)
    return {"score": float(choice == ground_truth), "parsed": choice or ""}
