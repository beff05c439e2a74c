"""The length filter: what is kept is short enough in every order it may be shown in."""

from __future__ import annotations

import os
from itertools import permutations

import pytest

from contextrl_verl.errors import ConfigError
from contextrl_verl.grpo.pair_source import PairSource
from contextrl_verl.pairs import Context, ContrastivePair
from contextrl_verl.pairs.files import write_pairs
from contextrl_verl.pairs.prompting import PromptRenderer, encode_prompt
from contextrl_verl.settings import Settings


def pair_of(name: str, *texts: str) -> ContrastivePair:
    supporting, *confounders = (Context(kind="text", text=text) for text in texts)
    return ContrastivePair(
        pair_id=name, domain="d", query="q", answer="a", supporting=supporting, confounders=confounders
    )


@pytest.fixture
def source(tmp_path, demo_tokenizer):
    """``source(pairs, limit)``, with a template under which tokens merge across contexts."""
    template = tmp_path / "adjacent.jinja"
    template.write_text("{% for option in options %}{{ option.text }}{% endfor %}")

    def build(pairs, limit):
        write_pairs(pairs, tmp_path / "pairs.parquet")
        settings = Settings.model_validate(
            {
                "prompt": {"template": str(template), "labels": ["A", "B", "yes"]},
                "run": {"max_prompt_length": limit},
            }
        )
        return PairSource([str(tmp_path / "pairs.parquet")], settings, demo_tokenizer, None, "key")

    return build


def test_a_pair_is_as_long_as_in_its_longest_order(source, demo_tokenizer):
    # "con", "text" and "st" are shortest in turn, longest as "con" "st" "text".
    pairs = [pair_of("three", "con", "text", "st"), pair_of("short", "e", "x")]
    opened = source(pairs, 1000)

    def length(pair, order):
        return len(encode_prompt(PromptRenderer(opened.prompt).messages(pair, order), demo_tokenizer, opened.prompt))

    lengths = {order: length(pairs[0], order) for order in permutations(range(3))}
    assert max(lengths.values()) > max(lengths[o] for o in ((0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)))
    longest = max(lengths.values())
    assert source(pairs, longest).ids() == ["three", "short"]
    cut = source(pairs, longest - 1)
    assert cut.ids() == ["short"]
    assert sum(cut.dropped.values()) == 1


def test_every_order_that_is_drawn_is_within_the_limit(source, demo_tokenizer):
    pairs = [pair_of(f"p{number}", "con" * number, "text", "st") for number in range(1, 12)]
    opened = source(pairs, 14)
    assert 0 < len(opened) < len(pairs)
    for index in range(len(opened)):
        for epoch in range(20):
            for rotation in range(3):
                messages, _ = opened.messages(opened[index], epoch, rotation)
                assert len(encode_prompt(messages, demo_tokenizer, opened.prompt)) <= 14


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTEXTRL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_second_opening_counts_nothing_and_finds_the_same(source, demo_tokenizer, cache, monkeypatch):
    pairs = [pair_of(f"p{number}", "con" * number, "text", "st") for number in range(1, 12)]
    first = source(pairs, 14)
    demo_tokenizer(["a", "b c"], padding=True)  # leaves its padding behind
    state = (cache.parent / "pairs.parquet").stat()
    with monkeypatch.context() as patch:
        patch.setattr("contextrl_verl.grpo.pair_source.encode_prompt", None)
        again = PairSource([str(cache.parent / "pairs.parquet")], first.settings, demo_tokenizer, None, "key")
    for name in ("usable", "dropped", "longest", "most_images"):
        assert getattr(again, name) == getattr(first, name)
    # Another limit, template or file is counted anew, and so is what somebody has spoilt.
    (kept,) = cache.iterdir()
    assert source(pairs, 1000).usable == list(range(11))
    assert source(pairs[:5], 14).collection.ids == [f"p{number}" for number in range(1, 6)]
    assert len(list(cache.iterdir())) == 3
    write_pairs(pairs, cache.parent / "pairs.parquet")
    os.utime(cache.parent / "pairs.parquet", ns=(state.st_atime_ns, state.st_mtime_ns))
    for spoilt in ("{", "[[1, 0]]", "[" + ", ".join(["[-1, 0]"] * 11) + "]", "null"):
        kept.write_text(spoilt)
        opened = PairSource([str(cache.parent / "pairs.parquet")], first.settings, demo_tokenizer, None, "key")
        assert opened.usable == first.usable


def test_without_a_place_to_keep_counts_they_are_counted(source, cache):
    cache.write_text("a file, not a folder")
    assert len(source([pair_of("one", "con", "text")], 100)) == 1


def test_no_pair_left_is_an_error(source):
    with pytest.raises(ConfigError, match=r"longer than data\.max_prompt_length=5"):
        source([pair_of("three", "con", "text", "st")], 5)
