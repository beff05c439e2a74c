"""Patches recovered from what a run did and saw; texts of files followed through its edits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_records import SOURCE, came_back, said
from unidiff import PatchSet

from data_prep.trajectories.partial_file import LostError, Text
from data_prep.trajectories.readers.formats import plain_turns
from data_prep.trajectories.repo_state import Workspace, replayed_patch
from data_prep.trajectories.run import AgentRun

LOOK = [said("cat pkg/calc.py"), came_back(SOURCE)]


def run_of(*messages: dict[str, Any]) -> AgentRun:
    start = [{"role": "system", "content": "s"}, {"role": "user", "content": "issue"}]
    turns = plain_turns([*start, *messages])
    return AgentRun(instance_id="o__n-1", repository="o/n", issue="issue", messages=turns, source="test")


def steps(*commands: str) -> list[dict[str, Any]]:
    return [message for command in commands for message in (said(command), came_back(""))]


def applied(patch: str, before: str) -> str:
    """The text after the patch, by its hunks, checking every context line."""
    lines, result, position = before.split("\n")[:-1], [], 0
    (part,) = PatchSet(patch)
    for hunk in part:
        start = hunk.source_start - (1 if hunk.source_length else 0)
        result += lines[position:start]
        position = start
        for line in hunk:
            if not line.is_added:
                assert lines[position] == line.value.rstrip("\n")
                position += 1
            if not line.is_removed:
                result.append(line.value.rstrip("\n"))
    return "".join(f"{line}\n" for line in result + lines[position:])


FIXED = SOURCE.replace("value + value + 1", "value + value")


@pytest.mark.parametrize(
    "edit",
    [
        "sed -i '3s/ + 1//' pkg/calc.py",
        'sed -i "s/value + value + 1/value + value/" pkg/calc.py',
        "sed -i '3c\\        return value + value' ./pkg/calc.py",
        "cd /testbed && sed -i 's/ + 1$//' /testbed/pkg/calc.py",
        f"cat <<'EOF' > pkg/calc.py\n{FIXED}EOF",
        f"cat > pkg/calc.py <<'EOF'\n{FIXED}EOF",
        f"tee pkg/calc.py <<'EOF'\n{FIXED}EOF",
        "edit_via_str_replace pkg/calc.py 'value + value + 1' 'value + value'",
        "edit_via_str_replace pkg/calc.py $'value + value + 1\\n\\n' $'value + value\\n\\n'",
        "edit_via_str_replace pkg/calc.py \"$(cat <<'OLD'\nvalue + 1\nOLD\n)\" \"$(cat <<'NEW'\nvalue\nNEW\n)\"",
        "cp pkg/calc.py /tmp/x; sed -i '3d' pkg/calc.py && sed -i '2a\\        return value + value' pkg/calc.py",
    ],
)
def test_every_way_to_edit(edit):
    assert applied(replayed_patch(run_of(*LOOK, *steps(edit))), SOURCE) == FIXED


def test_an_editor_tool():
    call = {
        "role": "assistant",
        "content": "I edit.",
        "tool_calls": [
            {
                "function": {
                    "name": "str_replace_editor",
                    "arguments": {
                        "command": "str_replace",
                        "path": "/testbed/pkg/calc.py",
                        "old_str": "        return value + value + 1",
                        "new_str": "        return value + value",
                    },
                }
            }
        ],
    }
    numbered = "".join(f"{number:6}\t{line}\n" for number, line in enumerate(SOURCE.splitlines(), 1))
    title = "Here's the result of running `cat -n` on /testbed/pkg/calc.py:\n"
    look = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "function": {
                    "name": "str_replace_editor",
                    "arguments": {"command": "view", "path": "/testbed/pkg/calc.py"},
                }
            }
        ],
    }
    seen = {"role": "user", "content": f"OBSERVATION:\n{title}{numbered}"}
    done = {"role": "user", "content": "OBSERVATION:\nThe file /testbed/pkg/calc.py has been edited."}
    failed = {"role": "user", "content": "OBSERVATION:\nNo replacement was performed."}
    assert applied(replayed_patch(run_of(look, seen, call, done)), SOURCE) == FIXED
    assert replayed_patch(run_of(look, seen, call, failed)) == ""


def test_an_edit_of_a_part_that_was_shown_is_enough():
    text = "".join(f"line {number}\n" for number in range(1, 200))
    shown = "".join(f"{number:6}\tline {number}\n" for number in range(90, 111))
    patch = replayed_patch(
        run_of(
            said("nl -ba pkg/long.py | sed -n '90,110p'"),
            came_back(shown),
            *steps("sed -i '100s/line/LINE/' pkg/long.py", "sed -i '90a\\new' pkg/long.py"),
        )
    )
    assert applied(patch, text) == text.replace("line 100\n", "LINE 100\n").replace("line 90\n", "line 90\nnew\n")


@pytest.mark.parametrize(
    ("commands", "why"),
    [
        (["sed -i 's/x/y/' pkg/other.py"], "not all were shown"),
        (["sed -i '3s/ + 1//' pkg/calc.py", "python fix.py pkg/calc.py && black pkg/calc.py"], "changed by black"),
        (["cat > fix.py <<'EOF'\nopen('pkg/calc.py', 'w').write('x')\nEOF", "python fix.py"], "Python script"),
        (["python - <<'EOF'\nopen('pkg/calc.py', 'w').write('x')\nEOF"], "Python script"),
        (["edit_via_str_replace pkg/calc.py 'value' 'x'"], "stands 5 times"),
        (["edit_via_str_replace pkg/calc.py 'nothing' 'x'"], "nowhere"),
        (["echo x > pkg/calc.py"], "not shown"),
        (['sed -i "s/value/$NAME/" pkg/calc.py'], "depends on the shell"),
        (["cat > pkg/other.py <<'EOF'\nx\nEOF"], "text before was not shown"),
    ],
)
def test_what_cannot_be_known_is_not_guessed(commands, why):
    listing = [said("ls pkg"), came_back("pkg/other.py\npkg/calc.py\n")]
    run = run_of(*listing, *LOOK, *steps(*commands))
    assert replayed_patch(run) == ""
    unknown = []
    for path, text in Workspace(run).files.items():
        try:
            text.diff(path)
        except LostError as error:
            unknown.append(str(error))
    assert why in " ".join(unknown)


def test_a_printed_diff_is_taken_unless_something_was_edited_after_it():
    diff = "diff --git a/pkg/z.py b/pkg/z.py\n--- a/pkg/z.py\n+++ b/pkg/z.py\n@@ -1,1 +1,1 @@\n-a\n+b\n"
    show = [said("git diff"), came_back(diff)]
    hidden = steps("sed -i 's/a/b/' pkg/z.py")
    assert replayed_patch(run_of(*hidden, *show)) == diff
    assert replayed_patch(run_of(*hidden, *show, *hidden)) == ""


def test_commands_that_were_refused_or_failed_change_nothing():
    refused = {"role": "user", "content": "Please always provide EXACTLY ONE action in triple backticks, found 2."}
    run = run_of(*LOOK, said("sed -i '3d' pkg/calc.py"), refused)
    assert not Workspace(run).files["pkg/calc.py"].edited
    run = run_of(*LOOK, said("edit_via_str_replace pkg/calc.py 'a' 'b'"), came_back("error", code=1))
    assert not Workspace(run).files["pkg/calc.py"].edited


def test_taking_it_back_and_scratch_files_leave_no_patch():
    run = run_of(
        *LOOK,
        *steps(
            "sed -i '3d' pkg/calc.py",
            "cat > reproduce.py <<'EOF'\nprint(1)\nEOF",
            "python reproduce.py",
            "git checkout pkg/calc.py",
            "rm reproduce.py",
        ),
    )
    assert replayed_patch(run) == ""
    assert not any(text.lost for text in Workspace(run).files.values())


def test_new_files_below_a_folder_are_part_of_the_patch():
    patch = replayed_patch(run_of(*steps("cat > pkg/new.py <<'EOF'\nx = 1\nEOF", "cat > scratch.py <<'EOF'\ny\nEOF")))
    (part,) = PatchSet(patch)
    assert part.is_added_file
    assert part.path == "pkg/new.py"
    assert part[0].target_length == 1


def test_a_replacement_may_look_like_an_option():
    patch = replayed_patch(run_of(*LOOK, *steps("edit_via_str_replace pkg/calc.py ' + 1' '-1'")))
    assert applied(patch, SOURCE) == SOURCE.replace(" + 1", "-1")


def test_a_full_view_after_a_lost_edit_is_trusted_again():
    changed = SOURCE.replace("half", "third")
    run = run_of(*LOOK, *steps("perl -pi -e 's/half/third/' pkg/calc.py"), said("cat pkg/calc.py"), came_back(changed))
    assert applied(replayed_patch(run), SOURCE) == changed


def test_what_is_shown_later_is_checked_against_the_edits():
    run = run_of(
        *LOOK, *steps("sed -i '3s/ + 1//' pkg/calc.py"), said("sed -n '3,3p' pkg/calc.py"), came_back("other\n")
    )
    assert "does not agree" in Workspace(run).files["pkg/calc.py"].lost


def test_cut_output_is_read_up_to_the_cut():
    cut = "<returncode>0</returncode>\n<warning>\ntoo long\n</warning><output_head>\nclass A:\n    x = 1\n    de\n"
    cut += "</output_head>\n<elided_chars>\n9 characters elided\n</elided_chars>\n<output_tail>\nzzz\n</output_tail>"
    run = run_of(said("cat pkg/calc.py"), {"role": "user", "content": cut})
    text = Workspace(run).files["pkg/calc.py"]
    assert text.first == ["class A:", "    x = 1"]
    assert not text.whole


lines = st.lists(st.sampled_from(["a", "b", "c", "  d", ""]), min_size=1, max_size=12)


@given(before=lines, data=st.data())
def test_diffs_lead_from_before_to_now(before, data):
    """Any splices of a whole text; the diff applied to the text before gives the text now."""
    text = Text()
    text.see(1, before, to_end=True)
    expected = list(before)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(1, len(expected) + 1))
        end = data.draw(st.integers(start - 1, len(expected)))
        new = data.draw(lines)
        text.splice(start, end, new)
        expected[start - 1 : end] = new
    assert text.lines == expected
    patch = text.diff("f.py")
    source, target = ("".join(f"{line}\n" for line in side) for side in (before, expected))
    assert (applied(patch, source) if patch else source) == target


@given(before=lines, known=st.data())
def test_unknown_lines_never_enter_a_diff(before, known):
    text = Text()
    for number, line in enumerate(before, 1):
        if known.draw(st.booleans()):
            text.see(number, [line])
    where = known.draw(st.integers(1, len(before)))
    try:
        text.splice(where, where, ["NEW"])
    except LostError:
        assert where > len(text.lines) or isinstance(text.lines[where - 1], int)
        return
    patch = text.diff("f.py")
    assert "\0" not in patch
    source = "".join(f"{line}\n" for line in before)
    assert applied(patch, source) == "".join(f"{line}\n" for line in [*before[: where - 1], "NEW", *before[where:]])
