"""The pair record and its files."""

from __future__ import annotations

import json
import pickle
import resource

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_factory import text_pair

from contextrl_verl.pairs import ARROW_SCHEMA, Context, ContrastivePair, ImageRef, Message, PairFormatError, parse_pair
from contextrl_verl.pairs.files import PairCollection, PairFile, write_pairs

words = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=40)
kinds = {
    "text": st.builds(lambda t: Context(kind="text", text=t), words),
    "messages": st.builds(
        lambda m: Context(kind="messages", messages=m),
        st.lists(st.builds(Message, role=words, content=words), min_size=1),
    ),
    "images": st.builds(
        lambda b: Context(kind="images", images=[ImageRef(bytes=b)]), st.binary(min_size=1, max_size=50)
    ),
}


@st.composite
def pairs(draw):
    context = kinds[draw(st.sampled_from(sorted(kinds)))]
    support, *others = draw(st.lists(context, min_size=2, max_size=4, unique_by=lambda c: repr(c)))
    return ContrastivePair(
        pair_id=draw(words),
        domain="d",
        query=draw(words),
        answer=draw(words),
        supporting=support,
        confounders=others,
        provenance=draw(st.dictionaries(words, words, max_size=2)),
        split="probe",
    )


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
@given(written=st.lists(pairs(), min_size=1, max_size=4, unique_by=lambda p: p.pair_id))
@settings(deadline=None, max_examples=25)
def test_round_trip(tmp_path_factory, ending, written):
    path = tmp_path_factory.mktemp("pairs") / f"p.{ending}"
    assert write_pairs(written, path) == len(written)
    assert list(PairFile(path)) == written


def test_schema_on_disk_is_the_one_promised(tmp_path):
    write_pairs([text_pair(0)], tmp_path / "p.parquet")
    stored = pq.read_schema(tmp_path / "p.parquet")
    assert stored.equals(ARROW_SCHEMA)
    assert stored.metadata[b"contextrl.schema_version"] == b"1"


@pytest.mark.parametrize(
    ("change", "field", "fix"),
    [
        ({"split": "test"}, "split", "use one of"),
        ({"query": None}, "query", "give a string"),
        ({"confounders": []}, "confounders", "at least one"),
        ({"supporting": {"kind": "text"}}, "supporting", "mend"),
        ({"schema_version": 9}, "schema_version", "mend"),
        ({"verdict": 1}, "verdict", "remove"),
    ],
)
def test_bad_rows_name_row_field_value_and_fix(change, field, fix):
    row = {**text_pair(0).to_row(), **change}
    with pytest.raises(PairFormatError) as caught:
        parse_pair(row, "file.parquet: row 7")
    message = str(caught.value)
    assert "row 7" in message
    assert f"'{field}" in message
    assert fix in message
    assert "\n" not in message


def test_confounder_equal_to_the_supporting_context_is_refused():
    row = text_pair(0).to_row()
    row["confounders"] = [row["supporting"]]
    with pytest.raises(PairFormatError, match="equals the supporting"):
        parse_pair(row, "x")


def test_missing_empty_and_foreign_files(tmp_path):
    with pytest.raises(PairFormatError, match="no such file"):
        PairFile(tmp_path / "none.parquet")
    write_pairs([], tmp_path / "empty.parquet")
    with pytest.raises(PairFormatError, match="zero pairs"):
        PairFile(tmp_path / "empty.parquet")
    (tmp_path / "bad.jsonl").write_text('{"pair_id": 1}\nnot json\n')
    with pytest.raises(PairFormatError, match="row 1 is not JSON"):
        PairFile(tmp_path / "bad.jsonl")[1]
    import pandas as pd

    pd.DataFrame({"prompt": ["x"]}).to_parquet(tmp_path / "rl.parquet")
    with pytest.raises(PairFormatError, match=r"columns .* missing"):
        PairFile(tmp_path / "rl.parquet")


def test_a_failed_write_leaves_nothing(tmp_path):
    def broken():
        yield text_pair(0)
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError):
        write_pairs(broken(), tmp_path / "p.parquet")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PairFormatError, match="second time"):
        write_pairs([text_pair(0), text_pair(0)], tmp_path / "p.parquet")


