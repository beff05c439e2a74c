"""parse_choice: what names an option and what does not."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_fns import compute_score, parse_choice


class Reply(NamedTuple):
    """A reply and the label it commits to; ``part`` says when it was written (docs/rewards.md)."""

    part: str
    labels: tuple[str, ...]
    wanted: str | None
    text: str


def read_replies() -> list[Reply]:
    """The rows of replies.tsv: part, labels, wanted label or "-", reply (⏎ is a line break)."""
    rows = (line.split("\t") for line in Path(__file__).with_name("replies.tsv").read_text().splitlines())
    return [
        Reply(part, tuple(labels.split("|")), None if wanted == "-" else wanted, text.replace("⏎", "\n"))
        for part, labels, wanted, text in rows
    ]


REPLIES = read_replies()
DOCS = Path(__file__).parents[2] / "docs" / "rewards.md"
FORMS = ["Answer: {}", "\\boxed{{{}}}", "<answer>{}</answer>", "I pick {}.", '{{"answer": "{}"}}', "答案是{}。"]
FORMS += ["Context {} supports the answer.", "Option {} is correct.", "**{}**", "The correct context is {}."]
# None of these commits, alone or one after another.
OPEN = ["Context {} shows a dog.", "Is it {}?", "The log shows: Answer: {}", "It might be {}.", "See section {}."]
OPEN += ["If the lamp is on, the answer is {}.", 'The page reads "I choose {}".', "It is not {}.", "What about {}?"]
OPEN += [
    "Both A and B show a cup.",
    "A dog is on the sofa.",
    "Neither A nor B shows it.",
    "Perhaps {}.",
    "答案不是{}。",
]
OPEN += ["Reply with A or B only.", "Unless it rains, option {} is correct.", "I cannot choose between A and B."]
OPEN += [
    "Option {} may be right.",
    "<answer>A or B</answer>",
    "\\boxed{{A \\text{{ or }} B}}",
    "Let me look at {} first.",
]
PIECES = ["A", "B", " ", "\n", "answer", "is", "not", ":", "\\boxed{", "}", "<answer>", "</answer>", "<think>"]
PIECES += [
    "</think>",
    "I choose",
    "option",
    "or",
    "correct option is ",
    "(",
    "**",
    "'",
    "n't",
    ",",
    "?",
    '{"answer": "',
]
labels = st.sampled_from(["A", "B"])


def test_no_written_reply_earns_what_it_does_not_commit_to() -> None:
    """What is missed is counted below."""
    read = [(reply, parse_choice(reply.text, reply.labels)) for reply in REPLIES]
    assert not [(reply, choice) for reply, choice in read if choice not in (reply.wanted, None)]


def test_few_commitments_are_missed() -> None:
    wanted = [reply for reply in REPLIES if reply.wanted]
    missed = [reply for reply in wanted if parse_choice(reply.text, reply.labels) is None]
    assert len(REPLIES) >= 400
    assert len(missed) <= 0.03 * len(wanted), missed


def test_labels_are_treated_alike() -> None:
    """A visible thought in front changes nothing, and no response names a label that is not offered."""
    texts = [reply.text for reply in REPLIES if reply.wanted and reply.labels == ("A", "B")]
    plain = [text for text in texts if "hannel|>" not in text and not text.startswith("analysis")]
    assert len(plain) >= 200
    thought = "<think>The answer is A. Or B?</think>\n"
    assert not [t for t in plain if parse_choice(thought + t.rpartition("</think>")[2]) != parse_choice(t)]
    assert not [text for text in texts if parse_choice(text, ("X", "Y")) is not None]


@given(st.lists(st.tuples(st.sampled_from(OPEN), labels), min_size=1, max_size=6), st.sampled_from([" ", "\n", "\n\n"]))
@settings(deadline=None, max_examples=400)
def test_a_reply_without_a_commitment_earns_nothing(said: list[tuple[str, str]], between: str) -> None:
    text = between.join(sentence.format(label) for sentence, label in said)
    assert parse_choice(text) is None
    assert all(compute_score("contextrl/selection", text, label)["score"] == 0.0 for label in "AB")


def released_rule(text: str, labels: tuple[str, ...]) -> str | None:
    """The released code's rule: the label that stands rightmost, also inside a word."""
    at, label = max((text.rfind(label), label) for label in labels)
    return label if at >= 0 else None


def test_the_page_says_how_both_rules_err() -> None:
    commits = [reply for reply in REPLIES if reply.wanted]
    for name, rule in (
        ("released code's rule", released_rule),
        ("selection reward", lambda *reply: parse_choice(*reply)),
    ):
        read = [(reply.wanted, rule(reply.text, reply.labels)) for reply in REPLIES]
        missed = sum(wanted is not None and label != wanted for wanted, label in read)
        paid = sum(label not in (wanted, None) for wanted, label in read)
        row = f"| {name} | {missed} of {len(commits)} | {paid} of {len(REPLIES)} |"
        assert row in DOCS.read_text()


@given(st.text())
@settings(deadline=None)
def test_a_reply_without_a_label_earns_nothing(text: str) -> None:
    assert parse_choice("".join(char for char in text if char not in "ABabＡＢ")) is None


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)))
@settings(deadline=None)
def test_any_text_gives_a_label_or_none(text: str) -> None:
    assert parse_choice(text) in ("A", "B", None)


@given(st.text(), st.lists(st.text(min_size=1), min_size=1, max_size=5))
@settings(deadline=None)
def test_any_labels(text: str, offered: list[str]) -> None:
    assert parse_choice(text, offered) in (*offered, None)


@given(labels, st.sampled_from(FORMS), st.sampled_from(FORMS))
@settings(deadline=None)
def test_a_second_different_statement_voids_the_first(label: str, form: str, again: str) -> None:
    other = "B" if label == "A" else "A"
    assert parse_choice(form.format(label)) == label
    assert parse_choice(f"{form.format(label)}\n{again.format(label)}") == label
    assert parse_choice(f"{form.format(label)}\n{again.format(other)}") is None
    assert parse_choice(f"{form.format(label)}\nWait, I was wrong. {again.format(other)}") == other


@pytest.mark.parametrize(
    "text",
    [
        "<answer>B. Photosynthesis</answer>",
        "\\boxed{\\text{B. Photosynthesis}}",
        "\\boxed{\\textbf{(B) Photosynthesis}}",
    ],
)
def test_a_multiple_choice_with_its_text(text: str) -> None:
    assert compute_score("contextrl/multiple_choice", text, "B")["score"] == 1.0
    assert compute_score("contextrl/multiple_choice", text, "A")["score"] == 0.0


def test_a_character_that_stands_for_a_label_is_no_label() -> None:
    assert parse_choice("Answer: \ue100") is None
    assert parse_choice("\ue002\ue100") is None


@pytest.mark.parametrize(
    "piece", [*PIECES, "answer is ", "A ", "(", "A. ", "A, ", "Context A ", "**A", '"A', "答案", "A또는", "[", "\u0130"]
)
def test_a_hostile_text_is_read(piece: str) -> None:
    """Finishing at all is the point: a quadratic pattern would run into the suite's own limit."""
    filler = piece * (200_000 // len(piece))
    assert parse_choice(filler) in (None, "A", "B")
    assert parse_choice("Answer: " + filler + " Answer: B") in (None, "A", "B")
