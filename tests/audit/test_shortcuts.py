"""Planted shortcuts are found, and by the group that names them."""

import pytest
from audit.planted import add_text, couples, run_messages, size, words

pytest.importorskip("sklearn")

from contextrl_verl.pairs import Context, Message
from data_prep.audit import run, table
from data_prep.audit.features import FeatureGroup
from data_prep.audit.result import conclusion
from data_prep.audit.run import audit


def longer(rng, contexts, row, answer):
    """The supporting context is made 5 % longer than the other."""
    target = int(1.05 * size(contexts[1]))
    if size(contexts[0]) > target:
        contexts[1] = add_text(contexts[1], " " + words(rng, size(contexts[0]))[: int(size(contexts[0]) / 1.05)])
        contexts[1] = cut(contexts[1], int(size(contexts[0]) / 1.05))
        return contexts
    contexts[0] = add_text(contexts[0], " " + words(rng, target))
    contexts[0] = cut(contexts[0], target)
    return contexts


def cut(context, length):
    changed = context.model_copy(deep=True)
    for message in reversed(changed.messages):
        over = size(changed) - length
        if over > 0:
            message.content = message.content[: max(0, len(message.content) - over)]
    return changed


def masked_once_more(rng, contexts, row, answer):
    return [add_text(contexts[0], " <PATCH_MASKED>"), *(add_text(c, " " + words(rng, 3)) for c in contexts[1:])]


def tic(rng, contexts, row, answer):
    """The supporting context ends without a full stop, as if cut by another tool."""
    return [add_text(contexts[0], "\n"), *(add_text(c, ".") for c in contexts[1:])]


def word(rng, contexts, row, answer):
    return [add_text(contexts[0], " aha"), *(add_text(c, " oho") for c in contexts[1:])]


def another_turn(rng, contexts, row, answer):
    extra = contexts[0].model_copy(deep=True)
    extra.messages += run_messages(rng, "")[:8]
    return [extra, *contexts[1:]]


def failed(rng, contexts, row, answer):
    return [add_text(contexts[0], " <returncode>0</returncode>"), add_text(contexts[1], " <returncode>1</returncode>")]


@pytest.mark.parametrize(
    ("plant", "group"),
    [
        (longer, "lengths"),
        (masked_once_more, "masks"),
        (tic, "formatting"),
        (word, "context alone"),
        (another_turn, "turns"),
        (failed, "outcome"),
    ],
)
def test_a_tell_of_the_supporting_context_is_found(plant, group):
    result = audit(couples(100, 1, plant=plant), repeats=1, groups=[group], evidence=False)
    row = result.row(group)
    assert row.verdict == "shortcut", row
    assert row.accuracy > 0.7
    assert not result.passed
    assert not result.all_contain_chance


def ordered(choose):
    """The supporting context is the longer one where ``choose(row, answer)``, the shorter one elsewhere."""

    def plant(rng, contexts, row, answer):
        first, second = sorted(contexts, key=size)
        # Texts of equal length would make no order.
        second = add_text(second, " x")
        return [second, first] if choose(row, answer) else [first, second]

    return plant


def test_parity_of_the_row_is_found():
    pairs = couples(120, 2, plant=ordered(lambda row, answer: row % 2 == 0), directions=False)
    result = audit(pairs, groups=["position", "lengths"], repeats=1, evidence=False)
    assert result.row("position").verdict == "shortcut"
    assert result.row("lengths").verdict != "shortcut"


def test_long_answers_of_long_runs_are_found_though_both_directions_are_there():
    def plant(rng, contexts, row, answer):
        return ordered(lambda row, answer: len(answer.split()) > 15)(rng, contexts, row, answer)

    result = audit(couples(150, 3, plant=plant), groups=["lengths", "lengths x answer"], repeats=1, evidence=False)
    assert result.row("lengths x answer").verdict == "shortcut"
    assert result.row("lengths").verdict == "at chance"


