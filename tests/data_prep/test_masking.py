"""What masking takes out and what it leaves, on small runs, by properties, and on real runs by an independent check."""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from pathlib import Path

import leak_check
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.trajectories.actions import writes_of
from data_prep.trajectories.masking import mask_run, patch_lines
from data_prep.trajectories.readers import open_source
from data_prep.trajectories.run import PATCH_MASKED, AgentRun, Message

SHARED = Path(__file__).parents[3] / "shared" / "data" / "swebench_trajectories_dev.jsonl.xz"
SOURCE = Path(os.environ.get("CONTEXTRL_TRAJECTORIES", SHARED))

NEW = "    return self.read(limit, retries=3, strict=True)"
PATCH = f"""diff --git a/pkg/core/base.py b/pkg/core/base.py
index 1111111..2222222 100644
--- a/pkg/core/base.py
+++ b/pkg/core/base.py
@@ -10,4 +10,6 @@ class Reader:
 def load(self, limit):
     \"\"\"Load it all at once.\"\"\"
-    return self.read(limit)
+    if limit is None:
+        limit = self.default_limit()
+{NEW}
+    pass
"""
VIEW = "<returncode>0</returncode>\n<output>\n    10\tdef load(self, limit):\n    12\t    return self.read(limit)\n"


def run_of(*turns, patch=PATCH, issue="Loading is flaky"):
    roles = itertools.cycle(["assistant", "user"])
    messages = [Message(role="system", content="You are an agent."), Message(role="user", content=issue)]
    messages += [Message(role=next(roles), content=turn) for turn in turns]
    return AgentRun(instance_id="a__b-1", repository="a/b", issue=issue, messages=messages, patch=patch, source="test")


def shell(command, thought="Next."):
    return f"THOUGHT: {thought}\n\n```bash\n{command}\n```"


def output(text):
    return f"<returncode>0</returncode>\n<output>\n{text}\n</output>"


SED = shell(f"sed -i 's/    return self.read(limit)/{NEW}/' pkg/core/base.py")


def pairs_of(messages):
    return [(message.role, message.content) for message in messages]


def shown(run, *patches):
    return [message.content for message in mask_run(run, *patches).messages]


def test_views_before_the_edit_and_reasoning_stay():
    run = run_of(shell("nl -ba pkg/core/base.py", "The reader ignores failures."), VIEW, SED, output(""))
    texts = shown(run)
    assert texts[:4] == [message.content for message in run.messages[:4]]
    assert texts[4] == shell(f"sed -i '{PATCH_MASKED}' pkg/core/base.py")
    assert texts[5] == output("")


SHOWN_AFTER = {
    "view": (f"def load(self, limit):\n{NEW}\nprint(1)", f"def load(self, limit):\n{PATCH_MASKED}\nprint(1)"),
    "nl": (f"    12\tx = 1\n    13\t{NEW}\n    14\ty = 2", f"    12\tx = 1\n{PATCH_MASKED}\n    14\ty = 2"),
    "grep -n": (f"pkg/core/base.py:13:{NEW}", PATCH_MASKED),
    "json": (
        '{"text": "x = 1\\n    return self.read(limit, retries=3, strict=True)\\ny = 2"}',
        PATCH_MASKED,
    ),
    "several lines": (
        f"a\n    if limit is None:\n        limit = self.default_limit()\n{NEW}\n    pass\nb",
        f"a\n{PATCH_MASKED}\nb",
    ),
    "traceback": (
        f'  File "base.py", line 13\n  {NEW}\nValueError: 3',
        f'  File "base.py", line 13\n{PATCH_MASKED}\nValueError: 3',
    ),
}


@pytest.mark.parametrize("name", SHOWN_AFTER)
def test_lines_shown_after_the_edit(name):
    before, after = SHOWN_AFTER[name]
    masked = mask_run(run_of(SED, output(""), shell("cat pkg/core/base.py"), output(before)))
    assert masked.messages[5].content == output(after)
    assert masked.leaked_lines_masked >= 1


def test_printed_diffs_go_whole_and_the_rest_of_the_output_stays():
    run = run_of(SED, output(""), shell("git diff && echo checked"), output(PATCH + "checked"), shell("submit"), PATCH)
    masked = mask_run(run)
    assert masked.messages[5].content == output(f"{PATCH_MASKED}\nchecked")
    assert masked.messages[7].content.strip() == PATCH_MASKED
    assert sum(turn.content.count(PATCH_MASKED) for turn in masked.messages) == 3  # two diffs, one edit
    assert masked.leaked_lines_masked == 0


