"""Each way of editing: its content is found, nothing besides it, and scripts that only reproduce are left alone."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.trajectories.actions import Paths, contents_of, edits_of, writes_of
from data_prep.trajectories.run import Message

FILES = ["pkg/core/base.py", "docs/notes.txt"]
OLD, NEW = "timeout = read(limit)", "timeout = read(limit, retries=3)"


def turn(command, fence="bash"):
    return [
        Message(role="user", content="the issue"),
        Message(role="assistant", content=f"THOUGHT: it's time to edit.\n\n```{fence}\n{command}\n```\nDone."),
    ]


def find_edits(messages, files=FILES):
    return contents_of(edits_of(writes_of(messages), files))


def contents(messages):
    return [messages[index].content[start:end] for index, start, end in find_edits(messages)]


def masked(messages):
    texts = [message.content for message in messages]
    for index, start, end in reversed(find_edits(messages)):
        texts[index] = texts[index][:start] + "#" + texts[index][end:]
    return "\n".join(texts)


SHELL_EDITS = {
    "sed": f"sed -i 's/{OLD}/{NEW}/' pkg/core/base.py",
    "sed with another delimiter": f"cd /testbed && sed -i -E 's|{OLD}|{NEW}|g' /testbed/pkg/core/base.py && git status",
    "sed several -e": f'sed -i.bak -e "s#{OLD}#{NEW}#" -e "14,20d" ./pkg/core/base.py',
    "sed append": f"sed -i '12a\\\n    {NEW}\\\n    more()' pkg/core/base.py",
    "sed insert": f'sed -i "12i\\    {NEW}" pkg/core/base.py',
    "sed change of lines": f"sed -i '12,14c\\    {NEW}' pkg/core/base.py",
    "sed --expression": f"sed --in-place --expression='s/x/{NEW}/' pkg/core/base.py",
    "sed within find": f"find . -name base.py -exec sed -i 's/x/{NEW}/' {{}} \\;",
    "sed behind xargs": f"grep -rl x pkg | xargs sed -i 's/x/{NEW}/'",
    "sed never closed": f"sed -i 's/x/{NEW}/ pkg/core/base.py",
    "sed in a loop": f"for f in pkg/core/base.py; do sed -i 's/x/{NEW}/' $f; done",
    "sed in the folder": f"cd pkg/core && sed -i 's/x/{NEW}/' base.py",
    "cat > f <<": f"cat > pkg/core/base.py <<'EOF'\nimport os\n{NEW}\nEOF\npython -m pytest",
    "cat << > f": f'cat <<"EOF" > pkg/core/base.py\n{NEW}\nEOF',
    "cat >> f": f"cat >> pkg/core/base.py <<-EOF\n\t{NEW}\n\tEOF",
    "heredoc cut off": f"cat > pkg/core/base.py <<'EOF'\nimport os\n{NEW}",
    "tee": f"tee -a pkg/core/base.py <<'EOF' > /dev/null\n{NEW}\nEOF",
    "cat into tee": f"cat <<'EOF' | tee pkg/core/base.py\n{NEW}\nEOF",
    "echo": f"echo '{NEW}' >> pkg/core/base.py",
    "printf": f'printf "%s\\n" "{NEW}" > pkg/core/base.py',
    "echo into tee": f"echo '{NEW}' | tee -a pkg/core/base.py",
    "perl": f"perl -pi -e 's/x/{NEW}/' pkg/core/base.py",
    "perl -0777": f"perl -0777 -i -pe 's/x/{NEW}/s' pkg/core/base.py",
    "awk": f"awk '{{gsub(/x/, \"{NEW}\")}} 1' pkg/core/base.py > t.py && mv t.py pkg/core/base.py",
    "ed": f"ed -s pkg/core/base.py <<'EOF'\n12a\n{NEW}\n.\nw\nEOF",
    "printf into ed": f"printf '12a\\n{NEW}\\n.\\nw\\n' | ed -s pkg/core/base.py",
    "ex": f"ex -sc '12i|{NEW}' -cx pkg/core/base.py",
    "patch": f"patch -p1 <<'EOF'\n--- a/pkg/core/base.py\n+++ b/pkg/core/base.py\n@@ -1 +1 @@\n-x\n+{NEW}\nEOF",
    "git apply": f"git apply - <<'EOF'\n--- a/pkg/core/base.py\n+++ b/pkg/core/base.py\n@@ -1 +1 @@\n-x\n+{NEW}\nEOF",
    "patch from a pipe": f"cat <<'EOF' | patch -p1\n+++ pkg/core/base.py\n@@ -1 +1 @@\n+{NEW}\nEOF",
    "patch in a file": (
        f"cat > fix.diff <<'EOF'\n--- a/pkg/core/base.py\n+++ b/pkg/core/base.py\n@@ -1 +1 @@\n+{NEW}\nEOF\n"
        "git apply fix.diff"
    ),
    "apply_patch": (
        f"apply_patch <<'EOF'\n*** Begin Patch\n*** Update File: pkg/core/base.py\n+{NEW}\n*** End Patch\nEOF"
    ),
    "python -": (f"python - <<'EOF'\np = 'pkg/core/base.py'\ns = open(p).read() + '{NEW}'\nopen(p, 'w').write(s)\nEOF"),
    "python3 heredoc": (
        f"python3 <<EOF\nfrom pathlib import Path\np = Path('pkg/core/base.py')\np.write_text('{NEW}')\nEOF"
    ),
    "python -c": f"python -c \"s=open('pkg/core/base.py').read(); open('pkg/core/base.py','w').write(s+'{NEW}')\"",
    "python -c with arguments": f"python3 -c \"import sys; open('pkg/core/base.py', 'a').write(sys.argv[1])\" '{NEW}'",
    "script in a file": (
        f"cat <<'EOF' > fix.py\nwith open('pkg/core/base.py', mode='w') as f:\n    f.write('{NEW}')\nEOF\npython fix.py"
    ),
    "text moved in": f"cat > new.txt <<'EOF'\n{NEW}\nEOF\ncp new.txt pkg/core/base.py",
    "text moved in twice": f"cat > a.txt <<'EOF'\n{NEW}\nEOF\ncat a.txt > b.txt\nmv b.txt pkg/core/base.py",
    "edit_via_str_replace": f"edit_via_str_replace pkg/core/base.py '{OLD}' '{NEW}'",
    "edit_via_str_replace heredocs": (
        f'edit_via_str_replace pkg/core/base.py "$(cat <<\'A\'\nsay("x")\nA\n)" "$(cat <<\'B\'\nsay("y") # {NEW}\nB\n)"'
    ),
    "edit_via_str_replace $''": f"edit_via_str_replace pkg/core/base.py $'it\\'s\\n' $'{NEW}\\n'",
    "str_replace_editor": (
        f"str_replace_editor str_replace /testbed/pkg/core/base.py --old_str '{OLD}' --new_str '{NEW}'"
    ),
    "str_replace_editor insert": (
        f"str_replace_editor insert /testbed/pkg/core/base.py --insert_line 4 --new_str '{NEW}'"
    ),
    "str_replace_editor create": f"str_replace_editor create pkg/core/base.py --file_text '{NEW}'",
    "SWE-agent edit": f"open pkg/core/base.py\nedit 12:14\n    {NEW}\n    it's here\nend_of_edit",
    "SWE-agent edit, file unknown": f"edit 12:14\n    {NEW}\nend_of_edit",
}


@pytest.mark.parametrize("name", SHELL_EDITS)
def test_content_of_shell_edits(name):
    messages = turn(SHELL_EDITS[name])
    assert any("retries=3" in text for text in contents(messages))
    left = masked(messages)
    assert "retries=3" not in left
    assert "THOUGHT: it's time to edit." in left
    assert left.endswith("Done.")


@pytest.mark.parametrize("name", ["sed", "sed with another delimiter", "edit_via_str_replace", "str_replace_editor"])
def test_old_text_goes_too(name):
    assert OLD not in masked(turn(SHELL_EDITS[name]))


def test_every_script_of_sed_is_content():
    assert contents(turn(SHELL_EDITS["sed several -e"])) == [f"s#{OLD}#{NEW}#", "14,20d"]
    assert contents(turn("sed -i '3d' pkg/core/base.py notes.txt")) == ["3d"]


def test_heredocs_end_at_their_delimiter_only():
    body = "x = 'EOF'\n  EOF\nEOF = 1\nit's\nEOFS"
    left = f"cat <<'EOF' > pkg/core/base.py\n{body}\nEOF\necho 'fine'"
    assert contents(turn(left)) == [body]


def test_what_stays_of_a_command():
    left = masked(turn(SHELL_EDITS["sed with another delimiter"]))
    assert "cd /testbed && sed -i -E '#' /testbed/pkg/core/base.py && git status" in left
    left = masked(turn(SHELL_EDITS["cat > f <<"]))
    assert "cat > pkg/core/base.py <<'EOF'\n#\nEOF\npython -m pytest" in left


TOOL_CALLS = {
    "json": {"command": "str_replace", "path": "/testbed/pkg/core/base.py", "old_str": OLD, "new_str": NEW + "\n\té"},
    "json create": {"command": "create", "path": "pkg/core/base.py", "file_text": f'say("x")\n{NEW}'},
    "json shell": {"command": f'sed -i "s/x/{NEW}/" pkg/core/base.py'},
    "json other names": {"file_path": "pkg/core/base.py", "old_string": OLD, "new_string": NEW},
    "json heredoc": {"cmd": f'cat > pkg/core/base.py <<"EOF"\nsay("é")\n{NEW}\nEOF\necho "fine"'},
    "json patch": {"input": f"*** Begin Patch\n*** Update File: pkg/core/base.py\n+{NEW}\n*** End Patch"},
}


@pytest.mark.parametrize("name", TOOL_CALLS)
@pytest.mark.parametrize("nested", [False, True])
def test_json_tool_calls(name, nested):
    call = {"name": "editor", "arguments": json.dumps(TOOL_CALLS[name]) if nested else TOOL_CALLS[name]}
    messages = [Message(role="assistant", content='I\'ll fix "it" now: ' + json.dumps(call))]
    left = masked(messages)
    assert "retries=3" not in left
    assert left.startswith('I\'ll fix "it" now: ')
    parsed = json.loads(left[left.index("{") :])
    assert parsed["name"] == "editor"
    # A call in a string and a command are one piece, whatever they hold.
    arguments = parsed["arguments"]
    assert "#" in arguments if nested else arguments.keys() == TOOL_CALLS[name].keys()
    kept = {key: value for key, value in TOOL_CALLS[name].items() if "path" in key}
    assert nested or kept.items() <= arguments.items()


def test_json_calls_that_only_look_are_no_edits():
    for call in ({"command": "cat pkg/core/base.py"}, {"command": "view", "path": "pkg/core/base.py"}):
        for arguments in (call, json.dumps(call)):
            assert contents([Message(role="assistant", content=json.dumps({"arguments": arguments}))]) == []


def test_xml_tool_calls():
    text = (
        "I'll edit.\n<function=str_replace_editor>\n<parameter=command>str_replace</parameter>\n"
        f"<parameter=path>/testbed/pkg/core/base.py</parameter>\n<parameter=old_str>\n{OLD}\n</parameter>\n"
        f"<parameter=new_str>\n{NEW}\n</parameter>\n</function>"
    )
    assert contents([Message(role="assistant", content=text)]) == [OLD, NEW]
    assert contents([Message(role="assistant", content=text.replace("base.py", "other.py"))]) == []
    shell = f"<function=bash>\n<parameter=command>sed -i 's/x/{NEW}/' pkg/core/base.py</parameter>\n</function>"
    assert contents([Message(role="assistant", content=shell)]) == [f"s/x/{NEW}/"]


READS = {
    "view": "sed -n '10,20p' pkg/core/base.py && cat pkg/core/base.py | head -40",
    "search": "grep -rn 'timeout = read(limit)' pkg/ 2>/dev/null | sort > /dev/null",
    "error to output": "python -m pytest pkg 2>&1 | tail -20",
    "reproduction": "cat > new.py <<'EOF'\nfrom pkg.core.base import f\nprint(f('limit'))\nEOF\npython new.py",
    "test inline": "python - <<'EOF'\nfrom pkg.core.base import f\nassert open('pkg/core/base.py').read()\nEOF",
    "test with -c": "python -c \"import pkg.core.base as b; print(b.f('w'))\"",
    "other file": "sed -i 's/a/b/' pkg/core/other.py && echo 'hello there' > notes/base.py",
    "other folder's file of that name": "cat > app/base.py <<'EOF'\nx = 1\nEOF",
    "script with a temporary file": "python - <<'EOF'\nimport tempfile as t\nopen(t.mktemp(), 'w').write('x')\nEOF",
    "diff": "git diff pkg/core/base.py",
    "undo": "git checkout pkg/core/base.py",
    "editor's view": "str_replace_editor view pkg/core/base.py --view_range '1 20'",
}


@pytest.mark.parametrize("name", READS)
def test_what_is_no_edit(name):
    assert contents(turn(READS[name])) == []


def test_first_write_is_the_first_text_of_the_agents_own():
    quiet = turn(READS["view"]) + turn(READS["search"]) + turn(READS["error to output"])
    assert writes_of(quiet) == []
    for name in ("reproduction", "test with -c"):
        assert writes_of(quiet + turn(READS[name]))[0][0] == len(quiet) + 1


def test_only_shell_fences_are_commands():
    plan = Message(role="assistant", content=f"```python\n{NEW}\n```\n```bash\nsed -i 's/a/b/' pkg/core/base.py\n```")
    assert contents([plan]) == ["s/a/b/"]
    assert contents(turn(SHELL_EDITS["sed"], fence="mswea_bash_command")) == [f"s/{OLD}/{NEW}/"]
    assert contents([Message(role="user", content=turn(SHELL_EDITS["sed"])[1].content)]) == []


def test_paths_agree_from_any_folder():
    paths = Paths(["pkg/core/base.py"])
    agree = ["base.py", "core/base.py", "./pkg/core/base.py", "/testbed/pkg/core/base.py", "$ROOT/core/base.py", "*"]
    others = ["other.py", "app/base.py", "pkg/base.py", "", "base.pyc"]
    assert [path for path in agree + others if path in paths] == agree


COMMAND_PIECES = st.lists(
    st.sampled_from(
        """sed -i |'s/a/b/'|"|'|`|$(cat <<'A'
