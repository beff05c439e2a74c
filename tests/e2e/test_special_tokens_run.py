"""Two steps on pictures: pairs that spell placeholders are left out, control tokens split, a NUL refused."""

from __future__ import annotations

import json

import pytest
from image_job import PAIRS, bright_pair, job_keys, write_data

from contextrl_verl.launch import JobError, run_trainer
from contextrl_verl.pairs import Context, ContrastivePair
from contextrl_verl.pairs.files import write_pairs

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1500)]

CONTROL, PLACEHOLDER = "a<|im_end|>b", "a<|image_pad|>b"


def run_pair(number: int, text: str) -> ContrastivePair:
    """A pair of texts, as of agents' runs, that spell something."""
    contexts = [Context(kind="text", text=f"{word} {text}") for word in ("bright", "dark")]
    return ContrastivePair(
        pair_id=f"run{number}", domain="bright", query="which is bright?", answer="this", supporting=contexts[0],
        confounders=contexts[1:],
    )  # fmt: skip


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    write_data(folder, "qwen2_5_vl")
    pictures = [bright_pair(number, "train") for number in range(PAIRS // 2)]
    asked = [pair.model_copy(update={"query": f"{CONTROL}?"}) for pair in pictures]
    asked[0] = pictures[0].model_copy(update={"query": f"{PLACEHOLDER}?"})
    asked += [run_pair(number, PLACEHOLDER if number == 0 else CONTROL) for number in range(PAIRS // 2)]
    write_pairs(asked, folder / "train_pairs.parquet")
    write_pairs(asked[:4], folder / "heldout_pairs.parquet")
    keys = job_keys(folder, folder) | {
        "data.train_files": [str(folder / "train_rows.parquet")],
        "data.val_files": [str(folder / "heldout_rows.parquet")],
        "contextrl.pairs.train_files": [str(folder / "train_pairs.parquet")],
        "contextrl.pairs.val_files": [str(folder / "heldout_pairs.parquet")],
        "contextrl.prompt.special_tokens_in_text": "split",
        "actor_rollout_ref.model.path": str(folder / "model"),
        "actor_rollout_ref.actor.use_dynamic_bsz": True,
        "algorithm.filter_groups.enable": False,
        "actor_rollout_ref.model.external_lib": ["contextrl_verl.grpo.register"],
        "trainer.total_training_steps": 2,
        "trainer.test_freq": 2,
        "trainer.val_before_train": False,
    }
    return folder, keys


def test_a_nul_is_refused_before_ray_starts(job, tmp_path):
    _, keys = job
    row = json.loads(run_pair(0, CONTROL).model_dump_json())
    row["query"] = "\0image0\0 which?"
    (tmp_path / "nul.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(JobError):
        run_trainer(
            keys | {"contextrl.pairs.train_files": [str(tmp_path / "nul.jsonl")]}, tmp_path / "out", timeout=600
        )
    log = (tmp_path / "out" / "trainer.log").read_text()
    assert "row 0: field 'query'" in log
    assert "character 0 is NUL" in log
    assert "Started a local Ray instance" not in log


def test_placeholders_are_left_out_and_control_tokens_are_text(job):
    folder, keys = job
    history = run_trainer(keys, folder, timeout=1200)
    steps = [metrics for _, metrics in history if "actor/contextrl/loss" in metrics]
    assert [metrics["actor/contextrl/pairs"] for metrics in steps] == [PAIRS / 2] * 2
    assert "val-core/contextrl/selection/acc/mean@1" in history[-1][1]
    log = (folder / "trainer.log").read_text()
    assert "left out: 2 pairs with the processor's placeholder tokens in their text" in log
    for step in (1, 2):
        rows = [json.loads(line) for line in (folder / "rollouts" / f"{step}.jsonl").read_text().splitlines()]
        pairs = [row["input"] for row in rows if "which? A or B" in row["input"]]
        assert len(pairs) == PAIRS
        # verl writes prompts without their special tokens: what is left of one was ordinary text to the model.
        assert all(CONTROL in text and "<|image_pad|>" not in text for text in pairs)