QUOTED = {
    "whole line": ("I add `return self.read(limit, retries=3, strict=True)` there.", f"I add `{PATCH_MASKED}` there."),
    "other quotes": ('Use "return self.read(limit, retries=3, strict=True)".', f'Use "{PATCH_MASKED}".'),
    "without return": ("I call `self.read(limit, retries=3, strict=True)` now.", f"I call `{PATCH_MASKED}` now."),
    "name only": ("I call `self.read` with `retries=3` and `self.default_limit`.",) * 2,
    "code block": (
        f"The fix:\n```python\ndef load(self, limit):\n{NEW}\n```\nGood.",
        f"The fix:\n```python\ndef load(self, limit):\n{PATCH_MASKED}\n```\nGood.",
    ),
}


@pytest.mark.parametrize("name", QUOTED)
def test_plans_that_quote_the_patch(name):
    before, after = QUOTED[name]
    texts = shown(run_of(shell("nl -ba pkg/core/base.py"), VIEW, shell("ls", before), output("")))
    assert texts[4] == shell("ls", after)


def test_old_text_is_no_leak():
    moved = PATCH.replace("    return self.read(limit)\n", f"{NEW.strip()}\n", 1)
    assert f"-{NEW.strip()}" in moved
    for run in (
        run_of(shell("cat pkg/core/base.py"), output(NEW), SED, output(""), shell("cat a.py"), output(NEW)),
        run_of(SED, output(""), shell("cat a.py"), output(NEW), issue=f"Please write\n{NEW}"),
        run_of(SED, output(""), shell("cat a.py"), output(NEW), patch=moved),
        run_of(shell("cat > t.py <<'E'\n1\nE"), "", shell("cat a.py"), output(NEW), SED, "", shell("ls"), output(NEW)),
    ):
        assert mask_run(run).leaked_lines_masked == 0
        assert NEW in mask_run(run).messages[-1].content
    spelt = run_of(shell("ls", NEW.strip()), "", shell("cat > t.py <<'E'\n1\nE"), "", shell("cat t.py"), output(NEW))
    assert "retries" not in "".join(shown(spelt))


def test_output_with_lines_of_the_agents_own_makes_nothing_old():
    other = "limit = self.default_limit()"
    run = run_of(
        *[shell("cat > t.py <<'E'\n1\nE", NEW.strip()), "", shell("cat t.py"), output(f"{NEW}{other}")],
        *[SED, "", shell("cat t.py"), output(f"print(1)\n{other}\nprint(2)")],
    )
    assert shown(run)[-1] == output(f"print(1)\n{PATCH_MASKED}\nprint(2)")


def test_printed_diffs_make_nothing_old():
    run = run_of(shell("./update"), "", shell("cat > t.py <<'E'\n1\nE"), "", shell("cat it"), PATCH, shell("ls"), NEW)
    assert "retries" not in "".join(shown(run))


def test_reproduction_scripts_stay_but_for_the_patch():
    script = f"from pkg.core import base\nclass Fixed(base.Reader):\n  def load(self, limit):\n{NEW}\nprint(Fixed())"
    run = run_of(
        shell(f"cat > reproduce.py <<'EOF'\n{script}\nEOF\npython reproduce.py"), output("ok"), SED, output("")
    )
    assert shown(run)[2] == run.messages[2].content.replace(NEW, PATCH_MASKED)


def test_the_other_patch_is_masked_as_well():
    other = PATCH.replace("retries=3", "attempts=9").replace("core/base.py", "core/other.py")
    run = run_of(
        shell("nl -ba pkg/core/base.py"),
        VIEW,
        SED,
        "",
        shell("sed -i 's/a/b/' pkg/core/other.py"),
        output("    return self.read(limit, attempts=9, strict=True)"),
    )
    assert "attempts" in "".join(shown(run))
    assert "s/a/b/" in "".join(shown(run))
    both = "".join(shown(run, PATCH, other))
    assert "attempts" not in both
    assert "retries" not in both
    assert "s/a/b/" not in both
    assert shown(run, PATCH, other) == shown(run, other, PATCH)


def test_patch_lines_reads_signs_in_the_text():
    patch = "--- a/x.sql\n+++ b/x.sql\n@@ -1,2 +1,3 @@\n--- old comment\n+++ strange\n+-- new comment\n kept\n"
    lines = patch_lines(patch)
    assert (lines.files, lines.added, lines.original) == (
        ["x.sql"],
        ["++ strange", "-- new comment"],
        ["-- old comment", "kept"],
    )