|<<EOF
|EOF
|A
| > pkg/core/base.py |
|python -c |open('pkg/core/base.py','w')|```|```bash
|\\|&&|é|{"command": "|"}|<parameter=new_str>|</parameter>|edit 1:2
|
end_of_edit|*** Begin Patch
|patch -p1 |#|x""".split("|")
    ),
    max_size=40,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(COMMAND_PIECES)
def test_spans_are_in_the_text_and_apart(text):
    messages = [Message(role="assistant", content=text)]
    edits = find_edits(messages)
    for _, start, end in edits:
        assert 0 <= start < end <= len(text)
    for (_, _, end), (_, start, _) in itertools.pairwise(edits):
        assert end <= start


HOSTILE = {
    "quotes": "sed -i " + "'\"" * 250_000,
    "heredocs": "cat <<EOF > pkg/core/base.py\n" * 20_000,
    "heredocs in quotes": '"$(cat <<A ' * 50_000,
    "heredocs in quotes never closed": "```bash\nsed -i " + "\"$(cat <<'A'\n" * 40_000 + "```",
    "backslashes": 'sed -i "' + "\\" * 500_000,
    "fences": "```bash\n" * 60_000,
    "json": '{"command": "' * 40_000,
    "xml": "<parameter=new_str>" * 30_000,
    "spaces": "echo" + " " * 500_000 + "x",
    "one long path": "python -c '" + 'open("' + "a/" * 250_000 + "'",
    "edits": "edit 1:1\n" * 50_000 + "\nend_of_edit",
    "delimiters": "<<EOF\n" + "EOF x\n" * 80_000,
    "search and replace": "<<<<<<< SEARCH\n=======\n" * 20_000,
    "names of files": "a/b.py\n" * 60_000 + "<<<<<<< SEARCH\n",
    "tags": "<write_to_file><path>" * 25_000,
    "lists": '"command": ["' * 40_000,
    "nested lists": '{"command": ' + "[" * 500_000,
    "diffs": "--- a\n+++ b\n" * 50_000,
    "blank lines in a diff": "@@ -1 +1 @@\n" + "\n" * 500_000,
    "indented diffs": (" " * 1000 + "--- a\n") * 500,
    "fences of diffs": "```diff\n" * 60_000,
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_ends(name):
    """Half a million characters: with time that grows with their square none of these would end before the limit."""
    writes_of([Message(role="assistant", content=HOSTILE[name])])
