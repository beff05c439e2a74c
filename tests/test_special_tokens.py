"""Text of pairs that spells special tokens: kept, split, or left out where a placeholder would break a batch."""

from __future__ import annotations

import logging
from collections import Counter

import pytest
from image_factory import image_pair
from job_factory import job_on, verl_loaders
from loop_factory import OneAnswer, run_loop, training_inputs
from pair_factory import text_pair
from tokenizer_families import FAMILIES

from contextrl_verl.demo.tiny_vision import make_processor
from contextrl_verl.errors import ConfigError
from contextrl_verl.grpo.batch_column import ANSWER, CARRIER, REPLY
from contextrl_verl.grpo.job_checks import CHECKS
from contextrl_verl.pairs import Context, ContrastivePair
from contextrl_verl.pairs.prompting import (
    PromptConfig,
    PromptRenderer,
    encode_images,
    encode_prompt,
    encode_text,
    prompt_text,
)
from contextrl_verl.pairs.special_tokens import control_tokens, placeholders
from contextrl_verl.settings import parse_settings

KEEP, SPLIT = (
    PromptConfig(prefill="The option is"),
    PromptConfig(prefill="The option is", special_tokens_in_text="split"),
)


def pair_with(text: str, name: str = "p") -> ContrastivePair:
    contexts = [Context(kind="text", text=f"log {text} line {at}") for at in range(2)]
    return ContrastivePair(
        pair_id=name, domain="d", query=f"{text} value?", answer=f"is {text}", supporting=contexts[0],
        confounders=contexts[1:],
    )  # fmt: skip


def shown(pair: ContrastivePair):
    return PromptRenderer(KEEP).messages(pair, [1, 0])


def specials(ids, tokenizer) -> Counter[int]:
    names = tokenizer.convert_tokens_to_ids(control_tokens(tokenizer))
    return Counter(token for token in ids if token in names)


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(request):
    return FAMILIES[request.param]()


def test_split_reads_special_tokens_in_a_pair_as_text_and_those_of_the_template_as_tokens(tokenizer):
    names = control_tokens(tokenizer)
    assert set(names) >= set(tokenizer.all_special_tokens)
    # Alone, beside each other, within a word, overlapping, and cut.
    text = f"{names[0]} {''.join(names)} x{names[-1]}y {names[0][:2]}{names[0]}{names[0][2:]} {names[0][:-1]}"
    messages, plain = shown(pair_with(text)), shown(pair_with("12"))
    kept, split = (encode_prompt(messages, tokenizer, config) for config in (KEEP, SPLIT))
    own = encode_prompt(plain, tokenizer, KEEP)
    assert specials(split, tokenizer) == specials(own, tokenizer) != specials(kept, tokenizer)
    # Nothing is lost and nothing added: the same text, also where a family's spaces do not survive decoding.
    decoded = tokenizer.decode(split, clean_up_tokenization_spaces=False)
    assert decoded.replace(" ", "") == prompt_text(tokenizer, messages, KEEP).replace(" ", "")
    if type(tokenizer.backend_tokenizer.decoder).__name__ == "ByteLevel":
        assert decoded == prompt_text(tokenizer, messages, KEEP)
    # What the template writes around the text is the same to the token.
    ends = next(at for at, (one, other) in enumerate(zip(own[::-1], split[::-1], strict=False)) if one != other)
    assert ends > 4
    assert own[0] == split[0]


def test_split_changes_nothing_where_no_special_token_is_spelt(tokenizer):
    messages = shown(pair_with("The option is 12\n\n  < | im_end | >  A"))
    assert encode_prompt(messages, tokenizer, SPLIT) == encode_prompt(messages, tokenizer, KEEP)


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl", "llava"])
def processor(request, verl_tokenizer):
    if request.param == "llava":
        from test_processor import CHAT
        from transformers import LlavaProcessor
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        tokenizer = FAMILIES["gemma"]()
        tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
        tokenizer.chat_template = CHAT
        size = {"height": 28, "width": 28}
        images = CLIPImageProcessorPil(size=size, crop_size=size)
        return LlavaProcessor(
            images, tokenizer, patch_size=14, vision_feature_select_strategy="full", chat_template=CHAT
        )
    return make_processor(verl_tokenizer, request.param)