def test_a_word_of_the_answer_that_goes_with_the_longer_context_is_found():
    plant = ordered(lambda row, answer: answer < "m")
    pairs = [
        pair.model_copy(update={"answer": "yes indeed" if pair.answer < "m" else "not really"})
        for pair in couples(150, 4, plant=plant)
    ]
    result = audit(pairs, groups=["answer alone", "context alone"], repeats=1, evidence=False)
    assert result.row("answer alone").verdict == "shortcut"
    assert result.row("context alone").verdict == "at chance"


def hub(rng, couple):
    """Ten well-known runs are always the wrong ones."""
    return [f"run-{couple}", f"famous-{rng.randrange(10)}"]


@pytest.mark.parametrize("both", [False, True])
def test_identity_shows_when_directions_are_one_sided(both):
    pairs = list(couples(100, 5, runs=hub, directions=both))
    result = audit(pairs, groups=["identity"], repeats=1, evidence=False)
    found = result.domains[0].directions
    assert result.row("identity").verdict == ("at chance" if both else "shortcut")
    assert (found.both, found.balanced) == ((1, 1) if both else (0, 0))
    assert bool(found.one_sided) != both
    assert any("not equally often right" in note for note in result.notes) != both


@pytest.mark.parametrize("contexts", [3, 4])
def test_more_than_two_contexts(contexts):
    limit = 1 / contexts + 0.1 * (1 - 1 / contexts)
    clean = audit(couples(60, 6, contexts=contexts), groups=["masks", "context alone"], repeats=1, evidence=False)
    for row in clean.rows:
        assert row.chance == pytest.approx(1 / contexts)
        assert row.limit == pytest.approx(limit)
        assert row.accuracy == pytest.approx(1 / contexts)
        assert row.verdict == "at chance"
    planted = couples(60, 6, contexts=contexts, plant=masked_once_more)
    result = audit(planted, groups=["masks"], repeats=1, evidence=False)
    assert result.row("masks").verdict == "shortcut"


def test_pairs_of_two_and_of_three_contexts_together():
    pairs = [*couples(40, 7), *(p.model_copy(update={"pair_id": f"n{p.pair_id}"}) for p in couples(40, 8, contexts=3))]
    row = audit(pairs, groups=["lengths"], repeats=1, evidence=False).row("lengths")
    assert row.chance == pytest.approx((80 / 2 + 120 / 3) / 200)
    assert row.verdict == "at chance"


def test_plain_text():
    result = audit(couples(80, 9, kind="text", plant=masked_once_more), groups=["masks", "turns"], repeats=1)
    assert result.row("masks").verdict == "shortcut"


def test_equal_numbers_are_not_a_test():
    def no_columns(view):
        return [[1.0]] * len(view.contexts)

    constant = FeatureGroup("constant", "always one", columns=no_columns)
    result = audit(couples(30, 10), groups=[constant, "lengths"], repeats=1, evidence=False)
    assert result.row("constant").verdict == "all equal"
    assert result.tests == 2
    assert result.all_contain_chance


def test_domains_are_audited_apart():
    """A shortcut in a third of the pairs is not watered down by the others."""
    clean = list(couples(100, 11, domain="clean"))
    bad = list(couples(60, 12, domain="bad", plant=masked_once_more))
    few = list(couples(5, 13, domain="few"))
    result = audit([*clean, *bad, *few], groups=["masks"], repeats=1, evidence=False)
    assert {row.domain: row.verdict for row in result.rows} == {"bad": "shortcut", "clean": "at chance"}
    assert any("'few' was not audited" in note for note in result.notes)


