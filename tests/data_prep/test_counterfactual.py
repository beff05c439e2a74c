"""Exchanged values: both contexts hold the same words, each supports one answer, and what is not understood is left."""

from collections import Counter

import pytest

from contextrl_verl.pairs import Message
from data_prep.audit.run import audit
from data_prep.common.funnel import Funnel
from data_prep.trajectories.counterfactual import pairs_of_run
from data_prep.trajectories.facts import facts_of
from data_prep.trajectories.run import AgentRun
from data_prep.verify.write import verify

TESTS = "Found {0} test(s).\n----\nRan {0} tests in {1}s\n\nOK"
DATA = TESTS.format(365, "0.227"), TESTS.format(412, "0.391")


def run_of(*steps, words="I see.", instance="acme__tools-1", issue="The cache is wrong."):
    """A run of (command, exit status, output); ``words`` are said before the last command."""
    messages = [Message(role="system", content="You fix issues."), Message(role="user", content=issue)]
    for number, (command, code, output) in enumerate(steps):
        said = words if number == len(steps) - 1 else "I go on."
        messages.append(Message(role="assistant", content=f"THOUGHT: {said}\n\n```bash\n{command}\n```"))
        shown = f"<returncode>{code}</returncode>\n<output>\n{output}\n</output>"
        messages.append(Message(role="user", content=shown))
    return AgentRun(instance_id=instance, repository="acme/tools", issue=issue, messages=tuple(messages), source="test")


def made(run, most=9, fit=lambda run, messages, lines: messages, seed=1):
    funnel = Funnel()
    pairs = pairs_of_run(run, fit, split="train", most=most, seed=seed, funnel=funnel)
    funnel.check()
    return pairs, funnel


def text(context):
    return "\n".join(message.content for message in context.messages)


def two_tests(**more):
    steps = [("python runtests.py cache", 0, DATA[0]), ("python runtests.py forms", 0, DATA[1]), ("ls", 0, "a.py")]
    return run_of(*steps, **more)


def test_two_values_change_places_wherever_they_show_and_nothing_else_changes():
    pairs, funnel = made(two_tests(words="All 412 tests pass, as the 365 tests did."))
    kinds = Counter(pair.provenance["what"] for pair in pairs)
    assert kinds == {"tests": 2, "seconds": 2}
    one, other = (pair for pair in pairs if pair.provenance["what"] == "tests")
    assert one.query == other.query
    assert {one.answer, other.answer} == {"365", "412"}
    assert one.supporting == other.confounders[0]
    assert other.supporting == one.confounders[0]
    asked, unasked = ("cache", "forms") if "runtests.py cache" in one.query else ("forms", "cache")
    for pair in (one, other):
        turns = [message.content for message in pair.supporting.messages]
        by_command = {command: turns[turns.index(turn) + 1] for turn in turns for command in ("cache", "forms")
                      if f"runtests.py {command}" in turn}  # fmt: skip
        missing = {"365": "412", "412": "365"}[pair.answer]
        assert by_command[asked].count(pair.answer) == 2
        assert missing not in by_command[asked]
        assert by_command[unasked].count(missing) == 2
        # The agent's words follow: what it says last of the second tests is their number.
        said = f"All {pair.answer if asked == 'forms' else missing} tests pass"
        assert said in turns[-2]
    swapped = text(one.supporting).replace("365", "#").replace("412", "365").replace("#", "412")
    assert swapped == text(one.confounders[0])
    assert funnel.stage("counterfactual", "exchanges").left == 2


def test_contexts_hold_the_same_words_and_the_rules_and_the_audit_pass():
    pairs = []
    for number in range(40):
        first, second = TESTS.format(301 + number, f"0.{227 + number}"), TESTS.format(412 + number, f"0.{591 + number}")
        steps = [("python runtests.py cache", 0, first), ("python runtests.py forms", 0, second), ("ls", 0, "a.py")]
        pairs += made(run_of(*steps, instance=f"acme__tools-{number}"))[0]
    assert len(pairs) == 160
    for pair in pairs:
        assert Counter(text(pair.supporting).split()) == Counter(text(pair.confounders[0]).split())
    assert all(decision.kept for decision in verify(pairs).decisions)
    result = audit(pairs, folds=2, repeats=1)
    assert result.passed
    overlap = {row.group: row.accuracy for row in result.rows if row.sees == "evidence"}
    assert set(overlap.values()) == {0.5}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"issue": "It fails for 365 keys."}, "shows where it is not understood"),
        ({"last": ("sed -n '365,370p' a.py", 0, "x")}, "stands in a command"),
        ({"last": ("cat a.py", 0, "   365\tdef load():")}, "shows where it is not understood"),
        ({"words": "The 365 tests of the cache pass."}, "no second value of its kind, make and place"),
    ],
)
def test_a_value_that_shows_elsewhere_is_left_alone(changed, reason):
    last = changed.pop("last", ("ls", 0, "a.py"))
    steps = [("python runtests.py cache", 0, DATA[0]), ("python runtests.py forms", 0, DATA[1]), last]
    pairs, funnel = made(run_of(*steps, **changed))
    assert {pair.provenance["what"] for pair in pairs} == {"seconds"}
    assert funnel.stage("counterfactual values").dropped[reason]


