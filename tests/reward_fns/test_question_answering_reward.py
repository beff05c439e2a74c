"""The reward of a pair as an ordinary question: short answers, and patches by their changed lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_fns import RewardConfigError, compute_score

PATCH = """--- a/x.py
+++ b/x.py
@@ -1,3 +1,3 @@
 def f(a):
-    return a
+    return a + 1
+    # done
"""


def score(response, truth=PATCH, source="contextrl/question_answering/trajectory"):
    return compute_score(source, response, truth, {})


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (PATCH, 1.0),
        (f"Here it is:\n```diff\n{PATCH}```\nDone.", 1.0),
        ("@@ -9,1 +9,2 @@\n-  return a\n+ return a + 1\n+# done", 1.0),
        ("```diff\n+    return a + 1\n```", 2 * 1 / (3 + 1)),
        ("```\n-    return a\n+    return b\n```", 2 * 1 / (3 + 2)),
        ("```\nold\n```\nthen\n```diff\n-    return a\n+    return a + 1\n+    # done\n```", 1.0),
        ("```diff\n-    return a\n+    return a + 1\n+    # done", 1.0),
        (f"```diff\n{PATCH}```\nTo test it:\n```bash\npytest -q\n```", 1.0),
        (f"```diff\n{PATCH}```\nNotes:\n```\n- one\n- two\n```", 1.0),
        (f"- I changed one line.\n<answer>\n{PATCH}</answer>", 1.0),
        (f"<ANSWER>```diff\n{PATCH}```</ANSWER>", 1.0),
        (f"[THINK]```diff\n-x\n```[/THINK]{PATCH}", 1.0),
        ("the patch adds one", 0.0),
        ("", 0.0),
        ("<think>" + PATCH, 0.0),
        ("    return a + 1", 0.0),
    ],
)
def test_a_patch_is_scored_by_its_changed_lines(response, expected):
    found = score(response)
    assert found["score"] == pytest.approx(expected)
    assert found["acc"] == float(expected == 1.0)


def test_a_changed_comment_of_two_signs_is_no_file_name():
    truth = "--- a/q.sql\n+++ b/q.sql\n@@ -1,2 +1,2 @@\n--- old rule\n select 1\n+-- new rule\n"
    assert score(truth, truth)["score"] == 1.0
    assert score("--- old rule", truth)["score"] == pytest.approx(2 / 3)
    assert score("--- a/q.sql\n+++ b/q.sql\n", truth)["score"] == 0.0


def test_a_reference_without_line_numbers_is_a_patch_too():
    truth = PATCH.replace("@@ -1,3 +1,3 @@", "@@ ... @@ class A:")
    assert score(PATCH, truth)["score"] == score(truth, PATCH)["score"] == score(truth, truth)["score"] == 1.0
    assert score("+    return a + 1", truth)["score"] == pytest.approx(1 / 2)


def test_repeating_a_line_earns_nothing_more():
    once = score("+    return a + 1")["score"]
    assert score("\n".join(["+    return a + 1"] * 9))["score"] < once


@pytest.mark.parametrize(
    ("response", "truth", "expected"),
    [("<answer>a circle</answer>", "circle", 1.0), ("it is a square", "circle", 0.0), ("yes.", "Yes", 1.0)],
)
def test_short_answers_are_compared_as_answers(response, truth, expected):
    assert score(response, truth, "contextrl/question_answering/image")["score"] == expected


def test_a_patch_that_changes_nothing_is_the_data_s_fault():
    with pytest.raises(RewardConfigError, match="changes no line"):
        score("x", "@@ -1,1 +1,1 @@\n same\n")


@given(st.text(max_size=400))
def test_any_response_has_a_score_between_zero_and_one(response):
    assert 0.0 <= score(response)["score"] <= 1.0


lines = st.lists(st.sampled_from(["+a", "-b", "+c d", " e", "-f"]), min_size=1, max_size=12)


@given(lines, lines)
def test_the_score_is_symmetric_and_full_only_for_the_same_changes(one, other):
    from reward_fns.question_answering import changed_lines

    first, second = ("@@ -1,9 +1,9 @@\n" + "\n".join(part) for part in (one, other))
    if changed_lines(first) and changed_lines(second):
        there, back = score(first, second)["score"], score(second, first)["score"]
        assert there == pytest.approx(back)
        assert (there == 1.0) == (changed_lines(first) == changed_lines(second))
