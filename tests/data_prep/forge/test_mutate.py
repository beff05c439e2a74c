"""Mutations change one piece of text and nothing else."""

import ast
import difflib

import pytest

from data_prep.forge.forge import find_library
from data_prep.forge.library import ForgeError
from data_prep.forge.mutate import apply, functions

SAMPLE = '''\
"""Módule."""


def pad( text ,width = 8, *, fill=" ", strict=False ):   # spaces stay as they are
    """Doc 1 < 2."""
    größe = "ö" ; size = len(text)
    if size >= width and not strict:
        return  text
    if strict:
        raise ValueError("too long, 3 < 4")
    for index in range(3):
        if index == 1: break
    return join(text, fill) + fill * (width - size) + f"{size + 1}"


class Box:
    def area(self):
        return self.width * self.height

    def __repr__(self):
        return "x" + "y"
'''


@pytest.fixture(scope="module")
def found():
    return list(functions("pkg/__init__.py", SAMPLE))


def kinds(found, name):
    return {m.kind for function, mutations in found if function.qualname == name for m in mutations}


def test_functions_and_kinds(found):
    assert [function.qualname for function, _ in found] == ["pad", "Box.area"]
    assert found[0][0].module == "pkg"
    assert (found[0][0].first, found[0][0].last) == (4, 13)
    assert kinds(found, "pad") >= {
        "comparison", "boolean operator", "missing negation", "wrong default", "dropped branch", "off by one",
        "swapped arguments", "arithmetic", "wrong jump", "wrong constant",
    }  # fmt: skip


def test_only_the_piece_changes(found):
    for function, mutations in found:
        for mutation in mutations:
            changed = apply(SAMPLE, [mutation])
            assert changed != SAMPLE
            blocks = [
                code
                for code in difflib.SequenceMatcher(None, SAMPLE.split("\n"), changed.split("\n"), False).get_opcodes()
                if code[0] != "equal"
            ]
            assert len(blocks) == 1
            assert function.first - 1 <= blocks[0][1] <= blocks[0][2] <= function.last
            assert mutation.first - 1 <= blocks[0][1]
            assert blocks[0][2] <= mutation.last


def test_messages_docstrings_and_f_strings_are_left_alone(found):
    for _, mutations in found:
        for mutation in mutations:
            changed = apply(SAMPLE, [mutation])
            if mutation.kind != "dropped branch":
                assert "too long, 3 < 4" in changed
            assert "Doc 1 < 2." in changed
            assert 'f"{size + 1}"' in changed or "join" not in changed


def test_a_docstring_as_short_as_a_constant_is_left_alone():
    text = "def f(x):\n    'short'\n    return x - 1 or 'short'\n"
    ((_, mutations),) = functions("a.py", text)
    changed = [apply(text, [mutation]).split("\n") for mutation in mutations]
    assert all(lines[1] == "    'short'" for lines in changed)
    # The same text as a value is none.
    assert any("'SHORT'" in lines[2] for lines in changed)


def test_positions_behind_characters_of_several_bytes(found):
    texts = {apply(SAMPLE, [m]) for _, mutations in found for m in mutations}
    assert any('größe = "Ö" ; size' in text for text in texts)


def test_several_at_once_are_all_there(found):
    (_, mutations), *_ = found
    far = [mutations[0]]
    for mutation in mutations:
        if not any(mutation.near(other) for other in far):
            far.append(mutation)
    assert len(far) >= 3
    changed = apply(SAMPLE, far)
    for mutation in far:
        alone = apply(SAMPLE, [other for other in far if other is not mutation])
        assert alone != changed


def test_every_mutation_of_a_library_compiles_or_is_told_apart():
    library = find_library("mdurl")
    good = bad = 0
    for path, text in library.texts().items():
        for _, mutations in functions(path, text):
            for mutation in mutations:
                try:
                    ast.parse(apply(text, [mutation]))
                    good += 1
                except SyntaxError:
                    bad += 1
    assert good > 100
    assert bad <= good // 100


def test_a_file_that_is_no_python_has_no_functions():
    assert list(functions("a.py", "def f(:\n")) == []
    assert list(functions("a.py", "x = '\0'")) == []


@pytest.mark.parametrize("name", ["../rich", "rich; touch x", "", "-rf", "a/b", "rich\n"])
def test_names_that_are_no_names(name):
    with pytest.raises(ForgeError, match="not the name of a distribution"):
        find_library(name)


def test_libraries_that_cannot_be_forged():
    with pytest.raises(ForgeError, match="no such distribution is installed"):
        find_library("surely-not-installed-anywhere")
    with pytest.raises(ForgeError, match=r"not pure Python: it holds .*\.so"):
        find_library("numpy")
