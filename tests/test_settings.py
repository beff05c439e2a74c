"""The yaml block: defaults agree with the shipped yaml, and every unknown or ill-typed key is named with its fix."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.prompting import PromptConfig
from contextrl_verl.settings import RunView, Settings, parse_settings


def refusal(block) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_settings(block)
    for problem in caught.value.problems:
        assert "\n" not in problem
        assert re.search(r"\. Fix: .+\.$", problem)
    return caught.value.problems[0]


def nested(key: str, value) -> dict:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


ILL_TYPED = [
    ("objective", "magic", "'context_awareness', 'selection_reward', 'question_answering' or 'none'"),
    ("objective", None, "'none'"),
    ("seed", "one", "integer"),
    ("seed", 1.5, "integer"),
    ("epochs", 0, "greater than or equal to 1"),
    ("epochs", None, "integer"),
    ("shuffle", "maybe", "boolean"),
    ("pairs", None, "dictionary"),
    ("pairs", "pairs.parquet", "dictionary"),
    ("pairs.train_files", 5, "list"),
    ("pairs.train_files", [5], "string"),
    ("pairs.val_files", None, "list"),
    ("pairs.per_batch", -1, "greater than or equal to 0"),
    ("pairs.per_batch", 2.5, "integer"),
    ("pairs.orders", "all", "'random' or 'both'"),
    ("prompt", "select_context", "dictionary"),
    ("prompt.template", None, "string"),
    ("prompt.labels", "AB", "tuple"),
    ("prompt.labels", None, "tuple"),
    ("prompt.labels", [True, False], "quotes"),
    ("prompt.labels", [["A"], "B"], "string"),
    ("prompt.labels", [], "two or more"),
    ("prompt.labels", ["A"], "two or more"),
    ("prompt.labels", ["A", "A"], "different"),
    ("prompt.labels", ["A", " "], "non-empty"),
    ("prompt.prefill", None, "string"),
    ("prompt.prefill", ["The"], "string"),
    ("prompt.chat_template_kwargs", "enable_thinking", "dictionary"),
    ("prompt.chat_template_kwargs", {"tokenize": True}, "remove"),
    ("loss.coef", "high", "number"),
    ("loss.coef", -0.1, "greater than or equal to 0"),
    ("loss.coef", float("nan"), "finite"),
    ("loss.coef", float("inf"), "finite"),
    ("loss.clip", 0, "greater than 0"),
    ("loss.clip", None, "number"),
    ("loss.clip_mode", "both", "'two_sided' or 'one_sided'"),
    ("loss.schedule", "cosine", "'constant' or 'linear_warmup'"),
    ("loss.warmup_steps", -1, "greater than or equal to 0"),
    ("run.train_batch_size", "many", "contextrl_base.yaml"),
    ("run.max_prompt_length", [], "contextrl_base.yaml"),
]


@pytest.mark.parametrize(("key", "value", "told"), ILL_TYPED, ids=lambda part: str(part)[:30])
def test_ill_typed_values_name_key_value_and_what_is_allowed(key, value, told):
    message = refusal(nested(key, value))
    assert message.startswith(f"contextrl.{key}")
    inner = value[0] if isinstance(value, list) and value and not isinstance(value[0], str) else value
    assert repr(inner) in message
    assert told in message


@pytest.mark.parametrize(
    ("key", "fix"),
    [
        ("objektive", "rename it to objective"),
        ("pairs.train_file", "rename it to train_files"),
        ("prompt.label", "rename it to labels"),
        ("loss.coeff", "rename it to coef"),
        ("loss.lambda", "remove it"),
        ("weight", "remove it"),
    ],
)
def test_unknown_keys_name_the_known_ones(key, fix):
    message = refusal(nested(key, 0.3))
    assert message.startswith(f"contextrl.{key} is 0.3, and there is no such key; ")
    assert message.endswith(f" Fix: {fix}.")
    *parents, _ = key.split(".")
    known = {"": "objective", "pairs": "per_batch", "prompt": "template", "loss": "clip_mode"}[".".join(parents)]
    assert f"{'.'.join(['contextrl', *parents])} knows " in message
    assert known in message


@pytest.mark.parametrize("block", [5, "context_awareness", ["objective"], True])
def test_a_block_that_is_no_mapping(block):
    assert refusal(block).startswith(f"contextrl is {block!r}: ")


def test_no_block_at_all():
    assert "no block 'contextrl'" in refusal(None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(
    [*Settings.model_fields]
    + [f"prompt.{name}" for name in PromptConfig.__dataclass_fields__]
    + [
        f"{block}.{name}"
        for block in ("pairs", "loss", "run")
        for name in Settings.model_fields[block].annotation.model_fields
    ]
)


@given(key=keys, value=json_values)
def test_any_value_is_taken_or_refused_in_one_readable_paragraph(key, value):
    try:
        parse_settings(nested(key, value))
    except ConfigError:
        assert refusal(nested(key, value)).startswith(f"contextrl.{key}")


def test_pairs_take_the_rows_arguments_of_the_chat_template_and_their_own_win():
    rows = {"run": {"apply_chat_template_kwargs": {"enable_thinking": False, "mode": "x"}}}
    assert parse_settings(rows).prompt_config.chat_template_kwargs == {"enable_thinking": False, "mode": "x"}
    own = {**rows, "prompt": {"chat_template_kwargs": {"enable_thinking": True}}}
    assert parse_settings(own).prompt_config.chat_template_kwargs == {"enable_thinking": True, "mode": "x"}


def test_a_long_value_is_cut():
    assert len(refusal({"objective": "x" * 10_000})) < 400


def test_what_users_write_is_read():
    settings = parse_settings(
        OmegaConf.create(
            {
                "pairs": {"train_files": "one.parquet", "per_batch": "8"},
                "prompt": {"labels": [1, 2], "chat_template_kwargs": {"enable_thinking": False}},
                "run": {"train_batch_size": 16, "model_path": "m"},
            }
        )
    )
    assert settings.pairs.train_files == ["one.parquet"]
    assert settings.pairs.per_batch == 8
    assert settings.prompt_config.labels == ("1", "2")
    assert settings.prompt_config.chat_template_kwargs == {"enable_thinking": False}
    assert settings.run.model_path == "m"


def test_the_shipped_yamls_say_the_defaults_and_fill_in_what_is_checked():
    from hydra import compose, initialize_config_module

    filled = set()
    for name, overrides in (("contextrl_trainer", []), ("selection_sft", ["model.path=m"])):
        with initialize_config_module("contextrl_verl.config", version_base=None):
            shipped = OmegaConf.to_container(compose(name, overrides=overrides).contextrl, resolve=True)
        parse_settings(shipped)
        filled |= set(shipped.pop("run"))
        assert parse_settings({**shipped, "objective": Settings().objective}) == Settings()
    assert filled == set(RunView.model_fields)