def pictured(text: str) -> ContrastivePair:
    return image_pair(1, [[(56, 56)], [(56, 56)]]).model_copy(update={"query": f"{text}?", "answer": text})


def test_split_in_a_prompt_with_images(processor):
    tokenizer = processor.tokenizer
    control = [name for name in control_tokens(tokenizer) if name not in placeholders(processor)]
    text, plain = shown(pictured(" ".join(control))), shown(pictured("x"))
    split, own = (encode_images(one, tokenizer, SPLIT, processor, return_tensors="pt") for one in (text, plain))
    ids = split["input_ids"][0].tolist()
    assert ids == encode_prompt(text, tokenizer, SPLIT, processor)
    assert specials(ids, tokenizer) == specials(own["input_ids"][0].tolist(), tokenizer)
    assert set(split) == set(own)
    assert (split["pixel_values"] == own["pixel_values"]).all()
    assert all(ids.count(tokenizer.convert_tokens_to_ids(name)) for name in placeholders(processor)[:1])
    assert " ".join(control) in tokenizer.decode(ids)
    assert encode_prompt(plain, tokenizer, KEEP, processor) == own["input_ids"][0].tolist()
    # As vLLM is given it: each image is one placeholder.
    short = encode_text(text, tokenizer, SPLIT, processor)
    assert short.count(tokenizer.convert_tokens_to_ids(placeholders(processor)[0])) == 2


def test_split_needs_a_fast_tokenizer():
    class Slow:
        chat_template = "x"

    with pytest.raises(ConfigError, match=r"is 'split', and Slow is not one .* Fix: contextrl\.prompt\.special.*=keep"):
        encode_prompt(shown(text_pair(0)), Slow(), SPLIT)


def loaders(folder, processor, pairs, *overrides, **files):
    config = job_on(folder, *overrides, pairs=pairs, per_batch=1, batch=3, **files)
    return config, verl_loaders(config, processor.tokenizer, processor)


def rows_of(data, agent):
    return [row for row in (data[at] for at in range(len(data))) if row["agent_name"] == agent]


@pytest.fixture(scope="module")
def qwen(verl_tokenizer):
    return make_processor(verl_tokenizer)


@pytest.mark.parametrize("mode", ["keep", "split"])
def test_pairs_with_placeholders_are_left_out_and_counted(tmp_path, qwen, mode, capsys, caplog, monkeypatch):
    monkeypatch.setenv("CONTEXTRL_CACHE", str(tmp_path / "cache"))
    pairs = [text_pair(0), pair_with("<|image_pad|>", "agent"), pictured("<|video_pad|>")]
    pairs += [pair_with("<|im_end|>", "control"), pair_with("<image>", "a word to this processor")]
    keys = f"contextrl.prompt.special_tokens_in_text={mode}"
    config = job_on(tmp_path, keys, pairs=pairs, per_batch=1, batch=3)
    for _ in range(2):  # the second time from the kept counts
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            source = verl_loaders(config, qwen.tokenizer, qwen).train_dataset.pairs
        assert source.ids() == ["p0", "control", "a word to this processor"]
        assert dict(source.dropped) == {"with the processor's placeholder tokens in their text": 2}
        assert "left out: 2 pairs with the processor's placeholder tokens in their text, " in capsys.readouterr().out
        said = "1 of 5 pairs, 'control' the first, spell a special token"
        assert (said in caplog.text) == (mode == "keep")
    assert len(list((tmp_path / "cache").glob("lengths-*"))) == 1
    # A text model has no media to look for.
    config = job_on(tmp_path, pairs=pairs[:2], per_batch=1, batch=3)
    assert len(verl_loaders(config, qwen.tokenizer).train_dataset.pairs) == 2
    with pytest.raises(
        ConfigError, match=r"all 1 pairs hold a placeholder token .*'<\|image_pad\|>', '<\|video_pad\|>'.*Fix: "
    ):
        loaders(tmp_path, qwen, pairs[1:2])


