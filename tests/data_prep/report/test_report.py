"""The page: well-formed, safe whatever the data holds, and of bounded size."""

from __future__ import annotations

import base64
import io
import json
import re

import pytest
from page_reader import messages, read, text
from PIL import Image
from typer.testing import CliRunner

from contextrl_verl.cli import app
from contextrl_verl.pairs import Context, ContrastivePair, ImageRef
from contextrl_verl.pairs.files import write_pairs
from data_prep.common.funnel import Funnel
from data_prep.report.page import Example, Histogram, write_report
from data_prep.report.text import print_stages

EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></pre></td></table></details><iframe src=//evil.example>",
    "{{ 7 * 7 }}{% raw %}",
    "nul \x00 bell \x07 escape \x1b[31m",
    "\u202egnp.exe\u2066 zero\u200bwidth \u2028",
    "broken \ud800 surrogate \udfff",
    "javascript:alert(1)",
    "]]><!-- --><![CDATA[",
    "&lt;script&gt; &amp;amp;",
]


def some_funnel() -> Funnel:
    funnel = Funnel()
    stage = funnel.stage("read")
    stage.keep(90)
    stage.drop("no patch", {"instance": "a-1"}, count=7)
    stage.drop("no issue", {"instance": "a-2"}, count=3)
    funnel.stage("same file", "couples").keep(12)
    return funnel


def test_summary_and_page(tmp_path):
    page = write_report(
        tmp_path / "deep" / "report",
        {"runs_read": 100, "pairs": 24, "seconds": 1.5},
        some_funnel(),
        [Example("couple 1", [text("one\nvalue is 7"), text("one\nvalue is 8")], "dropped", "too long", "q?", "a!")],
        notices=["all at chance"],
        histograms=[Histogram("lengths", [1, 2, 3, 1000])],
        tables={"splits": {"train": 20, "probe": 4}},
    )
    summary = json.loads((page.parent / "summary.json").read_text())
    assert summary["stages"] == [stage.summary() for stage in some_funnel()]
    assert (summary["runs_read"], summary["pairs"]) == (100, 24)
    assert sorted(p.name for p in page.parent.iterdir()) == ["index.html", "summary.json"]
    parsed = read(page)
    for words in ("100 runs in", "no patch", "why 10 were dropped", "couple 1", "too long", "all at chance", "probe"):
        assert words in parsed.words
    assert {"dropped"} <= {attributes.get("class", "").split(" ")[-1] for attributes in parsed.all("span")}
    bars = [r for r in parsed.all("rect") if r.get("class") in ("keep", "gone")]
    assert [(float(b["x"]), float(b["width"])) for b in bars] == [(0, 90), (90, 10), (0, 100), (100, 0)]


def test_stages_in_the_terminal_keep_names_as_they_are(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    funnel = some_funnel()
    funnel.stage("odd").drop("[bold]no[/oops] turn", count=1234)
    print_stages("3 pairs", [stage.summary() for stage in funnel])
    said = capsys.readouterr().out
    for words in ("3 pairs", "no issue 3, no patch 7", "[bold]no[/oops] turn 1,234"):
        assert words in said


def test_counts_that_do_not_add_up_are_a_bug(tmp_path):
    funnel = some_funnel()
    funnel.stages[0].left += 1
    with pytest.raises(AssertionError, match="does not add up"):
        write_report(tmp_path, {}, funnel)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("evil", EVIL)
def test_hostile_data_stays_data_everywhere(tmp_path, evil):
    funnel = Funnel()
    stage = funnel.stage(f"stage {evil}", f"unit {evil}")
    stage.drop(f"reason {evil}", {f"key {evil}": f"value {evil}", "list": [evil]})
    examples = [
        Example(
            f"title {evil}",
            [messages(f"left {evil}\nsame", role=f"r{evil}"), messages(f"right {evil}\nsame", role=f"r{evil}")],
            "dropped",
            f"reason {evil}",
            f"query {evil}",
            f"answer {evil}",
            {f"fact {evil}": evil, "nested": {evil: [evil]}},
            (f"one {evil}", f"other {evil}"),
        ),
        Example(evil, [text(evil)]),
    ]
    page = write_report(
        tmp_path,
        {f"n{evil}": 1, "s": evil},
        funnel,
        examples,
        title=f"title {evil}",
        histograms=[Histogram(f"h {evil}", [1, 2, float("inf")])],
        notices=[evil],
        tables={f"t {evil}": {f"k {evil}": 3, f"v {evil}": evil}},
    )
    parsed = read(page)
    raw = page.read_bytes()
    for hidden in (b"\x00", b"\x07", b"\x1b", "\u202e".encode(), "\u2066".encode(), "\u200b".encode()):
        assert hidden not in raw
    json.loads((tmp_path / "summary.json").read_text())
    # All that can be printed is still there to be read, and more than once.
    longest = max(re.findall(r"[ -~]+", evil), key=len)
    assert parsed.words.count(longest) >= 20


def test_masks_and_turns_stand_out(tmp_path):
    contexts = [messages("a <PATCH_MASKED> b"), messages("c <ISSUE_MASKED>")]
    page = write_report(tmp_path, {}, None, [Example("t", contexts)])
    html = page.read_text()
    assert html.count('<span class="mask">&lt;PATCH_MASKED&gt;</span>') == 1
    assert html.count('<span class="mask">&lt;ISSUE_MASKED&gt;</span>') == 1
    assert html.count('class="turn"') == 2
    assert read(page).words.count("1 mask") == 2


@pytest.mark.parametrize(
    "texts",
    [
        ("x" * 1_000_000, "y" * 1_000_000),
        ("a\n" * 500_000, "b\n" * 500_000),
        ("\n".join("ab"[n * n % 3 % 2] for n in range(5000)), "\n".join("ab"[n % 2] for n in range(5000))),
        ("\n".join(f"{n % 70} w w w" for n in range(3000)), "\n".join(f"{n * 7 % 71} w w v" for n in range(3000))),
        ("<" * 300_000, "&" * 300_000),
        ("<A_" * 300_000, "\u202e" * 300_000),
    ],
)
def test_huge_texts_give_small_pages(tmp_path, texts):
    page = write_report(tmp_path, {}, None, [Example("t", [text(part) for part in texts])])
    assert page.stat().st_size < 1_500_000
    parsed = read(page)
    assert "shortened" in parsed.words or "are compared" in parsed.words


def test_the_page_never_grows_over_its_limit(tmp_path):
    many = (Example(f"t{n}", [text(f"left {n}\n" * 200), text(f"right {n}\n" * 200)]) for n in range(200))
    page = write_report(tmp_path, {}, None, many, max_bytes=300_000)
    assert 150_000 < page.stat().st_size < 320_000
    assert "more examples were left out" in read(page).words


def encoded(size, colour, kind="PNG", mode="RGB", **options) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, colour).save(stream, kind, **options)
    return stream.getvalue()


