"""Examples of the public sets as questions. Each reader takes a whole example and yields what it asks.

A question that an example has but that is not used is yielded as its reason; a raised one stands for the example.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from data_prep.common.reverse_diff import DiffError, reverse_diff
from data_prep.images.sources.base import RowRejected
from data_prep.images.sources.values import answer_of, label_of
from data_prep.tasks.item import LETTERS, MARK, Item, Kind

Example = Mapping[str, Any]
Reader = Callable[[Example], Iterator[Item | RowRejected]]

_CHOICE = re.compile(r"^\s*(?:-\s*)?\(?([A-Z])\s*[:.)]\s*(.*\S)\s*$")
_ASKED = re.compile(r"(?:\A|\n)\s*Question\s*:\s*", re.IGNORECASE)
_LETTER_LAST = re.compile(r"answer\s*(?:is)?\s*:?\s*(?:option\s*)?\(?([A-Z])\)?\s*\.?\s*\Z", re.IGNORECASE)
_VALUE = re.compile(r"(?:the answer is|answer\s*:)\s*:?\s*", re.IGNORECASE)
_ICON_CHOICE = re.compile(r"choice_(\d{1,2})\.png")
_LONGEST_VALUE = 120
# Tables of issues, as SWE-bench lays them out.
_TESTS = ("FAIL_TO_PASS", "PASS_TO_PASS")
COLUMNS = ("instance_id", "repo", "patch", "problem_statement", *_TESTS)
OPTIONAL = (
    "base_commit", "image_name", "test_patch", "version", "environment_setup_commit", "hints_text", "created_at",
)  # fmt: skip


def open_question(question: str, answer: str, pictures: str, kind: Kind) -> Reader:
    """A reader of sets with one column each for question, answer (a list of one at most) and pictures."""

    def read(example: Example) -> Iterator[Item]:
        given, found = example[answer], _pictures(example[pictures])
        given = given[0] if isinstance(given, list) and len(given) == 1 else given
        yield Item(asked(example[question]), answer_of(given), kind, found)

    return read


def multiple_choice(context: str) -> Reader:
    """A reader of sets with a list of choices; ``answer`` is a letter or counts them from 0, and the column ``context``
    belongs before the question.
    """

    def read(example: Example) -> Iterator[Item]:
        choices, answer = example["choices"], example["answer"]
        if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
            raise RowRejected("choices are no list of texts", type(choices).__name__)
        if isinstance(answer, str):
            answer = LETTERS.find(answer.strip()) if len(answer.strip()) == 1 else -1
        if not isinstance(answer, int) or not 0 <= answer < min(len(choices), len(LETTERS)):
            raise RowRejected("the answer is none of the choices", f"{example['answer']!r} of {len(choices)}")
        before, found = label_of(example[context]), _pictures(example["image"])
        text = "\n".join([*filter(None, [before]), asked(example["question"])])
        yield Item(text, LETTERS[answer], "multiple_choice", found, tuple(choices))

    return read


def icon_qa(example: Example) -> Iterator[Item]:
    """``choices`` are joined by commas; those of ``choose_img`` are pictures in columns of their own."""
    kind, text = label_of(example["ques_type"]), asked(example["question"])
    answer, query = answer_of(example["answer"]), _pictures(example["query_image"])
    if kind == "fill_in_blank":
        yield Item(text, answer, "short", query)
        return
    if kind not in ("choose_txt", "choose_img"):
        raise RowRejected("a kind of question that is not known", kind[:80])
    choices = tuple(choice.strip() for choice in label_of(example["choices"]).split(","))
    if answer not in choices[: len(LETTERS)]:
        raise RowRejected("the answer is none of the choices", f"{answer[:80]!r} in {choices[:6]}")
    letter = LETTERS[choices.index(answer)]
    if kind == "choose_img":
        numbers = [_ICON_CHOICE.fullmatch(choice) for choice in choices]
        shown = [example.get(f"choice_image_{number[1]}") if number else None for number in numbers]
        if None in shown:
            raise RowRejected("a choice has no picture", ", ".join(choices)[:80])
        text = text if MARK in text else f"{MARK}\n{text}"
        query, choices = (*query, *shown), (MARK,) * len(shown)
    yield Item(text, letter, "multiple_choice", query, choices)


def conversations(example: Example) -> Iterator[Item]:
    """One turn of ``human`` and ``gpt``: a question with lettered choices, or with a value at the end of the answer."""
    turns = example["conversations"]
    if not isinstance(turns, list) or [turn.get("from") for turn in turns] != ["human", "gpt"]:
        raise RowRejected("no conversation of one turn")
    text, answer = (label_of(turn.get("value")) for turn in turns)
    pictures = _pictures(example["image"])
    # Before "Question:" stands how to answer, which the prompt of the row says in its own words.
    text = _ASKED.split(asked(text.replace(MARK, "")), maxsplit=1)[-1]
    text, _, listed = text.partition("\nChoices:")
    if not listed:
        said = _VALUE.split(answer)
        value = said[-1].strip().removesuffix(".") if len(said) > 1 else ""
        if not value or "\n" in value or len(value) > _LONGEST_VALUE:
            raise RowRejected("no short answer at the end of the solution", answer[-80:])
        yield Item(text.strip(), value, "math", pictures)
        return
    lines = [_CHOICE.match(line) for line in listed.split("\n") if line.strip()]
    if [line and line[1] for line in lines] != list(LETTERS[: len(lines)]):
        raise RowRejected("the choices cannot be read", listed[:80])
    letter = _LETTER_LAST.search(answer[-80:])
    if letter is None:
        raise RowRejected("no letter at the end of the solution", answer[-80:])
    choices = tuple(line[2] for line in lines if line)
    yield Item(text.strip(), letter[1].upper(), "multiple_choice", pictures, choices)


def cauldron(example: Example) -> Iterator[Item | RowRejected]:
    """Several turns about the same pictures, each a question of its own."""
    pictures, turns = _pictures(example["images"]), example["texts"]
    if not isinstance(turns, list):
        raise RowRejected("no list of questions")
    for turn in turns:
        try:
            answer = answer_of(turn.get("assistant")).removeprefix("Answer:").strip()
            yield Item(asked(turn.get("user")), answer.removesuffix("."), "short", pictures)
        except RowRejected as reason:
            yield reason


def issues(image: Callable[[str], str] | None = None, introduces: bool = False) -> Reader:
    """A reader of a table of issues; the answer is a patch.

    Args:
        image: name of the container image of an instance id, where the table has no ``image_name``.
        introduces: whether ``patch`` makes the bug; the answer is then its reverse.
    """

    def read(example: Example) -> Iterator[Item]:
        identity, text = label_of(example["instance_id"]), label_of(example["problem_statement"])
        patch = example["patch"] if isinstance(example["patch"], str) else ""
        for name, value in (("instance_id", identity), ("problem statement", text), ("patch", patch.strip())):
            if not value:
                raise RowRejected(f"no {name}")
        try:
            # Also where it is not needed: a diff that cannot be reversed is damaged, or not of text alone.
            backwards = reverse_diff(patch)
        except DiffError as error:
            raise RowRejected("the patch cannot be read", str(error)) from None
        instance = {name: label_of(example[name]) for name in OPTIONAL if example[name]}
        instance |= {name: tests_of(example[name]) for name in _TESTS}
        instance |= {"instance_id": identity, "repo": label_of(example["repo"]), "problem_statement": text}
        if image:
            instance.setdefault("image_name", image(identity))
        # Tools that apply a diff want the end of its last line.
        fix = (backwards if introduces else patch).strip("\n") + "\n"
        yield Item(text, fix, "patch", instance=instance)

    return read


def asked(value: Any) -> str:
    """The text of a question; raises RowRejected."""
    if value is not None and not isinstance(value, str):
        raise RowRejected("question is no text", type(value).__name__)
    text = label_of(value)
    if not text.replace(MARK, "").strip():
        raise RowRejected("no question")
    return text


def tests_of(value: Any) -> list[str]:
    """Names of tests from a list, or from its JSON or Python text; raises RowRejected."""
    for parse in (json.loads, ast.literal_eval) if isinstance(value, str) else ():
        try:
            value = parse(value or "[]")
            break
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    value = [] if value is None else value
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise RowRejected("the tests are no list of names", str(value)[:80])
    return value


def _pictures(value: Any) -> tuple[Any, ...]:
    found = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not found or None in found:
        raise RowRejected("no picture")
    return found
