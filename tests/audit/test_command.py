"""``contextrl audit`` from files to exit code; images; samples of large sets; groups of one's own."""

import io
import json
import random
import re

import pytest
from audit.planted import add_text, couples
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("sklearn")

from contextrl_verl.cli import app
from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs import Context, ContrastivePair, ImageRef
from contextrl_verl.pairs.files import write_pairs
from data_prep.audit.features import _TRACES, FeatureGroup, register
from data_prep.audit.result import print_result
from data_prep.audit.run import audit
from data_prep.images.forensics import image_features

QUICK = ["--group", "masks", "--group", "position", "--repeats", "1"]


def run(*arguments):
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


def one_paragraph(result):
    text = result.stderr.strip()
    assert result.exit_code == 2
    assert "Traceback" not in text
    assert "Fix: " in text
    assert "\n" not in text
    return text


def masked(rng, contexts, row, answer):
    return [add_text(contexts[0], " <PATCH_MASKED>"), *contexts[1:]]


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
@pytest.mark.parametrize("plant", [None, masked])
def test_files_to_exit_code(tmp_path, ending, plant):
    path = tmp_path / f"pairs.{ending}"
    write_pairs(couples(60, 1, plant=plant), path)
    result = run(path, "--out", tmp_path / "deep" / "audit", *QUICK)
    assert result.exit_code == (1 if plant else 0), result.output
    assert re.search(r"masks .*" + ("shortcut" if plant else "at chance"), result.stdout)
    record = json.loads((tmp_path / "deep" / "audit" / "audit.json").read_text())
    assert record["passed"] == (plant is None)
    assert record["shortcuts"] == ([{"domain": "test", "group": "masks"}] if plant else [])
    assert record["pairs"] == record["audited"] == 120
    assert record["domains"][0]["directions"]["both"] == 1
    assert [p.name for p in (tmp_path / "deep" / "audit").iterdir()] == ["audit.json"]


def test_several_files_are_one_audit(tmp_path):
    for number in range(2):
        pairs = couples(10, number, domain="test")
        write_pairs(
            (p.model_copy(update={"provenance": {}, "pair_id": f"{number}{p.pair_id}"}) for p in pairs),
            tmp_path / f"{number}.jsonl",
        )
    assert "40 pairs of 20 couples" in run(tmp_path / "0.jsonl", tmp_path / "1.jsonl", *QUICK).stdout


def test_too_few_pairs(tmp_path):
    path = tmp_path / "pairs.parquet"
    write_pairs(couples(14, 1), path)
    text = one_paragraph(run(path, "--out", tmp_path / "out"))
    assert "test: 28" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option", ["--folds=1", "--repeats=0", "--threshold=1", "--evidence-threshold=0", "--max-pairs=3"]
)
def test_options_out_of_range(option):
    result = run("pairs.jsonl", option)
    assert result.exit_code == 2
    assert f"Invalid value for '{option.partition('=')[0]}'" in result.stderr


def test_bad_files_and_groups(tmp_path):
    junk = tmp_path / "junk.parquet"
    junk.write_bytes(random.Random(0).randbytes(500))
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"pair_id": 3}\n')
    for path, named in ((junk, "junk"), (bad, "row 0"), (tmp_path / "none.jsonl", "none.jsonl")):
        assert named in one_paragraph(run(path))
    path = tmp_path / "pairs.jsonl"
    write_pairs(couples(20, 1), path)
    assert "'weather'" in one_paragraph(run(path, "--group", "weather"))
    assert str(path / "below") in one_paragraph(run(path, "--out", path / "below", *QUICK))


def picture(rng, side, quality):
    image = Image.new("RGB", (side, side))
    image.putdata([tuple(rng.randbytes(3)) for _ in range(side * side)])
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=quality)
    return ImageRef(bytes=stored.getvalue())


def image_pairs(count, edited_quality):
    """Couples of two pictures, the second stored at another quality; answers say which one is meant or not."""
    rng = random.Random(3)
    for couple in range(count):
        images = [
            Context(kind="images", images=[picture(rng, rng.choice([16, 24]), quality)])
            for quality in (80, edited_quality)
        ]
        for right in (0, 1):
            yield ContrastivePair(
                pair_id=f"{couple}-{right}",
                domain="image",
                query="which colour?",
                answer=("red", "blue")[right],
                supporting=images[right],
                confounders=[images[1 - right]],
            )


