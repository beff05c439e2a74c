"""verl's own supervised trainer on selections: Ray, FSDP2, and a saved folder that transformers loads."""

from __future__ import annotations

import pytest
import torch
from image_job import bright_pair
from pair_factory import text_pair

from contextrl_verl.demo.evidence_pairs import evidence_pairs
from contextrl_verl.demo.tiny_model import make_model, make_tokenizer
from contextrl_verl.demo.tiny_vision import make_model as make_vision_model
from contextrl_verl.demo.tiny_vision import make_processor
from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.files import write_pairs
from contextrl_verl.pairs.prompting import PromptConfig, PromptRenderer, encode_prompt, images_of, prompt_text
from contextrl_verl.sft.run import run_selection_sft

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PROMPT = PromptConfig(template="short")
STEPS = 16


def keys(folder, **more):
    """Overrides of a small job on the files in ``folder``."""
    return {
        "model.path": str(folder / "model"),
        "contextrl.pairs.train_files": [str(folder / "pairs.parquet")],
        "contextrl.prompt.template": "short",
        "data.max_prompt_length": 128,
        "optim.lr": 3e-3,
        **more,
    }


@torch.no_grad()
def replies(model, tokenizer, pairs) -> tuple[list[int], float]:
    """The likeliest token after every prompt, in both orders; and the mean probability of the right reply."""
    labels, end = tokenizer.encode("AB"), tokenizer.convert_tokens_to_ids("<|im_end|>")
    likeliest, right = [], []
    for pair in pairs:
        for order in ([0, 1], [1, 0]):
            prompt = encode_prompt(PromptRenderer(PROMPT).messages(pair, order), tokenizer, PROMPT)
            label = labels[order.index(0)]
            logits = model(torch.tensor([[*prompt, label]])).logits[0, -2:].softmax(-1)
            likeliest.append(int(logits[0].argmax()))
            right.append(float(logits[0, label] * logits[1, end]))
    return likeliest, sum(right) / len(right)


def test_the_model_learns_to_reply_with_an_option_and_is_saved_whole(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    before = make_model(tmp_path / "model", make_tokenizer())
    pairs = evidence_pairs(300, 1, "train")
    write_pairs(pairs, tmp_path / "pairs.parquet")
    job = keys(tmp_path, **{"data.train_batch_size": 64, "trainer.total_training_steps": STEPS})
    losses = []
    folder = run_selection_sft(
        job, tmp_path / "run", on_metrics=lambda step, metrics: losses.append(metrics["train/loss"]), timeout=600
    )

    assert len(losses) == STEPS
    # A new model is worse than guessing among all tokens; guessing among the two labels costs log(2) / 2.
    assert losses[0] > 3
    assert losses[-1] < 1
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    labels = set(tokenizer.encode("AB"))
    old, old_right = replies(before, tokenizer, pairs[:20])
    new, new_right = replies(model, tokenizer, pairs[:20])
    assert not set(old) & labels
    assert set(new) <= labels
    assert old_right < 0.05
    assert new_right > 0.3

    log = (tmp_path / "run" / "trainer.log").stat().st_mtime_ns
    assert run_selection_sft(job, tmp_path / "run") == folder
    assert (tmp_path / "run" / "trainer.log").stat().st_mtime_ns == log, "it trained again"


@pytest.mark.slow
def test_a_job_that_cannot_be_right_is_one_sentence(tmp_path):
    make_model(tmp_path / "model", make_tokenizer())
    write_pairs([text_pair(number) for number in range(3)], tmp_path / "pairs.parquet")
    few = keys(tmp_path, **{"data.train_batch_size": 8})
    with pytest.raises(ConfigError, match=r"^a batch needs 8 different pairs, and .* holds 3 usable ones\. Fix: .*\.$"):
        run_selection_sft(few, tmp_path / "few", timeout=300)
    uneven = keys(tmp_path, **{"data.train_batch_size": 3, "trainer.n_gpus_per_node": 2})
    with pytest.raises(ConfigError, match=r"^data.train_batch_size is 3, .* 2 data-parallel ranks .*Fix: a multiple"):
        run_selection_sft(uneven, tmp_path / "uneven", timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_images_on_two_ranks(tmp_path, family):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    before = make_vision_model(make_processor(make_tokenizer(), family), family, tmp_path / "model")
    pairs = [bright_pair(number, "train") for number in range(48)] + [text_pair(number) for number in range(16)]
    write_pairs(pairs, tmp_path / "pairs.parquet")
    losses = []
    folder = run_selection_sft(
        keys(
            tmp_path,
            **{
                "data.train_batch_size": 16,
                "contextrl.pairs.orders": "both",
                # Small micro-batches: some hold no image at all.
                "data.use_dynamic_bsz": False,
                "data.micro_batch_size_per_gpu": 2,
                "trainer.n_gpus_per_node": 2,
            },
        ),
        tmp_path / "run",
        on_metrics=lambda step, metrics: losses.append(metrics["train/loss"]),
        timeout=800,
    )
    assert len(losses) == 8
    assert losses[-1] < losses[0] / 2
    processor = AutoProcessor.from_pretrained(folder)
    after = AutoModelForImageTextToText.from_pretrained(folder)
    changed = {
        name for name, weight in after.state_dict().items() if not torch.equal(weight, before.state_dict()[name])
    }
    assert any("visual" in name for name in changed)
    messages = PromptRenderer(PROMPT).messages(pairs[0], [1, 0])
    given = processor(text=[prompt_text(processor, messages, PROMPT)], images=images_of(messages), return_tensors="pt")
    with torch.no_grad():
        likeliest = int(after(**given).logits[0, -1].argmax())
    assert likeliest in processor.tokenizer.encode("AB")