PIECES = [NEW, NEW.strip(), "limit = self.default_limit()", "return self.read(limit)", PATCH, PATCH_MASKED, "text"]
PIECES += [
    "\n",
    "\u00e9\u00a0",
    "EOF",
    "pass",
    " ",
    "`",
    "'",
    '"',
    "\\",
    "\\n",
    "13\t",
    "+",
    "git diff",
    "open('a.py', 'w')",
]
PROSE = st.lists(st.sampled_from([*PIECES, "\n```python\n"]), max_size=12).map("".join)
COMMANDS = [
    *["sed -i 's/a/{}/' pkg/core/base.py", "cat > pkg/core/base.py <<'END'\n{}\nEND", "cat > new.py <<'END'\n{}\nEND"],
    *["git diff", "cat pkg/core/base.py", "python test.py", 'echo "{}" >> pkg/core/base.py', "grep -n '{}' pkg/a.py"],
    *["python - <<'END'\nopen('pkg/core/base.py', 'w').write('{}')\nEND", "cat > fix.py <<'END'\n{}"],
]
PARTS = st.sampled_from([NEW, NEW.strip(), "x", "limit = self.default_limit()", "if limit is None:", PATCH_MASKED])
AGENT = st.builds(
    lambda prose, command, part: f"{prose.replace('`', '')}\n\n```bash\n{command.format(part)}\n```",
    PROSE,
    st.sampled_from(COMMANDS),
    PARTS,
)
TURNS = st.lists(st.tuples(AGENT, PROSE.map(output)), min_size=1, max_size=4).map(lambda turns: sum(turns, ()))


@settings(max_examples=300, deadline=None)
@given(TURNS)
def test_masking_by_properties(turns):
    run = run_of(*turns)
    masked = mask_run(run)
    assert [message.role for message in masked.messages] == [message.role for message in run.messages]
    for before, after in zip(run.messages, masked.messages, strict=True):
        if before != after:
            # Between the marks stands text of the original, in its order.
            position = 0
            for piece in after.content.split(PATCH_MASKED):
                found = before.content.find(piece, position)
                assert found >= 0
                position = found + len(piece)
    recorded = pairs_of(run.messages)
    assert leak_check.leaks_left(pairs_of(masked.messages), recorded, PATCH, run.issue) == []
    again = mask_run(run.model_copy(update={"messages": masked.messages}))
    assert again.messages == masked.messages
    assert (again.leaked_lines_masked, again.drafts) == (0, 0)
    assert masked.left == []


@pytest.fixture(scope="module")
def runs():
    if not SOURCE.exists():
        pytest.skip(f"{SOURCE} is not here; set CONTEXTRL_TRAJECTORIES to a file of real runs")
    return [one.run for one in open_source(SOURCE)]


def test_real_runs_show_nothing_of_their_patch(runs):
    leaks, marks, drafts, views, at_first = 0, 0, 0, 0, 0
    for run in runs:
        masked = mask_run(run)
        leaks += masked.leaked_lines_masked
        drafts += masked.drafts
        marks += sum(turn.content.count(PATCH_MASKED) for turn in masked.messages)
        recorded = pairs_of(run.messages)
        assert leak_check.leaks_left(pairs_of(masked.messages), recorded, run.patch, run.issue) == [], run.run_id
        at_first += bool(leak_check.leaks_left(recorded, recorded, run.patch, run.issue))
        again = mask_run(run.model_copy(update={"messages": masked.messages}))
        assert again.messages == masked.messages, run.run_id
        first = writes_of(run.messages)[0][0]
        # Of what was seen before the first write only diffs go, and lines that the agent spelt before it saw them.
        seen = [(one, two) for one, two in zip(run.messages[:first], masked.messages, strict=False) if one != two]
        views += any(one.role != "assistant" and "\ndiff --git " not in one.content for one, _ in seen)
        assert leak_check.signs_left(pairs_of(masked.messages), run.patch) == [], run.run_id
        assert leak_check.drafts_left(pairs_of(masked.messages), run.patch) == [], run.run_id
    assert at_first > 0.9 * len(runs), "the check finds the leaks of unmasked runs"
    assert marks > len(runs)
    assert leaks > 0
    assert drafts > 0
    assert views <= 0.01 * len(runs)
    print(f"{len(runs)} runs: {marks} marks, {leaks} lines leaked besides edits and diffs, {drafts} drafts")


def test_real_couples_show_nothing_of_either_patch(runs):
    by_file = defaultdict(list)
    for run in runs:
        for file in patch_lines(run.patch).files:
            by_file[run.repository, file].append(run)
    couples = [
        couple
        for _, members in sorted(by_file.items())
        for couple in itertools.combinations(members, 2)
        if couple[0].instance_id != couple[1].instance_id
    ]
    # Of couples that become pairs, tests/data_prep/test_prepare_real_runs.py looks at each.
    for one, two in couples[:: max(1, len(couples) // 30)]:
        for run in (one, two):
            masked = pairs_of(mask_run(run, one.patch, two.patch).messages)
            for patch in (one.patch, two.patch):
                left = leak_check.leaks_left(masked, pairs_of(run.messages), patch, run.issue)
                left += leak_check.signs_left(masked, patch) + leak_check.drafts_left(masked, patch)
                assert left == [], (one.run_id, two.run_id)
