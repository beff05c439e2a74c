from collections import Counter

import pytest

from contextrl_verl.demo.evidence_pairs import evidence_pairs, rl_rows


def _content(pair):
    return pair.query, pair.answer, pair.supporting.text, pair.confounders[0].text


def test_same_arguments_same_pairs_and_another_seed_other_pairs():
    assert evidence_pairs(50, 3) == evidence_pairs(50, 3)
    assert [_content(pair) for pair in evidence_pairs(50, 3)] != [_content(pair) for pair in evidence_pairs(50, 4)]
    assert evidence_pairs(49, 3) == evidence_pairs(50, 3)[:49]


@pytest.mark.parametrize(("split", "kind"), [("train", "train"), ("heldout", "validation")])
def test_contexts_differ_in_the_answer_only_and_each_supports_once(split, kind):
    pairs = evidence_pairs(400, 1, split)
    for pair in pairs:
        right, wrong = pair.supporting.text, pair.confounders[0].text
        different = [(one, other) for one, other in zip(right, wrong, strict=True) if one != other]
        assert len(different) == 1
        assert different[0][0] == pair.answer
        assert pair.split == kind
    right = Counter((pair.query, pair.supporting.text) for pair in pairs)
    wrong = Counter((pair.query, pair.confounders[0].text) for pair in pairs)
    assert right == wrong
    assert len({_content(pair) for pair in pairs}) == len({pair.pair_id for pair in pairs}) == 400


def test_splits_share_no_question_with_the_same_two_values():
    def cells(split, n):
        digits = [
            [next(filter(str.isdigit, one.text)) for one in pair.contexts] for pair in evidence_pairs(n, 0, split)
        ]
        return {(pair.query, frozenset(two)) for pair, two in zip(evidence_pairs(n, 0, split), digits, strict=True)}

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
