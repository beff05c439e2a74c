"""Examples of the public sets with exactly their columns and types, good ones and ones that must be dropped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from image_factory import picture

TEXT, TEXTS, IMAGE = Value("string"), List(Value("string")), Image()
SIDE = 32


def shown(number: int) -> dict[str, Any]:
    """The picture of an example, one for every number."""
    return {"bytes": picture((number % 250, number // 250, 7), SIDE, SIDE), "path": f"{number}.png"}


@dataclass(frozen=True)
class Example:
    """A fixture of a set.

    Attributes:
        features: its columns.
        good: the good example of a number.
        truth: ``(data source, answer, a wrong answer)`` of a number.
        bad: examples that are dropped, by reason.
        splits: ``{split: numbers}``.
    """

    features: dict[str, Any]
    good: Callable[[int], dict[str, Any]]
    truth: Callable[[int], tuple[str, str, str]]
    bad: dict[str, dict[str, Any]] = field(default_factory=dict)
    splits: dict[str, range] = field(default_factory=lambda: {"train": range(12)})

    def tables(self) -> DatasetDict:
        """The set; bad examples come first in its split for training."""
        made, features = {}, Features(self.features)
        for place, (split, numbers) in enumerate(self.splits.items()):
            rows = [] if place else [{**self.good(0), **bad} for bad in self.bad.values()]
            made[split] = Dataset.from_list([*rows, *map(self.good, numbers)], features=features)
        return DatasetDict(made)

    def write_files(self, folder: Path, subset: str) -> Path:
        """As the Hub keeps them: ``data/train-00000-of-00001.parquet``."""
        for split, table in self.tables().items():
            path = folder / (subset or "data") / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            table.to_parquet(path)
        return folder


def _conversation(number: int) -> list[dict[str, str]]:
    if number % 3 == 2:
        asked = f"<image>\nPlease reason, and provide the final value, The answer is xxx\nQuestion: What is x{number}?"
        return [{"from": "human", "value": asked}, {"from": "gpt", "value": f"It follows.\nThe answer is {number}."}]
    choices = "\n".join(f"{letter}: {number + place}°" for place, letter in enumerate("ABCD"))
    asked = f"Select in the following format: Answer: xxx.\nQuestion: How large is angle {number}?\nChoices:\n{choices}"
    return [{"from": "human", "value": asked}, {"from": "gpt", "value": "Thus the answer is option C.\nAnswer:C"}]


def _icon(number: int) -> dict[str, Any]:
    kind = ("choose_txt", "fill_in_blank", "choose_img")[number % 3]
    listed, answer = {
        "choose_txt": ("4, 5,6", "5"),
        "fill_in_blank": ("", str(number)),
        "choose_img": ("choice_0.png,choice_1.png", "choice_1.png"),
    }[kind]
    extra = [shown(100 + number), shown(200 + number)] if kind == "choose_img" else [None, None]
    return {
        "question_id": str(number), "question": f"How many in {number}?", "choices": listed, "answer": answer,
        "query_image": shown(number), "choice_image_0": extra[0], "choice_image_1": extra[1], "ques_type": kind,
        "label": "l", "grade": "g", "skills": "s",
    }  # fmt: skip


def fix(number: int) -> str:
    """The diff that mends the bug of an instance."""
    return (
        f"diff --git a/pkg/m{number}.py b/pkg/m{number}.py\nindex 1111111..2222222 100644\n"
        f"--- a/pkg/m{number}.py\n+++ b/pkg/m{number}.py\n@@ -1,3 +1,3 @@ def f():\n"
        f" def f():\n-    return {number}\n+    return {number + 1}\n \n"
    )


def bug(number: int) -> str:
    """The diff that makes it."""
    return (
        f"diff --git a/pkg/m{number}.py b/pkg/m{number}.py\nindex 2222222..1111111 100644\n"
        f"--- a/pkg/m{number}.py\n+++ b/pkg/m{number}.py\n@@ -1,3 +1,3 @@ def f():\n"
        f" def f():\n-    return {number + 1}\n+    return {number}\n \n"
    )


def _issue(number: int) -> dict[str, Any]:
    return {
        "repo": f"owner/project{number % 4}", "instance_id": f"owner__project{number % 4}-{number}",
        "base_commit": f"{number:040x}", "patch": fix(number), "test_patch": "", "hints_text": "", "version": "1.0",
        "problem_statement": f"f returns {number}, and {number + 1} is right.", "created_at": "2024-01-01",
        "PASS_TO_PASS": '["tests/t.py::a"]', "FAIL_TO_PASS": '["tests/t.py::f"]', "environment_setup_commit": "e",
    }  # fmt: skip


def _smith(number: int) -> dict[str, Any]:
    return {
        "instance_id": f"owner__project{number % 4}.abcdef12.combine_file__{number}", "patch": bug(number),
        "FAIL_TO_PASS": ["tests/t.py::f"], "PASS_TO_PASS": ["tests/t.py::a"],
        "image_name": f"space/swesmith.x86_64.project{number % 4}", "repo": f"swesmith/owner__project{number % 4}",
        "problem_statement": f"f returns {number}, and {number + 1} is right.",
    }  # fmt: skip


_ISSUE_TRUTH = {"no problem statement": {"problem_statement": ""}, "no patch": {"patch": ""}}
_OWN = {"train": range(12), "validation": range(50, 53)}
_GEOMETRY = {"id": TEXT, "image": IMAGE, "conversations": List({"from": TEXT, "value": TEXT}), "data_source": TEXT}


def _turns(name: str) -> Example:
    return Example(
        features=_GEOMETRY,
        good=lambda n: {
            "id": str(n), "image": shown(n), "conversations": _conversation(n), "data_source": "x",
        },
        truth=lambda n: (
            (f"contextrl/math/{name}", f"\\boxed{{{n}}}", f"\\boxed{{{n + 1}}}")
            if n % 3 == 2
            else (f"contextrl/multiple_choice/{name}", "<answer>C</answer>", "<answer>A</answer>")
        ),
        bad={
            "no letter at the end of the solution": {
                "conversations": [_conversation(0)[0], {"from": "gpt", "value": "It is clear."}]
            },
            "no conversation of one turn": {"conversations": []},
            "no picture": {"image": None},
        },
    )  # fmt: skip


EXAMPLES = {
    "geometry3k": Example(
        features={"images": List(IMAGE), "problem": TEXT, "answer": TEXT},
        good=lambda n: {"images": [shown(n)], "problem": f"<image>Find $x_{{{n}}}$.", "answer": f"{n + 1}\\sqrt{{2}}"},
        truth=lambda n: ("contextrl/math/geometry3k", f"\\boxed{{\\sqrt{{2}} \\cdot {n + 1}}}", f"\\boxed{{{n + 1}}}"),
        bad={
            "its marks for pictures do not fit its pictures": {"problem": "<image><image>Find it."},
            "no answer": {"answer": " "},
        },
        splits=_OWN,
    ),
    "geo170k": _turns("geo170k"),
    "mavis_geometry": _turns("mavis_geometry"),
    "mmk12": Example(
        features={"id": TEXT, "question": TEXT, "answer": TEXT, "subject": TEXT, "image": IMAGE},
        good=lambda n: {
            "id": str(n), "question": f"<image>\nHow long is {n}?", "answer": f"$\\frac{{{n}}}{{7}}$", "subject": "m",
            "image": shown(n),
        },
        truth=lambda n: ("contextrl/math/mmk12", f"\\boxed{{\\frac{{{2 * n}}}{{14}}}}", "\\boxed{8}"),
        bad={"an answer that the reward does not take": {"answer": "x" * 301}},
        splits={"train": range(1, 13), "test": range(90, 92)},
    ),
    "icon_qa": Example(
        features={
            "question_id": TEXT, "question": TEXT, "choices": TEXT, "answer": TEXT, "query_image": IMAGE,
            "choice_image_0": IMAGE, "choice_image_1": IMAGE, "ques_type": TEXT, "label": TEXT, "grade": TEXT,
            "skills": TEXT,
        },
        good=_icon,
        truth=lambda n: (
            ("contextrl/vqa/icon_qa", f"<answer>{n}</answer>", f"<answer>{n + 1}</answer>")
            if n % 3 == 1
            else ("contextrl/multiple_choice/icon_qa", "<answer>B</answer>", "<answer>A</answer>")
        ),
        bad={
            "a choice has no picture": {"ques_type": "choose_img", "choices": "choice_0.png", "answer": "choice_0.png"},
            "the answer is none of the choices": {"choices": "1,000,2,000", "answer": "1,000"},
        },
        splits={"val": range(12), "test": range(90, 92)},
    ),
    "virl39k": Example(
        features={
            "question": TEXT, "answer": TEXT, "category": TEXT, "source": TEXT, "qid": TEXT, "image": TEXTS,
            "PassRate_32BTrained": Value("float64"), "PassRate_7BBase": Value("float64"),
        },
        good=lambda n: {
            "question": f"<image>What is {n}?" if n % 2 else f"<image><image>What is {n}?", "answer": f"\\boxed{{{n}}}",
            "category": "c", "source": "s", "qid": str(n),
            "image": [f"images/{n}.png", *([] if n % 2 else [f"images/{100 + n}.png"])],
            "PassRate_32BTrained": 0.5, "PassRate_7BBase": 0.5,
        },
        truth=lambda n: ("contextrl/math/virl39k", f"\\boxed{{{n}}}", f"\\boxed{{{n + 1}}}"),
        bad={"no such file": {"image": ["images/none.png"]}, "path leaves the folder": {"image": ["../0.png"]}},
    ),
    "chartqa": Example(
        features={
            "image": IMAGE, "query": TEXT, "label": TEXTS, "human_or_machine": ClassLabel(names=["human", "machine"]),
        },
        good=lambda n: {
            "image": shown(n), "query": f"What is the value of {n}?", "label": [f"{n + 100}.5%"], "human_or_machine": 1,
        },
        truth=lambda n: ("contextrl/vqa/chartqa", f"<answer>{n + 103}</answer>", f"<answer>{n + 120}</answer>"),
        bad={
            "answer is a list": {"label": ["a", "b"]},
            "the answer has more than 6 words": {"label": ["one two three four five six seven"]},
        },
        splits={"train": range(12), "val": range(50, 53), "test": range(90, 92)},
    ),
    "dvqa": Example(
        features={"images": List(IMAGE), "texts": List({"user": TEXT, "assistant": TEXT, "source": TEXT})},
        good=lambda n: {
            "images": [shown(n)],
            "texts": [{"user": f"How many bars are in {n}?", "assistant": f"{n}.", "source": "DVQA"}],
        },
        truth=lambda n: ("contextrl/vqa/dvqa", f"<answer>{n}</answer>", f"<answer>{n + 1}</answer>"),
        bad={"no question": {"texts": [{"user": " ", "assistant": "4.", "source": "DVQA"}]}},
    ),
    "scienceqa": Example(
        features={
            "image": IMAGE, "question": TEXT, "choices": TEXTS, "answer": Value("int8"), "hint": TEXT, "task": TEXT,
            "grade": TEXT, "subject": TEXT, "topic": TEXT, "category": TEXT, "skill": TEXT, "lecture": TEXT,
            "solution": TEXT,
        },
        good=lambda n: {
            "image": shown(n), "question": f"Which is {n}?", "choices": ["this", "that", "those"], "answer": n % 3,
            "hint": f"Look at {n}.", **dict.fromkeys(("task", "grade", "subject", "topic", "category", "skill"), "t"),
            "lecture": "l", "solution": "s",
        },
        truth=lambda n: (
            "contextrl/multiple_choice/scienceqa", f"<answer>{'ABC'[n % 3]}</answer>",
            f"<answer>{'BCA'[n % 3]}</answer>",
        ),
        bad={
            "no picture": {"image": None},
            "the right choice is there twice": {"choices": ["this", "this"], "answer": 0},
            "the answer is none of the choices": {"answer": 3},
        },
        splits=_OWN,
    ),
    "m3cot": Example(
        features={
            "id": TEXT, "category": TEXT, "image_id": TEXT, "question": TEXT, "choices": TEXTS, "context": TEXT,
            "answer": TEXT, "rationale": TEXT, "split": TEXT, "image": IMAGE, "domain": TEXT, "topic": TEXT,
        },
        good=lambda n: {
            "id": str(n), "category": "c", "image_id": str(n), "question": f"Which is {n}?", "choices": ["p", "q"],
            "context": "", "answer": "AB"[n % 2], "rationale": "r", "split": "train", "image": shown(n), "domain": "d",
            "topic": "t",
        },
        truth=lambda n: (
            "contextrl/multiple_choice/m3cot", f"<answer>{'AB'[n % 2]}</answer>", f"<answer>{'BA'[n % 2]}</answer>"
        ),
        bad={"fewer than 2 choices, or more than 26": {"choices": ["p"], "answer": "A"}},
        splits=_OWN,
    ),
    "swe_smith": Example(
        features={
            "instance_id": TEXT, "patch": TEXT, "FAIL_TO_PASS": TEXTS, "PASS_TO_PASS": TEXTS, "image_name": TEXT,
            "repo": TEXT, "problem_statement": TEXT,
        },
        good=_smith,
        truth=lambda n: ("contextrl/question_answering/swe_smith", f"```diff\n{fix(n)}```", f"```diff\n{bug(n)}```"),
        bad={**_ISSUE_TRUTH, "the patch cannot be read": {"patch": bug(0).replace("-1,3 +1,3", "-1,9 +1,9")}},
    ),
    "swe_gym": Example(
        features={name: TEXT for name in _issue(0) if name != "environment_setup_commit"} | {
            "FAIL_TO_PASS": TEXTS, "PASS_TO_PASS": TEXTS,
        },
        good=lambda n: {name: value for name, value in _issue(n).items() if name != "environment_setup_commit"}
        | {name: json.loads(_issue(n)[name]) for name in ("FAIL_TO_PASS", "PASS_TO_PASS")},
        truth=lambda n: ("contextrl/question_answering/swe_gym", f"```diff\n{fix(n)}```", f"```diff\n{bug(n)}```"),
        bad={**_ISSUE_TRUTH, "the patch cannot be read": {"patch": "only words"}},
    ),
    "swe_bench": Example(
        features={name: TEXT for name in _issue(0)},
        good=_issue,
        truth=lambda n: ("contextrl/question_answering/swe_bench", f"```diff\n{fix(n)}```", f"```diff\n{bug(n)}```"),
        bad={**_ISSUE_TRUTH, "the tests are no list of names": {"FAIL_TO_PASS": "tests: a"}},
        splits={"dev": range(50, 53), "train": range(12), "test": range(90, 92)},
    ),
}  # fmt: skip