def test_collection_over_files(tmp_path):
    write_pairs([text_pair(0), text_pair(1, confounders=3)], tmp_path / "a.parquet")
    write_pairs([text_pair(2)], tmp_path / "b.jsonl")
    both = PairCollection([tmp_path / "a.parquet", tmp_path / "b.jsonl"])
    assert both.ids == ["p0", "p1", "p2"]
    assert both.options == [2, 4, 2]
    assert both[2] == text_pair(2)
    with pytest.raises(PairFormatError, match="already used"):
        PairCollection([tmp_path / "a.parquet", tmp_path / "a.parquet"])


def test_random_access_survives_pickling(tmp_path):
    write_pairs([text_pair(n) for n in range(200)], tmp_path / "p.parquet")
    file = PairFile(tmp_path / "p.parquet")
    assert file[150] == text_pair(150)
    assert pickle.loads(pickle.dumps(file))[3] == text_pair(3)


def test_scanning_many_rows_does_not_load_images(tmp_path):
    """100,000 rows with 4 kB images each are 800 MB; the scan may not grow the process by a tenth of it."""
    image = bytes(range(256)) * 16

    def many():
        for n in range(100_000):
            left, right = (
                Context(kind="images", images=[ImageRef(bytes=image + bytes([b]), path=None)]) for b in (0, 1)
            )
            scalars = {
                "schema_version": 1,
                "domain": "d",
                "query": "q",
                "answer": "a",
                "provenance": {},
                "split": "train",
            }
            yield ContrastivePair.model_construct(pair_id=str(n), supporting=left, confounders=[right], **scalars)

    write_pairs(many(), tmp_path / "images.parquet")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = list(PairFile(tmp_path / "images.parquet").without_images())
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert len(rows) == 100_000
    assert rows[5]["kind"] == "images"
    assert grown < 120, f"the scan grew the process by {grown:.0f} MB"
    json.dumps(rows[0])


def _with_image_paths(*paths: str) -> ContrastivePair:
    contexts = [Context(kind="images", images=[ImageRef(path=path)]) for path in paths]
    return text_pair(1).model_copy(update={"supporting": contexts[0], "confounders": contexts[1:]})


@pytest.mark.parametrize("ending", [".parquet", ".jsonl"])
def test_image_paths_start_at_the_files_folder(tmp_path, ending):
    write_pairs([_with_image_paths("pictures/a.png", "b.png")], tmp_path / f"pairs{ending}")
    pair = PairFile(tmp_path / f"pairs{ending}")[0]
    assert [context.images[0].path for context in pair.contexts] == [
        str(tmp_path.resolve() / "pictures" / "a.png"),
        str(tmp_path.resolve() / "b.png"),
    ]


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "link/secret.png"])
def test_image_paths_that_leave_the_folder_are_refused(tmp_path, path):
    inner = tmp_path / "data"
    inner.mkdir()
    (inner / "link").symlink_to(tmp_path)
    write_pairs([_with_image_paths("a.png", path)], inner / "pairs.parquet")
    with pytest.raises(PairFormatError, match=r"row 0: field 'images.path'.*leads out of.*Fix: keep the images"):
        PairFile(inner / "pairs.parquet")[0]


@pytest.mark.parametrize(
    "place", ["query", "answer", "supporting.text", "confounders.0.text", "supporting.messages.1.content"]
)
def test_a_nul_is_refused_wherever_text_is_shown(place):
    row = text_pair(0).to_row()
    if "messages" in place:
        turns = [{"role": "tool", "content": str(at)} for at in range(2)]
        row |= {
            "supporting": {"kind": "messages", "messages": turns},
            "confounders": [{"kind": "messages", "messages": turns[:1]}],
        }
    *steps, last = place.split(".")
    inner = row
    for step in steps:
        inner = inner[int(step) if step.isdigit() else step]
    inner[last] = "ab\0image0\0"
    with pytest.raises(PairFormatError, match=rf"row 3: field '{place}' has value .*character 2 is NUL .* Fix: mend"):
        parse_pair(row, "row 3")
