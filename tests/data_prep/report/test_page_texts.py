"""How the page shows texts: what differs, what is in both, patches, characters that cannot be seen."""

from __future__ import annotations

from page_reader import read, text

from data_prep.report.page import Example, write_report


def test_invisible_characters_are_named(tmp_path):
    page = write_report(tmp_path, {}, None, [Example("t", [text("a\x00b\u202ec\ud800"), text("a\x00b")])])
    words = read(page).words
    assert "a␀b⟦U+202E⟧c?" in words


def test_differences_are_marked_and_equal_lines_folded(tmp_path):
    same = "\n".join(f"line {n}" for n in range(50))
    left, right = f"{same}\nthe value is seven today\n{same}\ngone", f"{same}\nthe value is eight today\n{same}"
    html = write_report(tmp_path, {}, None, [Example("t", [text(left), text(right)])]).read_text()
    assert "<mark>seven</mark>" in html
    assert "<mark>eight</mark>" in html
    assert "47 equal lines" in html
    assert "44 equal lines" in html
    assert html.count("line 20") == 0
    read(tmp_path / "index.html")


def test_unrelated_texts_are_not_shown_as_changes_of_one_another(tmp_path):
    left, right = ([f"{side} {n}" for n in range(40)] for side in ("one", "other"))
    left[7] = right[30] = "said by both"
    html = write_report(tmp_path, {}, None, [Example("t", [text("\n".join(left)), text("\n".join(right))])]).read_text()
    assert "little in common" in read(tmp_path / "index.html").words
    assert html.count('<td class="e">said by both</td>') == 2
    assert html.count('<td class="l">one ') == html.count('<td class="r">other ') == 39
    assert "<mark>" not in html
    for number in (0, 39):  # each text in its own order, under its own numbers
        assert f'<td class="n">{number + 1}</td><td class="l">one {number}</td>' in html


def test_a_carriage_return_is_a_line_break(tmp_path):
    left = text("Downloading 10%\rDownloading 99%\r\nend")
    html = write_report(tmp_path, {}, None, [Example("t", [left, left], question="a\rb")]).read_text()
    assert "␍" not in html
    assert "\r" not in html
    words = read(tmp_path / "index.html").words
    assert "3 of 3 and 3 lines are equal" in words
    assert "a\nb" in words


def test_patches_have_colours(tmp_path):
    patch = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ ... @@ def f():\n same\n-old <b>\n+new\n+more"
    html = write_report(tmp_path, {}, None, [Example("t", [text("x")], answer=patch, question="- a\n+ b")]).read_text()
    assert '<span class="del">-old &lt;b&gt;\n</span><span class="add">+new\n+more</span>' in html
    assert '<span class="hunk">@@ ... @@ def f():\n</span> same' in html
    assert html.count('class="file"') == 1
    assert "<pre>- a\n+ b</pre>" in html  # a list, not a patch
    assert patch in read(tmp_path / "index.html").words
