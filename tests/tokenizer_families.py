"""Small tokenizers of the common families, built here with the pieces the real ones are made of."""

from __future__ import annotations

import json
from collections.abc import Callable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

TEXT = (
    "The correct option is A. The correct option is B. Which context supports the answer? pick A or pick B or pick C "
    "or pick D now You are given a question, an answer, and 2 contexts. Exactly one context supports the answer. Reply "
    "with A or B only. The option is K, the value is 12, log line. system user assistant model INST think value"
)
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_QWEN3_END = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
_LLAMA3_CHAT = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_GEMMA_CHAT = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message.role }}\n{{ message.content | trim }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_LLAMA2_CHAT = "{% for message in messages %}{{ bos_token }}[INST] {{ message.content | trim }} [/INST]{% endfor %}"


def _finish(core: Tokenizer, template: str, special: list[str], bos: str | None, eos: str) -> PreTrainedTokenizerFast:
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    if bos:
        core.post_processor = TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, core.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=bos, eos_token=eos, additional_special_tokens=special
    )
    tokenizer.chat_template = template
    return tokenizer


def byte_level(pattern: str, template: str, special: list[str], bos: str | None, eos: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE after a regular expression that splits words, as Qwen and Llama 3 use it."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator([TEXT, TEXT.replace(" ", "\n"), "\n\n"] * 3, trainer)
    return _finish(core, template, special, bos, eos)


def sentencepiece(normalizer, template: str, special: list[str], bos: str, eos: str) -> PreTrainedTokenizerFast:
    """SentencePiece-like BPE with byte fallback: spaces are U+2581, and nothing splits words when encoding."""
    trained = Tokenizer(models.BPE())
    # SentencePiece learns no merges across words and, in these families, none of digits.
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="always"), pre_tokenizers.Digits(individual_digits=True)]
    )
    alphabet = [chr(code) for code in range(33, 127)] + ["\n", "\u2581"]
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator([TEXT] * 3, trainer)
    state = json.loads(trained.to_str())["model"]
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += sorted(state["vocab"], key=state["vocab"].get)
    model = models.BPE(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[tuple(merge) for merge in state["merges"]],
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    core = Tokenizer(model)
    core.normalizer = normalizer
    core.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return _finish(core, template, special, bos, eos)


def _qwen(template: str) -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return byte_level(_QWEN, template, special, None, "<|im_end|>")


def _llama3() -> PreTrainedTokenizerFast:
    special = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    return byte_level(_LLAMA3, _LLAMA3_CHAT, special, "<|begin_of_text|>", "<|eot_id|>")


def _gemma() -> PreTrainedTokenizerFast:
    special = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
    return sentencepiece(normalizers.Replace(" ", "\u2581"), _GEMMA_CHAT, special, "<bos>", "<eos>")


def _llama2(special: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    dummy_prefix = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    return sentencepiece(dummy_prefix, _LLAMA2_CHAT, ["<s>", "</s>", *special], "<s>", "</s>")


def _demo() -> PreTrainedTokenizerFast:
    from contextrl_verl.demo.tiny_model import make_tokenizer

    return make_tokenizer()


FAMILIES: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "qwen2.5": lambda: _qwen(_CHATML),
    "qwen3": lambda: _qwen(_CHATML.removesuffix("{% endif %}") + _QWEN3_END + "{% endif %}"),
    "llama3": _llama3,
    "gemma": _gemma,
    "llama2": _llama2,
    # Mistral: the same, with [INST] and [/INST] as tokens of their own; the label then follows a special token.
    "mistral": lambda: _llama2(("[INST]", "[/INST]")),
    "demo": _demo,
}
