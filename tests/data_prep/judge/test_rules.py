from __future__ import annotations

import pytest
from judged_pairs import couple

from contextrl_verl.pairs import Context, ContrastivePair, ImageRef
from data_prep.common.funnel import Funnel
from data_prep.verify.rules import (
    RuleSettings,
    context_digest,
    couple_of,
    distinctive_lines,
    dropped_by_rules,
    facts_of,
)
from data_prep.verify.write import verify

SETTINGS = RuleSettings()
PNG = b"\x89PNG\r\n\x1a\n"


def text(supporting: str, confounder: str, answer: str = "42", query: str = "what?", pair_id="t") -> ContrastivePair:
    contexts = [Context(kind="text", text=content) for content in (supporting, confounder)]
    return ContrastivePair(
        pair_id=pair_id, domain="d", query=query, answer=answer, supporting=contexts[0], confounders=contexts[1:]
    )


def images(*groups, **changes) -> ContrastivePair:
    contexts = [Context(kind="images", images=[ImageRef(**image) for image in group]) for group in groups]
    return ContrastivePair(
        pair_id="i", domain="d", query="how many?", answer="2", supporting=contexts[0], confounders=contexts[1:]
    ).model_copy(update=changes)


PATCH = "--- a/x\n+++ b/x\n@@ -1,2 +1,3 @@\n same line of old text\n-gone = compute(a)\n+fresh = compute_all(a, b)\n"
SHOWN = PATCH.replace("-1,2 +1,3", "...")


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (text("the log says 41 or so", "the log says 42 or so"), None),
        (text("<PATCH_MASKED>\n [... 1,200 characters left out ...]", "words"), "empty context"),
        (text("one  two\n", "one two"), "identical contexts"),
        (text("a" * 10, "b" * 21), "length ratio of the contexts"),
        (text("a" * 10, "b" * 20), None),
        (text("some words", "more words", answer=" "), "blank question or answer"),
        (text("some words", "more words", answer="x\n<PATCH_MASKED>"), "the answer holds a mask"),
        (text("some words", "more words", answer="what?"), "the answer is the question"),
        (
            text("I wrote fresh = compute_all(a, b) there", "nothing is here but some words", PATCH),
            "an added line of the patch shows in the supporting context",
        ),
        (
            text("nothing is here but some words", "I wrote fresh = compute_all(a, b) there", PATCH),
            "an added line of the patch shows in a confounder",
        ),
        (
            text("nothing is here but some words", "I wrote fresh = compute_all(a, b) there", SHOWN),
            "an added line of the patch shows in a confounder",
        ),
        (text("gone = compute(a), same line of old text", "nothing is here but some words", PATCH), None),
        (images([{"bytes": PNG + b"1"}], [{"bytes": PNG + b"2"}]), None),
        (images([{"bytes": PNG}], [{"bytes": b""}]), "empty image"),
        (images([{"bytes": PNG, "path": "a"}], [{"bytes": PNG, "path": "b"}]), "identical contexts"),
        (images([{"bytes": PNG}], [{"bytes": PNG}, {"bytes": PNG}]), "contexts with different numbers of images"),
        (images([{"path": "/nowhere/a.png"}], [{"bytes": PNG}]), "image file missing"),
    ],
)
def test_each_rule_gives_its_reason_or_none(pair, reason):
    assert facts_of(pair, SETTINGS).reason == reason


def test_the_ratio_of_lengths_is_a_setting():
    assert facts_of(text("a" * 10, "b" * 21), RuleSettings(length_ratio=2.1)).reason is None
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        RuleSettings(length_ratio=0.5)


def test_distinctive_lines_leave_out_what_the_old_file_shows():
    patch = (
        "@@ -1 +1 @@\n-    moved_line(number)\n+moved_line(number)\n+)))))))))))))))))))))))\n+brand_new_line(number)\n"
    )
    assert distinctive_lines(patch) == {"brand_new_line(number)"}


def test_an_n_way_pair_is_looked_at_as_a_whole():
    contexts = [Context(kind="text", text=t) for t in ("word one", "word two", "word  two")]
    pair = ContrastivePair(
        pair_id="n", domain="d", query="q", answer="a", supporting=contexts[0], confounders=contexts[1:]
    )
    assert facts_of(pair, SETTINGS).reason == "identical contexts"


def test_a_couple_is_known_by_its_contexts_alone():
    one, other = couple(0)
    assert couple_of(one) == couple_of(other) != couple_of(couple(1)[0])
    assert context_digest(one.supporting) == context_digest(other.confounders[0])


def test_rules_between_pairs():
    one, other = couple(0)
    alone, _ = couple(1)
    copy = one.model_copy(update={"pair_id": "copy"})
    clash = other.model_copy(update={"pair_id": "clash", "query": one.query, "answer": one.answer})
    good = couple(2)

    def reasons(pairs):
        return dropped_by_rules([facts_of(pair, SETTINGS) for pair in pairs])

    assert reasons([*good, alone]) == {alone.pair_id: "a direction is missing"}
    assert reasons([one, other, copy]) == {"copy": "duplicate"}
    assert set(reasons([one, other, clash])) == {one.pair_id, "clash"}


def test_a_couple_falls_as_a_whole_and_the_counts_add_up():
    one, other = couple(0)
    leaky = one.model_copy(update={"answer": "@@ -1,1 +1,1 @@\n+look at part 0.0 word word word\n"})
    copy = couple(2)[0].model_copy(update={"pair_id": "copy"})
    pairs = [leaky, other, *couple(1), *couple(2), copy]
    funnel = Funnel()
    result = verify(pairs, funnel=funnel)
    funnel.check()
    assert [d.kept for d in result.decisions] == [False, False, True, True, True, True, False]
    assert [p.pair_id for p in result.kept(pairs)] == ["c1-0", "c1-1", "c2-0", "c2-1"]
    assert funnel.stage("rules").summary() == {
        "name": "rules",
        "unit": "pairs",
        "in": 7,
        "out": 4,
        "dropped": {
            "an added line of the patch shows in the supporting context": 1,
            "another direction is dropped": 1,
            "duplicate": 1,
        },
    }
