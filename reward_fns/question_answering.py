r"""Pairs as ordinary questions (the arm da_qca): a short answer is right or wrong, a patch is right in part.

A patch is compared by its changed lines: the harmonic mean of the share of the response's changed lines that are in
the reference and of the reference's that are in the response, each line as often as it stands there, blanks at its ends
apart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from reward_fns.final_answer import find_marks, strip_thinking
from reward_fns.registry import RewardConfigError, reward
from reward_fns.short_answer import score_vqa
from reward_fns.text import require_str

# As git writes it, or without its numbers.
_HUNK = re.compile(r"^@@ (?:-\d+(?:,\d+)? \+\d+(?:,\d+)?|\.\.\.) @@", re.M)
_FENCE = re.compile(r"^[ \t]*```[^\n`]{0,20}$", re.M)
# Two lines together; one alone is a change of a line that begins with two signs, such as a comment in SQL.
_FILE_LINES = re.compile(r"^--- .*\n\+\+\+ .*$", re.M)
_PARSED_CHARS = 200


@reward("contextrl/question_answering*")
def score_question_answering(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **_: Any
) -> dict[str, Any]:
    """Score one response from 0 to 1; ``acc`` is 1 for a full score only.

    ``ground_truth`` is the pair's answer: a unified diff, or anything that ``score_vqa`` compares. Raises
    RewardConfigError when it is no text, or a diff that changes nothing.
    """
    reference = require_str(ground_truth, "question-answering")
    if not _HUNK.search(reference):
        return score_vqa(data_source, solution_str, reference, extra_info)
    wanted = changed_lines(reference)
    if not wanted:
        raise RewardConfigError(f"The question-answering reward's ground_truth {reference[:80]!r} changes no line.")
    patch = patch_in(strip_thinking(solution_str) or "")
    written = changed_lines(patch)
    common = (wanted & written).total()
    score = 2 * common / (wanted.total() + written.total())
    return {"score": score, "acc": float(score == 1.0), "parsed": patch[:_PARSED_CHARS]}


def patch_in(text: str) -> str:
    """The last block of a response that holds changed lines, those of a diff first; without one, all of it.

    A block is fenced, or the response's final answer.
    """
    fences = list(_FENCE.finditer(text))
    # An odd fence at the end opens a block that was cut.
    ends = [fence.start() for fence in fences[1::2]] + [len(text)] * (len(fences) % 2)
    blocks = [text[mark.start : mark.stop] if mark.content is None else mark.content for mark in find_marks(text)[-1:]]
    if len(fences) > 1:
        blocks += [text[fence.end() : end].strip("\n") for fence, end in zip(fences[::2], ends, strict=True)]
    changing = [block for block in blocks if changed_lines(block)]
    diffs = [block for block in changing if _HUNK.search(block)]
    return (diffs or changing or [text])[-1]


def changed_lines(patch: str) -> Counter[str]:
    """Added and removed lines of a diff with their signs, blanks at their ends apart; empty ones do not count."""
    lines = _FILE_LINES.sub("", patch).splitlines()
    return Counter(line[0] + line[1:].strip() for line in lines if line[:1] in ("+", "-") and line[1:].strip())