def image(data: bytes) -> Context:
    return Context(kind="images", images=[ImageRef(bytes=data)])


def test_images_side_by_side_as_small_pictures(tmp_path):
    secret = b"GPS-of-my-home"
    exif = Image.Exif()
    exif[0x010E] = secret.decode()
    left = encoded((2000, 1000), "red", "JPEG", exif=exif)
    assert secret in left
    right = Image.open(io.BytesIO(encoded((2000, 1000), "red")))
    right.paste("blue", (0, 0, 1000, 500))
    stream = io.BytesIO()
    right.save(stream, "PNG")
    example = Example("i", [image(left), image(stream.getvalue())], facts={"cosine": 0.9})
    page = write_report(tmp_path, {}, None, [example])
    parsed = read(page)
    urls = [attributes["src"] for attributes in parsed.all("img")]
    assert len(urls) == 3
    for url in urls:
        data = base64.b64decode(url.partition(",")[2])
        assert secret not in data
        with Image.open(io.BytesIO(data)) as shown:
            assert max(shown.size) <= 448
    assert "25.0% of the pixels differ" in parsed.words
    assert page.stat().st_size < 100_000


def test_images_that_cannot_be_shown_are_named(tmp_path):
    noise = Image.effect_noise((600, 600), 100).convert("RGB")
    stream = io.BytesIO()
    noise.save(stream, "PNG")
    broken = encoded((50, 50), "red")[:60]
    contexts = [image(broken), image(stream.getvalue())]
    page = write_report(tmp_path, {}, None, [Example("i", contexts)])
    assert "cannot be shown" in read(page).words
    assert page.stat().st_size < 400_000
    gone = Context(kind="images", images=[ImageRef(path="/nowhere/<b>.png")])
    assert "cannot be shown" in read(write_report(tmp_path, {}, None, [Example("i", [gone, gone])])).words


def test_show_writes_a_report_of_any_file(tmp_path):
    pairs = [
        ContrastivePair(
            pair_id=f"p{n}",
            domain=("<i>code", "image")[n % 2],
            query="which?",
            answer=f"{n}",
            supporting=messages(f"<PATCH_MASKED> {n}") if n % 2 == 0 else image(encoded((9, 9), (n, 0, 0))),
            confounders=[messages(f"other {n}") if n % 2 == 0 else image(encoded((9, 9), (0, n + 1, 0)))],
            split=("train", "probe")[n % 3 == 0],
        )
        for n in range(12)
    ]
    path = tmp_path / "pairs.parquet"
    write_pairs(pairs, path)
    first, second = tmp_path / "a", tmp_path / "b"
    for out in (first, second):
        done = CliRunner().invoke(app, ["show", str(path), "--out", str(out), "-n", "5", "--seed", "3"])
        assert done.exit_code == 0, done.output
    assert (first / "index.html").read_bytes() == (second / "index.html").read_bytes()
    summary = json.loads((first / "summary.json").read_text())
    assert (summary["pairs"], summary["shown"]) == (12, 5)
    assert summary["domain"] == {"<i>code": 6, "image": 6}
    assert summary["split"] == {"probe": 4, "train": 8}
    parsed = read(first / "index.html")
    assert sum(a.get("class") == "card example" for a in parsed.all("details")) == 5
    for words in ("context, characters", "context, bytes", "context, turns", "answer, characters"):
        assert words in parsed.words


def test_show_names_a_file_that_is_none(tmp_path):
    done = CliRunner().invoke(app, ["show", str(tmp_path / "no.parquet"), "--out", str(tmp_path / "r")])
    assert done.exit_code == 1
    assert "there is no such file" in done.output
    assert not (tmp_path / "r").exists()
    (tmp_path / "file").write_text("x")
    pair = ContrastivePair(
        pair_id="p", domain="d", query="q", answer="a", supporting=text("x"), confounders=[text("y")]
    )
    write_pairs([pair], tmp_path / "p.jsonl")
    done = CliRunner().invoke(app, ["show", str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "file")])
    assert done.exit_code == 1
    assert str(tmp_path / "file") in done.output
