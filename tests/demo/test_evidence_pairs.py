from collections import Counter

import pytest

from contextrl_verl.demo.evidence_pairs import evidence_pairs, rl_rows


def _content(pair):
    return pair["query"], pair["answer"], pair["supporting"]["text"], pair["confounders"][0]["text"]


def test_same_arguments_same_pairs_and_another_seed_other_pairs():
    assert list(evidence_pairs(50, 3)) == list(evidence_pairs(50, 3))
    assert [_content(pair) for pair in evidence_pairs(50, 3)] != [_content(pair) for pair in evidence_pairs(50, 4)]


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_contexts_differ_in_the_answer_only_and_each_supports_once(split):
    pairs = list(evidence_pairs(400, 1, split))
    for pair in pairs:
        right, wrong = pair["supporting"]["text"], pair["confounders"][0]["text"]
        different = [(one, other) for one, other in zip(right, wrong, strict=True) if one != other]
        assert len(different) == 1
        assert different[0][0] == pair["answer"]
        assert pair["split"] == split
    right = Counter((pair["query"], pair["supporting"]["text"]) for pair in pairs)
    wrong = Counter((pair["query"], pair["confounders"][0]["text"]) for pair in pairs)
    assert right == wrong
    assert len({_content(pair) for pair in pairs}) == len({pair["pair_id"] for pair in pairs}) == 400


def test_splits_share_no_question_with_the_same_two_values():
    def other(pair):
        right, wrong = pair["supporting"]["text"], pair["confounders"][0]["text"]
        return next(there for here, there in zip(right, wrong, strict=True) if here != there)

    def cells(split, n):
        return {(pair["query"], frozenset((pair["answer"], other(pair)))) for pair in evidence_pairs(n, 0, split)}

    assert not cells("train", 4000) & cells("heldout", 1000)


def test_asking_for_too_much_or_an_unknown_split_says_what_to_do():
    with pytest.raises(ValueError, match="ask for fewer"):
        evidence_pairs(10**6)
    with pytest.raises(ValueError, match="use one of train, heldout"):
        evidence_pairs(4, split="test")


def test_rl_rows_have_the_columns_verl_reads():
    rows = rl_rows(30, 5)
    assert rows == rl_rows(30, 5)
    for index, row in enumerate(rows):
        assert set(row) == {"data_source", "prompt", "ability", "reward_model", "extra_info"}
        assert row["prompt"] == [{"role": "user", "content": f"say {row['reward_model']['ground_truth']}"}]
        assert row["extra_info"] == {"index": index, "split": "train"}
