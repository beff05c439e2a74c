"""Option labels to token ids, resolved where the model will read them: after the template and prefill."""

from __future__ import annotations

from typing import Any

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.prompting import PromptConfig, prompt_text

_THOUGHT = ("<think>", "</think>")
_PROBE = [{"role": "user", "content": "Which context supports the answer?"}]


def resolve_option_tokens(tokenizer: Any, config: PromptConfig, *, written: bool = False) -> list[int]:
    """One token id per label.

    The prompt ends with the chat template's generation prompt and the prefill; each label must continue it as exactly
    one token that leaves the prompt's own tokens untouched (prefix equality). After a prefill that ends in a word, the
    label is written with a space before it. With ``written`` the model writes a whole reply, and may think first.

    Raises:
        ConfigError: a label takes several tokens, merges with the prompt, is a special token, two labels share a
            token, or the prompt ends within a thought. The message says what to configure.
    """
    text = prompt_text(tokenizer, _PROBE, config)
    if not written and text.rfind(_THOUGHT[0]) > text.rfind(_THOUGHT[1]):
        raise ConfigError(
            f"the chat template opens a thought and the prompt ends within it ({text[-24:]!r}), so the label would be "
            "read as the thought's first word. Fix: close it, contextrl.prompt.prefill='</think>', or "
            "+contextrl.prompt.chat_template_kwargs.enable_thinking=false where the template knows that."
        )
    space = " " if config.prefill and not config.prefill[-1].isspace() else ""
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids: list[int] = []
    for label in config.labels:
        full = tokenizer(text + space + label, add_special_tokens=False)["input_ids"]
        if full[: len(prompt)] != prompt:
            raise ConfigError(
                f"contextrl.prompt.labels: label {label!r} merges with the end of the prompt ({text[-24:]!r}), so its "
                "logit cannot be read. Fix: change contextrl.prompt.prefill so that it ends in a word or a line break."
            )
        added = full[len(prompt) :]
        if len(added) != 1:
            pieces = tokenizer.convert_ids_to_tokens(added)
            raise ConfigError(
                f"contextrl.prompt.labels: label {space + label!r} is {len(added)} tokens {pieces} after the prompt of "
                "this tokenizer; the objective reads one logit per option. Fix: " + _fix(tokenizer, text, space, config)
            )
        if added[0] in tokenizer.all_special_ids:
            raise ConfigError(
                f"contextrl.prompt.labels: label {label!r} is a special token. Fix: choose a plain label."
            )
        if added[0] in ids:
            raise ConfigError(
                f"contextrl.prompt.labels: {label!r} and {config.labels[ids.index(added[0])]!r} are the same token "
                f"({added[0]}) for this tokenizer. Fix: choose labels that differ."
            )
        ids.append(int(added[0]))
    return ids


def _fix(tokenizer: Any, text: str, space: str, config: PromptConfig) -> str:
    """What to configure, tried out on this tokenizer before it is suggested."""

    def ends(prompt: str, label: str) -> bool:
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        full = tokenizer(prompt + label, add_special_tokens=False)["input_ids"]
        return full[:-1] == ids

    # Digits are often tokens of their own: after a word they take a token for the space and one for the digit.
    if space and all(ends(text + " ", label) for label in config.labels):
        return f"end the prefill with a space, contextrl.prompt.prefill={config.prefill + ' '!r}."
    for labels in ("AB", "12"):
        if all(ends(text, space + label) for label in labels):
            return f"choose labels of one token each, e.g. contextrl.prompt.labels=[{', '.join(labels)}]."
    return "choose labels of one token each, or another contextrl.prompt.prefill."
