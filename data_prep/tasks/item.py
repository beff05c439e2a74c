"""A question with its answer, as it is asked, checked, kept between steps, and written as a row for verl's trainer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from contextrl_verl.errors import ConfigError
from data_prep.tasks.rows import make_row
from reward_fns.dispatch import compute_score
from reward_fns.registry import RewardConfigError
from reward_fns.short_answer import normalise

Kind = Literal["math", "multiple_choice", "short", "patch"]
# The reward that scores a kind of answer, see reward_fns.
REWARDS: dict[Kind, str] = {
    "math": "contextrl/math",
    "multiple_choice": "contextrl/multiple_choice",
    "short": "contextrl/vqa",
    "patch": "contextrl/question_answering",
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MARK = "<image>"
NO_WORD = "the answer has no letter or digit that a comparison would see"
# Of an instance, what is short; the rest can be megabytes of test names.
SHORT = ("instance_id", "repo", "base_commit", "image_name")
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


@dataclass(frozen=True)
class Item:
    """One question of an example.

    Attributes:
        text: the question; marks ``<image>`` say where its pictures stand, without any they come first.
        answer: a formula, a letter, a short text or a unified diff, by ``kind``.
        pictures: as the example holds them (bytes, paths or structs of these), and once they are stored by their names
            in the :class:`data_prep.images.store.ImageStore`.
        choices: of a multiple choice, without letters.
        instance: of an issue: ``instance_id``, ``repo`` and whatever else an agent loop needs (JSON values).
        item_id: unique among the items of a job.
        name: of the set or the kind of pictures; the end of the row's ``data_source``.
        split: in which of the set's splits it is, ``train`` or ``validation``.
        tolerance: by which share of the right number a short answer may be off.
    """

    text: str
    answer: str
    kind: Kind
    pictures: tuple[Any, ...] = ()
    choices: tuple[str, ...] = ()
    instance: dict[str, Any] = field(default_factory=dict)
    item_id: str = ""
    name: str = ""
    split: str = "train"
    tolerance: float = 0.0

    @property
    def question(self) -> str:
        """The text with its choices: maps are asked about again and again with other ones."""
        return "\n".join([self.text, *self.choices])

    @property
    def image(self) -> str:
        """What two questions must share to be about the same thing."""
        return ",".join(self.pictures) or str(self.instance.get("instance_id", ""))

    @property
    def data_source(self) -> str:
        """E.g. ``contextrl/math/geometry3k``."""
        return f"{REWARDS[self.kind]}/{self.name}"

    @property
    def facts(self) -> dict[str, Any]:
        """What the reward reads from ``extra_info``."""
        tolerance = self.tolerance if self.kind == "short" else None
        return {"tolerance": tolerance, "num_options": len(self.choices) or None}

    def units(self, split_by: str) -> tuple[str, ...]:
        """What no two splits may share."""
        return self.pictures or (str(self.instance["repo" if split_by == "repository" else "instance_id"]),)


_ITEM = TypeAdapter(Item)


def write_items(items: Iterable[Item], path: Path) -> None:
    """Write items in order, one a line."""
    with path.open("wb") as file:
        file.writelines(_ITEM.dump_json(item) + b"\n" for item in items)


def read_items(paths: Sequence[Path], whole: bool = False) -> Iterator[Item]:
    """The items of several files, in order; not ``whole``: of an instance only what is short."""
    for path in paths:
        with path.open("rb") as file:
            for item in map(_ITEM.validate_json, file):
                if not whole and item.instance:
                    item = replace(item, instance={name: item.instance.get(name) for name in SHORT})
                yield item


def prompt_of(item: Item, agent_loop: str = "") -> str:
    """The user's message. An agent loop says itself how to answer, and gets the issue alone."""
    if item.kind == "patch":
        return item.text if agent_loop else _ISSUE.format(repo=item.instance["repo"], issue=item.text)
    options = [f"{LETTERS[number]}. {choice}" for number, choice in enumerate(item.choices)]
    marks = [] if MARK in item.question else [MARK] * len(item.pictures)
    return "\n".join([*marks, item.text, *options, _ENDINGS[item.kind]])


def fault_of(item: Item, max_words: int) -> str:
    """Why no row can be made of the item, as a reason for counting; ``""`` if one can.

    Its own answer must get full marks from the reward, else no response ever could. Raises ConfigError if the reward's
    package is missing.
    """
    answer, choices, words = item.answer, item.choices, normalise(item.answer).split()
    marks = item.question.count(MARK)
    if item.kind != "patch" and (_OTHER_MEDIA.search(item.question) or marks not in (0, len(item.pictures))):
        return "its marks for pictures do not fit its pictures"
    if item.kind == "multiple_choice":
        if not 2 <= len(choices) <= len(LETTERS):
            return "fewer than 2 choices, or more than 26"
        if len(answer) != 1 or answer not in LETTERS[: len(choices)]:
            return "the answer is none of the choices"
        if choices.count(right := choices[LETTERS.index(answer)]) > 1 and right != MARK:
            return "the right choice is there twice"
    if item.kind == "short" and not words:
        return NO_WORD
    if item.kind == "short" and len(words) > max_words:
        return f"the answer has more than {max_words} words"
    if item.kind == "math":
        response = answer if "\\boxed{" in answer else f"\\boxed{{{answer}}}"
    else:
        response = f"```diff\n{answer.rstrip()}\n```" if item.kind == "patch" else f"<answer>{answer}</answer>"
    try:
        result = compute_score(item.data_source, response, answer, item.facts)
    except RewardConfigError:
        return "an answer that the reward does not take"
    except ImportError as error:
        raise ConfigError(
            f"{item.data_source} needs a package that is missing ({error}). Fix: pip install 'contextrl-verl[math]'."
        ) from None
    return "" if result["score"] == 1.0 else "the reward does not give its own answer full marks"


def row_of(
    item: Item, index: int, split: str, bytes_of: Callable[[str], bytes], agent_loop: str = "", instance: bool = False
) -> dict[str, Any]:
    """The row, with pictures from ``bytes_of``; ``instance``: whether ``extra_info["instance"]`` is filled."""
    row = make_row(
        item.data_source, prompt_of(item, agent_loop), _ABILITIES[item.kind], item.answer,
        index=index, kind=item.kind, split=split, question=None if item.kind == "patch" else item.text,
        picture=",".join(item.pictures) or None, item=item.item_id,
        instance=json.dumps(item.instance) if item.instance and instance else None,
        **item.facts, **{name: item.instance.get(name) for name in SHORT},
    )  # fmt: skip
    images = [{"bytes": bytes_of(name), "path": None} for name in item.pictures]
    return row | {"images": images, "agent_name": agent_loop}
