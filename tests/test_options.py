"""Option labels to token ids, on tokenizers of every common family."""

from __future__ import annotations

import functools
import re

import pytest
from pair_factory import text_pair
from tokenizer_families import FAMILIES, byte_level

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.option_tokens import resolve_option_tokens
from contextrl_verl.pairs.prompting import PromptConfig, PromptRenderer, encode_prompt, prompt_text

PREFILL = "The correct option is"
# [/INST] is a token of its own there: what follows it starts a word, and "1" is then a space and a digit.
DIGITS_NEED_A_PREFILL = {"mistral"}


@functools.cache
def tokenizer_of(family: str):
    return FAMILIES[family]()


def follow(tokenizer, config: PromptConfig, ids: list[int], space: str = "") -> None:
    """The ids are what the tokenizer makes of a real pair's prompt and each label, and nothing before them moves."""
    messages = PromptRenderer(config).messages(text_pair(3, confounders=len(config.labels) - 1), range(len(ids)))
    prompt = encode_prompt(messages, tokenizer, config)
    text = prompt_text(tokenizer, messages, config)
    for label, token in zip(config.labels, ids, strict=True):
        assert tokenizer(text + space + label, add_special_tokens=False)["input_ids"] == [*prompt, token]
        assert tokenizer.decode([token]).strip() == label


@pytest.mark.parametrize("labels", [("A", "B"), ("1", "2"), ("A", "B", "C", "D")])
@pytest.mark.parametrize("family", FAMILIES)
def test_labels_right_after_the_template(family, labels):
    tokenizer, config = tokenizer_of(family), PromptConfig(labels=labels)
    if family in DIGITS_NEED_A_PREFILL and labels[0].isdigit():
        with pytest.raises(ConfigError, match="is 2 tokens"):
            resolve_option_tokens(tokenizer, config)
        return
    ids = resolve_option_tokens(tokenizer, config)
    assert len(set(ids)) == len(labels)
    follow(tokenizer, config, ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_after_a_prefill_that_ends_in_a_word_the_label_is_the_spaced_token(family):
    tokenizer, config = tokenizer_of(family), PromptConfig(prefill=PREFILL)
    ids = resolve_option_tokens(tokenizer, config)
    assert [piece[0] for piece in tokenizer.convert_ids_to_tokens(ids)] in (["Ġ", "Ġ"], ["▁", "▁"])
    follow(tokenizer, config, ids, space=" ")


@pytest.mark.parametrize("family", FAMILIES)
def test_after_a_prefill_that_ends_in_a_line_break_the_label_is_bare(family):
    tokenizer, config = tokenizer_of(family), PromptConfig(prefill=PREFILL + "\n")
    ids = resolve_option_tokens(tokenizer, config)
    assert tokenizer.convert_ids_to_tokens(ids) == ["A", "B"]
    follow(tokenizer, config, ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_digits_after_a_word_are_two_tokens_and_the_fix_named_works(family):
    tokenizer = tokenizer_of(family)
    with pytest.raises(ConfigError, match=r"contextrl.prompt.labels: label ' 1' is 2 tokens \['[Ġ▁]', '1'\]") as caught:
        resolve_option_tokens(tokenizer, PromptConfig(labels=("1", "2"), prefill=PREFILL))
    named = re.search(r"Fix: .*contextrl\.prompt\.prefill='(.*)'", str(caught.value))
    mended = PromptConfig(labels=("1", "2"), prefill=named[1])
    follow(tokenizer, mended, resolve_option_tokens(tokenizer, mended))


@pytest.mark.parametrize("family", FAMILIES)
def test_long_labels_are_refused_and_the_fix_named_works(family):
    tokenizer = tokenizer_of(family)
    with pytest.raises(ConfigError, match=r"'zyxwv' is \d tokens") as caught:
        resolve_option_tokens(tokenizer, PromptConfig(labels=("A", "zyxwv")))
    named = re.search(r"Fix: .*contextrl\.prompt\.labels=\[(.*)\]", str(caught.value))
    mended = PromptConfig(labels=tuple(named[1].split(", ")))
    follow(tokenizer, mended, resolve_option_tokens(tokenizer, mended))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_label_that_swallows_the_end_of_the_prompt_is_refused(family):
    with pytest.raises(ConfigError, match=r"label 'A' merges with the end of the prompt \('.*option is '\).*Fix: "):
        resolve_option_tokens(tokenizer_of(family), PromptConfig(prefill=PREFILL + " "))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_special_token_is_no_label(family):
    tokenizer = tokenizer_of(family)
    with pytest.raises(ConfigError, match=r"is a special token\. Fix: "):
        resolve_option_tokens(tokenizer, PromptConfig(labels=(tokenizer.eos_token, "A")))


def test_labels_that_the_tokenizer_takes_for_the_same_are_refused():
    kelvin = "\u212a"  # Unicode's canonical form of the Kelvin sign, which Qwen applies, is the letter K.
    with pytest.raises(ConfigError, match=f"'{kelvin}' and 'K' are the same token"):
        resolve_option_tokens(tokenizer_of("qwen2.5"), PromptConfig(labels=("K", kelvin)))


@pytest.mark.parametrize("family", FAMILIES)
def test_no_chat_template(family):
    tokenizer = FAMILIES[family]()
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match=r"no chat template.*Fix: .*custom_chat_template"):
        resolve_option_tokens(tokenizer, PromptConfig())


def test_a_failing_chat_template_is_named_with_its_arguments():
    tokenizer = FAMILIES["qwen3"]()
    tokenizer.chat_template = "{{ raise_exception('mode ' ~ mode ~ ' is unknown') }}"
    with pytest.raises(ConfigError, match=r"chat_template_kwargs=\{'mode': 'x'\}: mode x is unknown\. Fix: "):
        resolve_option_tokens(tokenizer, PromptConfig(chat_template_kwargs={"mode": "x"}))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prompt_starts_with_one_bos_where_the_model_has_one(family):
    tokenizer = tokenizer_of(family)
    ids = encode_prompt([{"role": "user", "content": "q"}], tokenizer, PromptConfig())
    if tokenizer.bos_token_id is None:
        assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")
    else:
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1
        assert tokenizer("q")["input_ids"][0] == tokenizer.bos_token_id, "this tokenizer does not add one by itself"


def test_chat_template_arguments_reach_the_prompt():
    tokenizer = tokenizer_of("qwen3")
    message = [{"role": "user", "content": "q"}]
    assert prompt_text(tokenizer, message, PromptConfig()).endswith("<|im_start|>assistant\n")
    config = PromptConfig(chat_template_kwargs={"enable_thinking": False}, prefill=PREFILL)
    assert prompt_text(tokenizer, message, config).endswith(f"assistant\n<think>\n\n</think>\n\n{PREFILL}")
    follow(tokenizer, config, resolve_option_tokens(tokenizer, config), space=" ")


def test_a_vocabulary_without_the_spaced_label_names_the_space_as_the_fix():
    special = ["<|im_start|>", "<|im_end|>"]
    template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}<|im_start|>\n"
    tokenizer = byte_level(r"\s|\S", template, special, None, "<|im_end|>")
    with pytest.raises(ConfigError, match=r"' A' is 2 tokens.*Fix: end the prefill with a space.*prefill='so '"):
        resolve_option_tokens(tokenizer, PromptConfig(prefill="so"))
    mended = PromptConfig(prefill="so ")
    follow(tokenizer, mended, resolve_option_tokens(tokenizer, mended))
