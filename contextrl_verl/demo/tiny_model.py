"""A tokenizer and a Qwen2 of 0.1 million weights, made in place: what the demonstration and the tests train.

`warm_up` teaches the model to read its short contexts and to reply with a label, and gives it a first idea of
selecting: it trains on all three and stops as soon as a little more than half of the selections are right. From random
weights, L_CA alone would need hundreds of steps to leave chance; the demonstration starts where it begins to move.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from contextrl_verl.demo.evidence_pairs import DIGITS, ENDINGS, KEYS, TOOLS, evidence_pairs, rl_prompt

# (query, answer, context A, context B) -> the user message.
Render = Callable[[str, str, str, str], str]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LABELS = ("A", "B")
FAMILIES = ("qwen2", "qwen3")
# What the warm-up's reading task asks in the place of a pair's query.
READ = "what do they say?"
# The share of right selections at which the warm-up stops, and above which it steps back.
STOP_AT, AT_MOST = 0.55, 0.62
DEFAULT_TEMPLATE = (
    "Query: {query}\nAnswer: {answer}\n\nContext A:\n{a}\n\nContext B:\n{b}\n\n"
    "Which context supports the answer? Reply with A or B."
)
_EXTRA_WORDS = (
    "system user assistant Query Answer Context query answer context evidence candidate question option label "
    "A B yes no what do they does is say which Which supports the Reply with or only letter of one above following"
)


def default_render(query: str, answer: str, a: str, b: str) -> str:
    """The prompt of a pair where nobody brings a template."""
    return DEFAULT_TEMPLATE.format(query=query, answer=answer, a=a, b=b)


def make_tokenizer(vocab_size: int = 512):
    """A byte-level BPE with ChatML, trained here and now on the demonstration's own words.

    Every digit is a token of its own whatever stands before it, and so are "A" and "B"; " A" and " B" are one token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = [*_EXTRA_WORDS.split(), *TOOLS, *KEYS, *ENDINGS]
    corpus = [f"{word} {word}\n{word}? {word}: {word}." for word in words]
    corpus += [
        default_render(f"what is {key}?", "0", f"$ {tool} {key}\n{key} = 1\nok", "") for key in KEYS for tool in TOOLS
    ]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(corpus, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(
    folder: str | Path | None,
    tokenizer,
    *,
    family: str = "qwen2",
    hidden_size: int = 64,
    layers: int = 2,
    heads: int = 2,
    init: float = 0.1,
    dtype: str = "float32",
    seed: int = 0,
):
    """A Qwen2 (or Qwen3) with random weights; with a folder, also written there together with its tokenizer."""
    from transformers import AutoModelForCausalLM, Qwen2Config, Qwen3Config

    if hidden_size != 32 * heads:
        raise ValueError(
            f"hidden_size {hidden_size} over {heads} heads is not 32 a head, the size vLLM's CPU attention needs; "
            f"use hidden_size={32 * heads}"
        )
    kind, own = (Qwen2Config, {}) if family == "qwen2" else (Qwen3Config, {"head_dim": 32})
    config = kind(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads if family == "qwen2" else 1,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        initializer_range=init,  # transformers' 0.02 is for wide models; this narrow one hardly starts to learn with it
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **own,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if folder is not None:
        save(model, tokenizer, folder, dtype=dtype)
    return model


def save(model, tokenizer, folder: str | Path, *, dtype: str = "float32") -> None:
    """Write a checkpoint; the model in hand keeps the precision it has."""
    stored = copy.deepcopy(model).to(getattr(torch, dtype))
    stored.config.dtype = getattr(torch, dtype)
    stored.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def chat_text(tokenizer, user: str, prefill: str = "") -> str:
    """The text the model continues: one user message, the generation prompt, and what the answer starts with."""
    messages = [{"role": "user", "content": user}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + prefill


def selection_prompts(pairs: Iterable[dict], render: Render = default_render) -> list[tuple[str, str]]:
    """(user message, right label) of each pair, in both orders."""
    prompts = []
    for pair in pairs:
        right, wrong = pair["supporting"]["text"], pair["confounders"][0]["text"]
        prompts.append((render(pair["query"], pair["answer"], right, wrong), "A"))
        prompts.append((render(pair["query"], pair["answer"], wrong, right), "B"))
    return prompts


def next_token_logits(model, tokenizer, texts: Sequence[str]) -> torch.Tensor:
    """The logits that follow each text, [texts, vocabulary]."""
    batch = tokenizer(list(texts), return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
    # No mask: the padding stands to the right, where a causal model does not look, and without one attention is fast.
    hidden = model.model(input_ids=batch["input_ids"]).last_hidden_state
    last = batch["attention_mask"].sum(1) - 1
    return model.lm_head(hidden[torch.arange(len(texts)), last]).float()


def selection_accuracy(
    model, tokenizer, pairs: Iterable[dict], render: Render = default_render, *, prefill: str = "", batch_size: int = 64
) -> dict[str, float]:
    """The likelier label, every pair in both orders; and the probability on the two labels."""
    return _accuracy_on(model, tokenizer, selection_prompts(pairs, render), prefill, batch_size)


@torch.no_grad()
def _accuracy_on(model, tokenizer, prompts, prefill: str, batch_size: int = 64) -> dict[str, float]:
    ids = torch.tensor([tokenizer.encode(label, add_special_tokens=False)[0] for label in LABELS])
    hits, mass = 0, 0.0
    for start in range(0, len(prompts), batch_size):
        part = prompts[start : start + batch_size]
        logits = next_token_logits(model, tokenizer, [chat_text(tokenizer, user, prefill) for user, _ in part])
        gold = torch.tensor([LABELS.index(label) for _, label in part])
        hits += int((logits[:, ids].argmax(-1) == gold).sum())
        mass += float(logits.softmax(-1)[:, ids].sum())
    return {"accuracy": hits / len(prompts), "option_mass": mass / len(prompts), "prompts": float(len(prompts))}


@torch.no_grad()
def copy_success(model, tokenizer) -> float:
    """The probability that a sampled response to the ordinary task is right, averaged over the ten digits.

    The digit and then the end of the turn, both at temperature 1.
    """
    total, end = 0.0, tokenizer.eos_token_id
    for digit in DIGITS:
        text, token = chat_text(tokenizer, rl_prompt(digit)), tokenizer.encode(digit, add_special_tokens=False)[0]
        first = next_token_logits(model, tokenizer, [text]).softmax(-1)[0, token]
        total += float(first * next_token_logits(model, tokenizer, [text + digit]).softmax(-1)[0, end])
    return total / len(DIGITS)


def _warm_up_example(pair: dict, rng: random.Random, render: Render, copy_rate: float) -> tuple[str, str]:
    """One (user message, response) of the warm-up's mixture."""
    draw = rng.random()
    if draw < 0.15:
        digit = rng.choice(DIGITS)
        return rl_prompt(digit), digit if rng.random() < copy_rate else rng.choice(DIGITS)
    right, wrong = pair["supporting"]["text"], pair["confounders"][0]["text"]
    first_is_right = rng.random() < 0.5
    a, b = (right, wrong) if first_is_right else (wrong, right)
    if draw < 0.35:  # read: the digits of the two contexts, in order
        values = (pair["answer"], pair["other"]) if first_is_right else (pair["other"], pair["answer"])
        return render(READ, pair["answer"], a, b), " ".join(values)
    return render(pair["query"], pair["answer"], a, b), LABELS[0] if first_is_right else LABELS[1]


def warm_up(
    model,
    tokenizer,
    render: Render = default_render,
    *,
    prefill: str = "",
    least_steps: int = 100,
    most_steps: int = 800,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    copy_rate: float = 0.5,
    seed: int = 0,
    log: Callable[[str], None] | None = None,
) -> int:
    """Teach the model to read, in place, and stop when it selects right in `STOP_AT` of a sample of training pairs.

    Pass the render the training will use: so small a model reads only layouts it has seen. `copy_rate` is how often
    the ordinary task shows the right digit (the rest is any digit), so that sampling succeeds about that often.

    Returns the steps taken. A check (every five steps) that finds the model over `AT_MOST` takes it back to the check
    before.
    """
    rng = random.Random(seed)
    pairs = list(evidence_pairs(4000, seed=seed, split="train"))
    for first, second in zip(pairs[::2], pairs[1::2], strict=True):
        first["other"], second["other"] = second["answer"], first["answer"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 20))
    before = copy.deepcopy(model.state_dict())
    check = selection_prompts(pairs[:100], render)
    for step in range(1, most_steps + 1):
        model.train()
        examples = [_warm_up_example(rng.choice(pairs), rng, render, copy_rate) for _ in range(batch_size)]
        loss = _reply_loss(model, tokenizer, examples, prefill)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 5 and step != most_steps:
            continue
        model.eval()
        accuracy = _accuracy_on(model, tokenizer, check, prefill)["accuracy"]
        if log:
            log(f"step {step}: loss {loss.item():.2f}, {accuracy:.0%} selected right")
        if accuracy > AT_MOST:
            model.load_state_dict(before)
            return step - 5
        if accuracy >= STOP_AT and step >= least_steps:
            return step
        before = copy.deepcopy(model.state_dict())
    return most_steps


def _reply_loss(model, tokenizer, examples: Sequence[tuple[str, str]], prefill: str) -> torch.Tensor:
    """Cross entropy over the reply and the end of the turn, nothing else."""
    prompts = tokenizer([chat_text(tokenizer, user, prefill) for user, _ in examples], add_special_tokens=False)
    replies = tokenizer([reply + tokenizer.eos_token for _, reply in examples], add_special_tokens=False)
    rows = list(zip(prompts["input_ids"], replies["input_ids"], strict=True))
    width = max(len(prompt) + len(reply) for prompt, reply in rows)
    ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    at, where, gold = [], [], []
    for row, (prompt, reply) in enumerate(rows):
        ids[row, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
        at += [row] * len(reply)
        where += range(len(prompt) - 1, len(prompt) + len(reply) - 1)
        gold += reply
    hidden = model.model(input_ids=ids).last_hidden_state  # no mask: see next_token_logits
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[at, where]).float(), torch.tensor(gold))
