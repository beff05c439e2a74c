"""Examples of the sets as questions. Each reader takes a whole example and yields what it asks."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from data_prep.common.reverse_diff import DiffError, reverse_diff
from data_prep.images.sources.base import RowRejected
from data_prep.images.sources.values import answer_of, label_of
from data_prep.tasks.public.record import Kind, Question, Reader

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CHOICE = re.compile(r"^\s*(?:-\s*)?\(?([A-Z])\s*[:.)]\s*(.*\S)\s*$")
_ASKED = re.compile(r"(?:\A|\n)\s*Question\s*:\s*", re.IGNORECASE)
_LETTER_LAST = re.compile(r"answer\s*(?:is)?\s*:?\s*(?:option\s*)?\(?([A-Z])\)?\s*\.?\s*\Z", re.IGNORECASE)
_VALUE = re.compile(r"(?:the answer is|answer\s*:)\s*:?\s*", re.IGNORECASE)
_ICON_CHOICE = re.compile(r"choice_(\d{1,2})\.png")
_LONGEST_VALUE = 120
# Tables of issues, as SWE-bench lays them out.
COLUMNS = ("instance_id", "repo", "patch", "problem_statement", "FAIL_TO_PASS", "PASS_TO_PASS")
OPTIONAL = (
    "base_commit", "image_name", "test_patch", "version", "environment_setup_commit", "hints_text", "created_at",
)  # fmt: skip
_TESTS = ("FAIL_TO_PASS", "PASS_TO_PASS")
Name = Callable[[str], str]


def open_question(question: str, answer: str, pictures: str, kind: Kind) -> Reader:
    """A reader of sets with one column each for question, answer and pictures (one, or a list)."""

    def read(example: Mapping[str, Any]) -> Iterator[Question]:
        found = _pictures(example[pictures])
        yield Question(asked(example[question]), answer_of(_only(example[answer])), kind, found)

    return read


def scienceqa(example: Mapping[str, Any]) -> Iterator[Question]:
    """``answer`` counts the choices from 0; the hint belongs to the question."""
    yield _choice(example, context="hint")


def m3cot(example: Mapping[str, Any]) -> Iterator[Question]:
    """``answer`` is a letter, or counts the choices from 0."""
    yield _choice(example, context="context")


def icon_qa(example: Mapping[str, Any]) -> Iterator[Question]:
    """``choices`` are joined by commas; those of ``choose_img`` are pictures in columns of their own."""
    kind, text = label_of(example["ques_type"]), asked(example["question"])
    answer, query = answer_of(example["answer"]), _pictures(example["query_image"])
    if kind == "fill_in_blank":
        yield Question(text, answer, "short", query)
        return
    if kind not in ("choose_txt", "choose_img"):
        raise RowRejected("a kind of question that is not known", kind[:80])
    choices = [choice.strip() for choice in label_of(example["choices"]).split(",")]
    if answer not in choices:
        raise RowRejected("the answer is none of the choices", f"{answer[:80]!r} in {choices[:6]}")
    letter = LETTERS[choices.index(answer)] if choices.index(answer) < len(LETTERS) else ""
    if kind == "choose_txt":
        yield Question(text, letter, "multiple_choice", query, tuple(choices))
        return
    numbers = [_ICON_CHOICE.fullmatch(choice) for choice in choices]
    shown = [example.get(f"choice_image_{number[1]}") if number else None for number in numbers]
    if any(picture is None for picture in shown):
        raise RowRejected("a choice has no picture", ", ".join(choices)[:80])
    marked = text if "<image>" in text else f"<image>\n{text}"
    yield Question(marked, letter, "multiple_choice", (*query, *shown), ("<image>",) * len(shown))


def conversations(example: Mapping[str, Any]) -> Iterator[Question]:
    """One turn of ``human`` and ``gpt``: a question with lettered choices, or with a value at the end of the answer."""
    turns = example["conversations"]
    if not isinstance(turns, list) or [turn.get("from") for turn in turns] != ["human", "gpt"]:
        raise RowRejected("no conversation of one turn")
    text, answer = (label_of(turn.get("value")) for turn in turns)
    pictures = _pictures(example["image"])
    text = asked(text.replace("<image>", ""))
    # Before "Question:" stands how to answer, which the prompt of the row says in its own words.
    text = _ASKED.split(text, maxsplit=1)[-1]
    text, _, listed = text.partition("\nChoices:")
    lines = [_CHOICE.match(line) for line in listed.split("\n") if line.strip()]
    choices = tuple(line[2] for line in lines if line)
    if not listed:
        said = _VALUE.split(answer)
        value = said[-1].strip().removesuffix(".") if len(said) > 1 else ""
        if not value or "\n" in value or len(value) > _LONGEST_VALUE:
            raise RowRejected("no short answer at the end of the solution", answer[-80:])
        yield Question(text.strip(), value, "math", pictures)
        return
    if not all(lines) or [line[1] for line in lines if line] != list(LETTERS[: len(lines)]):
        raise RowRejected("the choices cannot be read", listed[:80])
    letter = _LETTER_LAST.search(answer[-80:])
    if letter is None:
        raise RowRejected("no letter at the end of the solution", answer[-80:])
    yield Question(text.strip(), letter[1].upper(), "multiple_choice", pictures, choices)


def cauldron(example: Mapping[str, Any]) -> Iterator[Question | RowRejected]:
    """Several turns about the same pictures, each a question of its own."""
    pictures, turns = _pictures(example["images"]), example["texts"]
    if not isinstance(turns, list):
        raise RowRejected("no list of questions")
    for turn in turns:
        try:
            answer = answer_of(turn.get("assistant")).removeprefix("Answer:").strip()
            yield Question(asked(turn.get("user")), answer.removesuffix("."), "short", pictures)
        except RowRejected as reason:
            yield reason


def asked(value: Any) -> str:
    """The text of a question; raises RowRejected."""
    if value is not None and not isinstance(value, str):
        raise RowRejected("question is no text", type(value).__name__)
    text = label_of(value)
    if not text.replace("<image>", "").strip():
        raise RowRejected("no question")
    return text


def _choice(example: Mapping[str, Any], context: str) -> Question:
    choices, answer = example["choices"], example["answer"]
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise RowRejected("choices are no list of texts", type(choices).__name__)
    if isinstance(answer, str):
        answer = LETTERS.find(answer.strip()) if len(answer.strip()) == 1 else -1
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < min(len(choices), len(LETTERS)):
        raise RowRejected("the answer is none of the choices", f"{example['answer']!r} of {len(choices)}")
    text = asked(example["question"])
    if before := label_of(example.get(context)):
        text = f"{before}\n{text}"
    return Question(text, LETTERS[answer], "multiple_choice", _pictures(example["image"]), tuple(choices))


def _pictures(value: Any) -> tuple[Any, ...]:
    found = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not found or any(picture is None for picture in found):
        raise RowRejected("no picture")
    return found


def _only(answer: Any) -> Any:
    """The one answer of a list of one."""
    return answer[0] if isinstance(answer, list) and len(answer) == 1 else answer


def issues(*, image: Name | None = None, introduces: bool = False) -> Reader:
    """A reader of a table of issues; the answer is a patch.

    Args:
        image: name of the container image of an instance id, where the table has no ``image_name``.
        introduces: whether ``patch`` makes the bug; the answer is then its reverse.
    """

    def read(example: Mapping[str, Any]) -> Iterator[Question]:
        identity, text = label_of(example["instance_id"]), label_of(example["problem_statement"])
        if not identity:
            raise RowRejected("no instance_id")
        if not text:
            raise RowRejected("no problem statement")
        patch = example["patch"]
        if not isinstance(patch, str) or not patch.strip():
            raise RowRejected("no patch")
        try:
            # Also where it is not needed: a diff that cannot be reversed is damaged, or not of text alone.
            backwards = reverse_diff(patch)
        except DiffError as error:
            raise RowRejected("the patch cannot be read", str(error)) from None
        fix = backwards if introduces else patch
        instance: dict[str, Any] = {name: label_of(example.get(name)) for name in OPTIONAL if example.get(name)}
        instance |= {name: tests_of(example[name]) for name in _TESTS}
        instance |= {"instance_id": identity, "repo": label_of(example["repo"]), "problem_statement": text}
        if image and not instance.get("image_name"):
            instance["image_name"] = image(identity)
        # Tools that apply a diff want the end of its last line.
        yield Question(text, fix.strip("\n") + "\n", "patch", instance=instance)

    return read


def tests_of(value: Any) -> list[str]:
    """Names of tests from a list, or from its JSON or Python text; raises RowRejected."""
    if isinstance(value, str):
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(value or "[]")
                break
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    value = [] if value is None else value
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise RowRejected("the tests are no list of names", str(value)[:80])
    return value


def swe_gym_image(instance_id: str) -> str:
    """As SWE-Gym's images are named on Docker Hub."""
    return f"docker.io/xingyaoww/sweb.eval.x86_64.{instance_id.replace('__', '_s_').lower()}:latest"


def swe_bench_image(instance_id: str) -> str:
    """As SWE-bench's images are named on Docker Hub."""
    return f"docker.io/swebench/sweb.eval.x86_64.{instance_id.replace('__', '_1776_').lower()}:latest"