def test_values_of_another_form_are_not_exchanged():
    steps = [("python a.py", 0, "Size: 12345"), ("python b.py", 0, "Size: 678"), ("python c.py", 0, "Size: large")]
    assert made(run_of(*steps))[0] == []


def test_each_kind_of_fact_is_read_with_its_question():
    traceback = 'Traceback (most recent call last):\n  File "/lib/one.py", line 148, in load\n    x()\n'
    steps = [
        ("python a.py", 1, traceback + "KeyError: no such key"),
        ("python b.py", 2, "AssertionError: 'old' != 'new'"),
        ("pytest x", 0, "=== 3 failed, 116 passed in 1.2s ==="),
        ("cat conf.py", 0, "LIMIT = 300\nNAME = 'abc'"),
        ("grep -rn load .", 0, "./lib/two.py:77:def load():"),
        ("python a.py", 0, "Result: 42"),
    ]
    facts = {(fact.kind, fact.value): fact.question for fact in facts_of(run_of(*steps))}
    first = "The agent ran the command `python a.py` for the first time."
    assert facts["exit status", "1"] == f"{first} With which exit status did it end?"
    assert "line of /lib/one.py is load in the traceback" in facts["traceback", "148"]
    assert facts["error", "KeyError"].startswith(first)
    assert "left" in facts["assertion", "'old'"]
    assert "right" in facts["assertion", "'new'"]
    assert "as passed" in facts["counts", "116"]
    assert "as failed" in facts["counts", "3"]
    assert "LIMIT" in facts["constant", "300"]
    assert "NAME" in facts["constant", "'abc'"]
    assert "At which line of ./lib/two.py did it find `def load():`?" in facts["found", "77"]
    assert "for the second time. What stands behind `Result`" in facts["printed", "42"]
    assert ("exit status", "0") not in facts


def test_a_line_number_is_no_fact_to_ask_for_when_another_command_opens_the_file():
    traceback = 'File "/lib/one.py", line 148, in load\n  x()\nFile "/lib/two.py", line 163, in store\n  y()'
    steps = [("python a.py", 1, traceback), ("ls", 0, "b"), ("ls", 0, "c")]
    assert {pair.provenance["what"] for pair in made(run_of(*steps))[0]} == {"traceback"}
    opened = [*steps, ("sed -n '140,150p' lib/one.py", 0, "x()"), ("cat lib/two.py", 0, "y()")]
    assert made(run_of(*opened))[0] == []


def test_an_answer_that_the_output_gives_twice_is_not_asked_for():
    steps = [("python a.py", 0, "Size: 123\nSize: 456"), ("ls", 0, "b")]
    pairs, funnel = made(run_of(*steps))
    assert pairs == []
    assert funnel.stage("counterfactual values").dropped["no question has it as the only answer"] == 2


def test_an_exchange_that_changes_what_else_is_read_is_dropped():
    # What stands behind a file's name is also what a search found in the file.
    steps = [("grep -r limit", 0, "alpha.py: limit = [1, 2]\nbeta.py: limit = [3, 4]"), ("ls", 0, "b")]
    pairs, funnel = made(run_of(*steps))
    assert pairs == []
    reason = "the altered run reads differently in more than the two values"
    assert funnel.stage("counterfactual", "exchanges").dropped == {reason: 2}


def test_the_lines_that_must_stay_are_given_and_a_cut_that_loses_one_drops_the_exchange():
    asked = []

    def fit(run, messages, lines):
        asked.append(lines)
        return [message for message in messages if "412" not in message.content]

    pairs, funnel = made(two_tests(), fit=fit)
    assert pairs == []
    assert {"Ran 365 tests in 0.227s", "Ran 412 tests in 0.391s", "Found 365 test(s)."} <= set().union(*asked)
    assert any("python runtests.py" in line for line in set().union(*asked))
    assert funnel.stage("counterfactual", "exchanges").dropped == {
        "a value shows less often, or in a mark, once the run is cut": 2
    }
    nothing, funnel = made(two_tests(), fit=lambda *_: None)
    assert nothing == []
    assert funnel.stage("counterfactual", "exchanges").dropped == {"the values do not fit the token budget": 2}


def test_at_most_so_many_of_a_run_drawn_by_the_seed():
    pairs, funnel = made(two_tests(), most=1)
    assert len(pairs) == 2
    assert funnel.stage("counterfactual", "exchanges").dropped == {"more than are taken of one run": 1}
    assert made(two_tests(), most=1)[0] == pairs
    drawn = {(pair.provenance["what"], pair.query, pair.answer) for seed in range(40)
             for pair in made(two_tests(), most=1, seed=seed)[0][:1]}  # fmt: skip
    assert len(drawn) == 8  # kind, question, which answer comes first