@pytest.mark.parametrize("quality", [80, 40])
def test_images_by_size_of_file_and_picture(quality):
    """One direction always answers "blue" and is the edited picture: if editing shows in the bytes, that tells."""
    result = audit(image_pairs(60, quality), repeats=1)
    found = {row.group for row in result.shortcuts}
    assert ("images x answer" in found) == (quality != 80)
    assert result.row("images").accuracy == pytest.approx(0.5)
    assert result.row("turns").verdict == "all equal"
    if quality == 80:
        assert result.passed, result.shortcuts
        assert len(image_features(next(image_pairs(1, 80)).supporting.images[0].bytes)) == _TRACES


def test_image_paths_and_broken_images(tmp_path):
    pairs = list(image_pairs(15, 80))
    for number, pair in enumerate(pairs):
        file = tmp_path / f"{number}.jpg"
        file.write_bytes(pair.supporting.images[0].bytes)
        pair.supporting.images[0] = ImageRef(path=file.name)
    path = tmp_path / "pairs.parquet"
    write_pairs(pairs, path)
    assert run(path, "--group", "images", "--repeats", "1").exit_code == 0
    (tmp_path / "7.jpg").write_bytes(b"no picture")
    text = one_paragraph(run(path, "--group", "images"))
    assert "row 6, pair '3-0'" in text, "its confounder is the picture that supports row 7"
    assert "7.jpg" in text
    (tmp_path / "7.jpg").unlink()
    assert "7.jpg" in one_paragraph(run(path, "--group", "images"))


def test_a_sample_holds_whole_couples_and_does_not_depend_on_the_order():
    pairs = list(couples(100, 1))
    first, second = (
        audit(given, groups=["lengths"], repeats=1, max_pairs=60, evidence=False) for given in (pairs, pairs[::-1])
    )
    for result in (first, second):
        assert result.pairs == 200
        assert result.audited == 60
        assert result.domains[0].directions.couples == 30
        assert result.domains[0].directions.both == 1
        assert any("60 of 200" in note for note in result.notes)
    assert first.domains == second.domains


def test_the_stream_is_read_once_and_not_held():
    import weakref

    alive = []

    def stream():
        for pair in couples(60, 1):
            alive.append(weakref.ref(pair))
            yield pair
            assert sum(reference() is not None for reference in alive) < 10

    audit(stream(), groups=["lengths"], repeats=1, evidence=False)
    assert len(alive) == 120


def test_a_group_of_ones_own():
    def vowels(view):
        return [[context.text.count("a")] for context in view.contexts]

    def more(rng, contexts, row, answer):
        return [add_text(contexts[0], "a" * 400), *contexts[1:]]

    group = FeatureGroup("vowels", "how often the letter a occurs", columns=vowels)
    assert audit(couples(50, 1, plant=more), groups=[group], repeats=1).row("vowels").verdict == "shortcut"


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        (lambda view: [[float("nan")]] * len(view.contexts), "not finite"),
        (lambda view: [[1.0]], "shape"),
        (lambda view: [[1.0] * (1 + view.index)] * len(view.contexts), "columns"),
    ],
)
def test_a_bad_group_is_named(columns, named):
    with pytest.raises(ConfigError, match=named) as caught:
        audit(couples(20, 1), groups=[FeatureGroup("mine", "", columns=columns)])
    assert "'mine'" in str(caught.value)


def test_groups_need_a_name_of_their_own():
    with pytest.raises(ConfigError, match="twice"):
        register(FeatureGroup("lengths", "", columns=lambda view: [[1.0]]))


def test_odd_characters_do_not_stop_the_audit():
    odd = ["\x00", "\ud800", "[bold]", "$x_", "é" * 3, " ", "\r\n", "<ELIDED 1,000,000,000,000,000,000 tokens>"]
    pairs = [
        pair.model_copy(
            update={
                "supporting": add_text(pair.supporting, odd[n % len(odd)]),
                "answer": pair.answer + odd[-n % len(odd)],
                "provenance": {"number": [1e300, -1, True][n % 3], "run": None, "x": {"run": ["a", {"b": 1}]}},
                "domain": "[red]$d_",
            }
        )
        for n, pair in enumerate(couples(30, 1))
    ]
    result = audit(pairs, repeats=1)
    assert len(result.domains) == 1
    assert json.loads(result.as_json())["domains"][0]["domain"] == "[red]$d_"
    from rich.console import Console

    console = Console(file=io.StringIO(), width=120)
    print_result(result, console)
    assert "[red]$d_: 60 pairs" in console.file.getvalue()