def test_kinds_of_pairs_are_audited_apart():
    clean, bad, few = (
        [pair.model_copy(update={"provenance": {**pair.provenance, "kind": kind}, "domain": "runs"}) for pair in made]
        for kind, made in (
            ("same", couples(60, 11, domain="a")),
            ("related", couples(60, 12, domain="b", plant=masked_once_more)),
            ("any", couples(5, 13, domain="c")),
        )
    )
    result = audit([*clean, *bad, *few], groups=["masks"], repeats=1)
    found = {row.domain: row.verdict for row in result.rows if row.group == "masks"}
    assert found == {"runs, related": "shortcut", "runs, same": "at chance"}
    assert any("'runs, any' was not audited" in note for note in result.notes)
    # A file of one kind is called by its domain.
    assert {row.domain for row in audit(clean, groups=["masks"], repeats=1).rows} == {"runs"}


def test_processes_change_nothing(monkeypatch):
    """With so many pairs that some are read, and all groups tried, by other processes; a sample of them is kept."""
    for module in (table, run):
        monkeypatch.setattr(module, "ALONE", 60)
    pairs = list(couples(100, 16))
    alone, together = (
        audit(pairs, groups=["lengths", "masks", "identity"], repeats=1, max_pairs=170, workers=workers)
        for workers in (1, 2)
    )
    assert alone == together
    assert together.audited < together.pairs == 200


def task_of_the_answer(rng, contexts, row, answer):
    """The first message of a user in the supporting run says what the answer says."""
    first = Message(role="user", content=answer)
    other = Message(role="user", content="the task of another run")
    return [
        context.model_copy(update={"messages": [given, *context.messages]})
        for context, given in zip(contexts, [first, other], strict=True)
    ]


def test_words_that_tell_most_pairs_are_warned_of():
    easy = audit(couples(60, 14), groups=["lengths"], repeats=1)
    (row,) = easy.by_words
    assert row.accuracy > 0.8
    (warning,) = [line for line in conclusion(easy) if line.startswith("Warning: ")]
    assert f"{row.accuracy:.1%}" in warning
    assert "--issue same" in warning
    assert easy.passed, "a warning, no failure"
    hard = couples(60, 14, plant=lambda rng, contexts, row, answer: [contexts[1], contexts[0]][:: rng.choice([1, -1])])
    result = audit(hard, groups=["lengths"], repeats=1)
    assert result.by_words == []
    assert not any(line.startswith("Warning") for line in conclusion(result))


def test_a_task_that_gives_the_answer_away_shows_by_itself():
    result = audit(couples(40, 17, plant=task_of_the_answer), groups=["lengths"], repeats=1)
    assert result.row("overlap: opening").accuracy == 1
    assert result.row("overlap: ending").accuracy < 0.8


def test_numbers_of_the_answer_are_a_baseline():
    plain = list(couples(40, 18))
    for shown, expected in ((4711, 1.0), (47110, 0.5)):
        pairs = [
            pair.model_copy(
                update={"answer": f"{pair.answer} 4711", "supporting": add_text(pair.supporting, f"\nline {shown}:")}
            )
            for pair in plain
        ]
        row = audit(pairs, groups=["lengths"], repeats=1).row("overlap: numbers")
        assert row.accuracy == expected


def test_evidence_is_reported_and_fails_only_on_request():
    pairs = list(couples(60, 14))
    free = audit(pairs, groups=["lengths"], repeats=1)
    row = free.row("overlap: tf-idf")
    assert row.verdict == "evidence"
    assert row.accuracy > 0.8, "the answer's number stands in the supporting run"
    assert free.passed
    strict = audit(pairs, groups=["lengths"], repeats=1, evidence_threshold=0.7)
    assert "overlap: tf-idf" in [row.group for row in strict.shortcuts]
    # A row that sees evidence never counts against "nothing tells without evidence".
    assert strict.all_contain_chance


def test_contexts_are_told_apart_by_content_not_by_object():
    """Equal content in two directions is recognised when read from a file anew."""
    pairs = [type(p).model_validate(p.to_row()) for p in couples(40, 15)]
    assert all(isinstance(p.supporting, Context) for p in pairs)
    assert audit(pairs, groups=["lengths"], repeats=1).domains[0].directions.same_contexts == 1
