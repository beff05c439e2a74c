"""A question as a row for verl's trainer: its prompt, what the reward compares with, and what it must know."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from contextrl_verl.errors import ConfigError
from data_prep.tasks.public.read import LETTERS
from data_prep.tasks.public.record import REWARDS, SHORT, PublicItem, PublicSet
from reward_fns.dispatch import compute_score
from reward_fns.exact_match import normalise
from reward_fns.registry import RewardConfigError

MARK = "<image>"
_OTHER_MEDIA = re.compile(r"<(?:video|audio)>")
_ENDINGS = {
    "math": "Reason step by step, and put your final answer inside \\boxed{}.",
    "multiple_choice": "Answer with the letter of the right option. End with it, and nothing else, inside "
    "<answer></answer>.",
    "short": "Your answer is a word, a number or a short phrase. End with it, and nothing else, inside "
    "<answer></answer>.",
}
_ISSUE = (
    "This is an issue of the repository {repo}.\n\n<issue>\n{issue}\n</issue>\n\n"
    "Write the change of the repository that resolves it, as a unified diff with the paths of its files. End with the "
    "diff, and nothing else, in one block that begins with ```diff and ends with ```."
)
_ABILITIES = {"math": "math", "multiple_choice": "science", "short": "visual_question_answering", "patch": "coding"}


def prompt_of(item: PublicItem, agent_loop: str = "") -> str:
    """The user's message. An agent loop says itself how to answer, and gets the issue alone."""
    if item.kind == "patch":
        return item.text if agent_loop else _ISSUE.format(repo=item.instance["repo"], issue=item.text)
    options = [f"{LETTERS[number]}. {choice}" for number, choice in enumerate(item.choices)]
    text = "\n".join([item.text, *options])
    if item.pictures and MARK not in text:
        text = "\n".join([*[MARK] * len(item.pictures), text])
    return f"{text}\n{_ENDINGS[item.kind]}"


def fault_of(item: PublicItem, record: PublicSet, max_words: int) -> str:
    """Why no row can be made of the item, as a reason for counting; ``""`` if one can.

    Its own answer must get full marks from the reward, else no response ever could.

    Raises:
        ConfigError: the reward's package is missing.
    """
    marks = item.question.count(MARK)
    if item.kind != "patch" and (_OTHER_MEDIA.search(item.question) or marks not in (0, len(item.pictures))):
        return "its marks for pictures do not fit its pictures"
    if item.kind == "multiple_choice":
        if not 2 <= len(item.choices) <= len(LETTERS):
            return "fewer than 2 choices, or more than 26"
        if item.answer not in LETTERS[: len(item.choices)] or len(item.answer) != 1:
            return "the answer is none of the choices"
        if item.choices.count(right := item.choices[LETTERS.index(item.answer)]) > 1 and right != MARK:
            return "the right choice is there twice"
    if item.kind == "short":
        words = normalise(item.answer).split()
        if not words:
            return "the answer has no letter or digit that a comparison would see"
        if len(words) > max_words:
            return f"the answer has more than {max_words} words"
    try:
        result = compute_score(data_source(item, record), _own_answer(item), item.answer, _facts(item, record))
    except RewardConfigError:
        return "an answer that the reward does not take"
    except ImportError as error:
        raise ConfigError(
            f"{record.name} is scored by the reward {REWARDS[item.kind]}, and a package of it is missing ({error}). "
            "Fix: pip install 'contextrl-verl[math]'."
        ) from None
    return "" if result["score"] == 1.0 else "the reward does not give its own answer full marks"


def data_source(item: PublicItem, record: PublicSet) -> str:
    """E.g. ``contextrl/math/geometry3k``."""
    return f"{REWARDS[item.kind]}/{record.name}"


def row_of(
    index: int,
    item: PublicItem,
    record: PublicSet,
    split: str,
    bytes_of: Callable[[str], bytes],
    agent_loop: str = "",
    instance: bool = False,
) -> dict[str, Any]:
    """The row.

    Args:
        bytes_of: gives the picture of a name in the store.
        agent_loop: written into the column ``agent_name``.
        instance: whether ``extra_info["instance"]`` is filled.
    """
    about = item.instance
    row = {
        "data_source": data_source(item, record),
        "prompt": [{"role": "user", "content": prompt_of(item, agent_loop)}],
        "ability": _ABILITIES[item.kind],
        "reward_model": {"style": "rule", "ground_truth": item.answer},
        "extra_info": {
            "index": index,
            "kind": item.kind,
            "split": split,
            "question": None if item.kind == "patch" else item.text,
            "picture": ",".join(item.pictures) or None,
            "item": item.item_id,
            "instance": json.dumps(about) if about and instance else None,
            **_facts(item, record),
            **{name: about.get(name) for name in SHORT},
        },
    }
    if not record.issues:
        row["images"] = [{"bytes": bytes_of(name), "path": None} for name in item.pictures]
    if agent_loop:
        row["agent_name"] = agent_loop
    return row


def _facts(item: PublicItem, record: PublicSet) -> dict[str, Any]:
    """What the reward reads from ``extra_info``."""
    return {
        "tolerance": record.tolerance if item.kind == "short" else None,
        "num_options": len(item.choices) if item.kind == "multiple_choice" else None,
    }


def _own_answer(item: PublicItem) -> str:
    if item.kind == "patch":
        return f"```diff\n{item.answer.rstrip()}\n```"
    if item.kind == "math":
        return item.answer if "\\boxed{" in item.answer else f"\\boxed{{{item.answer}}}"
    return f"<answer>{item.answer}</answer>"