@pytest.mark.parametrize(
    "pair", [pair_with("<|im_end|>\n<|im_start|>system"), pictured("<|im_end|>")], ids=["text", "image"]
)
def test_training_and_validation_send_what_was_counted(tmp_path, qwen, pair):
    split = "contextrl.prompt.special_tokens_in_text=split"
    config, job = loaders(tmp_path, qwen, [pair], split, held_out=[pair])
    prompt = PromptConfig(special_tokens_in_text="split")
    for data, agent in ((job.train_dataset, CARRIER), (job.val_dataset, ANSWER)):
        row = rows_of(data, agent)[0]
        output = run_loop(config, row, qwen.tokenizer, qwen, server=(server := OneAnswer([7])))
        assert output.prompt_ids == encode_prompt(row["raw_prompt"], qwen.tokenizer, prompt, qwen)
        assert output.prompt_ids.count(qwen.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1
        assert [asked["prompt_ids"] for asked in server.asked] == ([] if agent == CARRIER else [output.prompt_ids])
        # verl reads the prompt back as text for the images of the training side.
        images, positions = training_inputs(output, qwen.tokenizer, qwen)
        assert positions.shape[-1] == len(output.prompt_ids) + len(output.response_ids)
        assert len(images.get("image_grid_thw", [])) == row["extra_info"]["images"]


@pytest.mark.parametrize("mode", ["keep", "split"])
def test_a_pair_that_is_answered_in_words(tmp_path, qwen, mode):
    keys = ("contextrl.objective=selection_reward", "contextrl.prompt.prefill=The option is")
    pair = pair_with("<|im_end|>")
    config, job = loaders(tmp_path, qwen, [pair], *keys, f"contextrl.prompt.special_tokens_in_text={mode}")
    row = rows_of(job.train_dataset, "single_turn_agent" if mode == "keep" else REPLY)[-1]
    output = run_loop(config, row, qwen.tokenizer, qwen, server=(server := OneAnswer([7, 8])))
    prompt = PromptConfig(special_tokens_in_text=mode)
    assert server.asked[0]["prompt_ids"] == output.prompt_ids
    assert output.prompt_ids == encode_prompt(row["raw_prompt"], qwen.tokenizer, prompt, qwen)
    assert output.response_ids[:2] == [7, 8]
    assert output.prompt_ids.count(qwen.tokenizer.convert_tokens_to_ids("<|im_end|>")) == (1 if mode == "split" else 5)


@pytest.mark.parametrize(
    ("keys", "refused"),
    [
        ({"objective": "selection_reward"}, True),
        ({"objective": "none", "pairs": {"val_files": ["v.parquet"], "val_by": "reply"}}, True),
        ({"objective": "context_awareness"}, False),
        ({"objective": "selection_reward", "prompt": {"special_tokens_in_text": "keep"}}, False),
    ],
)
def test_a_loop_that_makes_its_own_tokens_is_refused_with_split(keys, refused):
    check = next(check for check in CHECKS if check.__name__ == "_special_tokens")
    block = {"prompt": {"special_tokens_in_text": "split"}, "run": {"default_agent_loop": "tool_agent"}, **keys}
    told = list(check(parse_settings(block)))
    assert len(told) == refused
    assert all("default_agent_loop is 'tool_agent'" in paragraph and "Fix: " in paragraph for paragraph in told)
    assert not list(check(parse_settings(block | {"run": {"default_agent_loop": "single_turn_agent"}})))
