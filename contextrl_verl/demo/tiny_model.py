"""A tokenizer and a Qwen2 of 0.1 million weights, made in place: what the demonstration, benchmarks and tests train.

`warm_up` teaches the model to read its short contexts and to reply with a label, and gives it a first idea of
selecting: it trains on all three and stops as soon as a little more than half of the selections are right. From random
weights, L_CA alone would need hundreds of steps to leave chance; the demonstration starts where it begins to move.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

from contextrl_verl.demo.evidence_pairs import DIGITS, ENDINGS, KEYS, TOOLS, evidence_pairs
from contextrl_verl.pairs import ContrastivePair
from contextrl_verl.pairs.prompting import PromptConfig, PromptRenderer

# A user message and its reply; an example is one or more of them, the later ones about the same context.
Turn = tuple[str, str]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LABELS, ORDERS = ("A", "B"), ([0, 1], [1, 0])
FAMILIES = ("qwen2", "qwen3")
TEMPLATE = "short"
# What the warm-up's reading task asks in the place of a pair's query.
READ = "what do they say?"
# The share of right selections at which the warm-up stops, and above which it steps back.
STOP_AT, AT_MOST = 0.55, 0.62
# What the tokenizer learns its words from.
_WORDS = (
    "system user assistant Query Answer Context query answer context evidence candidate question option label "
    "A B yes no what do they does is say which Which supports the Reply with or only letter of one above following"
)
_EXAMPLE = (
    "Query: what is {key}?\nAnswer: 0\n\nContext A:\n$ {tool} {key}\n{key} = 1\nok\n\nContext B:\n\n\n"
    "Which context supports the answer? Reply with A or B."
)


def make_tokenizer():
    """A byte-level BPE with ChatML, trained here and now on the demonstration's own words.

    Every digit is a token of its own whatever stands before it, and so are "A" and "B"; " A" and " B" are one token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = [*_WORDS.split(), *TOOLS, *KEYS, *ENDINGS]
    corpus = [f"{word} {word}\n{word}? {word}: {word}." for word in words]
    corpus += [_EXAMPLE.format(key=key, tool=tool) for key in KEYS for tool in TOOLS]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learnt = {"vocab_size": 512, "special_tokens": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]}
    core.train_from_iterator(corpus, trainers.BpeTrainer(**learnt, initial_alphabet=alphabet, show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(
    folder: str | Path | None, tokenizer, *, family="qwen2", layers: int = 2, heads: int = 2, init=0.1, seed: int = 0
):
    """A Qwen2 (or Qwen3) with random weights; a head is 32 wide, which vLLM's CPU attention needs.

    With a folder, also written there together with its tokenizer.
    """
    from transformers import AutoModelForCausalLM, Qwen2Config, Qwen3Config

    kind, own = Qwen2Config, {"num_key_value_heads": heads}
    if family == "qwen3":
        kind, own = Qwen3Config, {"num_key_value_heads": 1, "head_dim": 32}
    widths = {"vocab_size": len(tokenizer), "hidden_size": 32 * heads, "intermediate_size": 64 * heads}
    depths = {"num_hidden_layers": layers, "num_attention_heads": heads, "max_position_embeddings": 4096}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    # transformers' 0.02 is for wide models; this narrow one hardly starts to learn with it.
    config = kind(**widths, **depths, **ends, **own, tie_word_embeddings=True, initializer_range=init)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if folder is not None:
        save(model, tokenizer, folder)
    return model


def save(model, tokenizer, folder: str | Path) -> None:
    """Write a checkpoint."""
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def chat_text(user: str) -> str:
    """The text that the model continues after one user message: CHAT_TEMPLATE, written out, for it is asked often."""
    return f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


@cache
def _renderer() -> PromptRenderer:
    return PromptRenderer(PromptConfig(template=TEMPLATE))


def selection_prompt(pair: ContrastivePair, order: list[int]) -> str:
    """The user message of a pair, through the template that the trainer uses."""
    return _renderer().messages(pair, order)[0]["content"]


def next_token_logits(model, tokenizer, messages: Sequence[str]) -> torch.Tensor:
    """The logits of a reply's first token to each user message, [messages, vocabulary]."""
    texts = [chat_text(message) for message in messages]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
    # No mask: the padding stands to the right, where a causal model does not look, and without one attention is fast.
    hidden = model.model(input_ids=batch["input_ids"]).last_hidden_state
    last = batch["attention_mask"].sum(1) - 1
    return model.lm_head(hidden[torch.arange(len(texts)), last]).float()


def selection_logits(model, tokenizer, pairs: Sequence[ContrastivePair]) -> tuple[torch.Tensor, ...]:
    """Of every pair in both orders, one after the other: the logits of the reply's first token [2 * pairs, vocabulary],
    those of the two labels [2 * pairs, 2], and the place of the supporting context [2 * pairs]."""
    asked = [(selection_prompt(pair, order), order.index(0)) for pair in pairs for order in ORDERS]
    logits = next_token_logits(model, tokenizer, [message for message, _ in asked])
    labels = [tokenizer.encode(label, add_special_tokens=False)[0] for label in LABELS]
    return logits, logits[:, labels], torch.tensor([place for _, place in asked])


@torch.no_grad()
def selection_accuracy(model, tokenizer, pairs: Sequence[ContrastivePair]) -> tuple[float, float]:
    """How often the likelier label is right, every pair in both orders; and the mean probability of the two labels."""
    logits, options, supporting = selection_logits(model, tokenizer, pairs)
    mass = options.logsumexp(-1) - logits.logsumexp(-1)
    return float((options.argmax(-1) == supporting).float().mean()), float(mass.exp().mean())


def reply_loss(model, tokenizer, examples: Sequence[Sequence[Turn]]) -> torch.Tensor:
    """Mean cross entropy over the replies and the ends of their turns, nothing else."""
    texts = [text for turns in examples for user, reply in turns for text in (chat_text(user), reply + "<|im_end|>")]
    encoded = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    newline = tokenizer.encode("\n", add_special_tokens=False)
    rows, replies = [], []
    for turns in examples:
        ids, gold = [], []
        for number in range(len(turns)):
            prompt, reply = [*(newline if number else ()), *next(encoded)], next(encoded)
            ids += prompt + reply
            gold += [-100] * len(prompt) + reply
        rows.append(torch.tensor(ids))
        replies.append(torch.tensor(gold))
    ids = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    gold = pad_sequence(replies, batch_first=True, padding_value=-100)[:, 1:]
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]  # no mask: see next_token_logits
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[gold >= 0]).float(), gold[gold >= 0])


def learn(
    model, loss_of: Callable[[], torch.Tensor], *, steps: int, rate: float, warm_up: int = 0, betas=(0.9, 0.98)
) -> Iterator[tuple[int, float]]:
    """Train in place with AdamW and gradients clipped at 1; ``rate`` is reached after ``warm_up`` steps.

    Yields:
        After each step its number (from 1) and its loss.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=betas, weight_decay=0.01)
    for step in range(1, steps + 1):
        model.train()
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = rate * min(1.0, step / max(1, warm_up))
        optimizer.step()
        model.eval()
        yield step, float(loss.detach())


def _warm_up_example(pair: ContrastivePair, rng: random.Random) -> list[Turn]:
    """One example of the warm-up's mixture."""
    draw = rng.random()
    if draw < 0.15:  # the ordinary task, right half of the time, so that sampling succeeds about that often
        digit = rng.choice(DIGITS)
        return [(f"say {digit}", digit if rng.random() < 0.5 else rng.choice(DIGITS))]
    order = ORDERS[rng.random() >= 0.5]
    if draw < 0.35:  # read: the digits of the two contexts, in order
        digits = " ".join(next(filter(str.isdigit, pair.contexts[at].text)) for at in order)
        return [(selection_prompt(pair.model_copy(update={"query": READ}), order), digits)]
    return [(selection_prompt(pair, order), LABELS[order.index(0)])]


def warm_up(
    model, tokenizer, *, most_steps: int = 800, batch_size: int = 64, seed: int = 0, log: Callable | None = None
) -> int:
    """Teach the model to read, in place, and stop when it selects right in `STOP_AT` of a sample of training pairs.

    Returns the steps taken. Where a check (every five) finds the model over `AT_MOST`, it goes back to the one before.
    """
    rng = random.Random(seed)
    pairs = evidence_pairs(4000, seed=seed, split="train")
    before = copy.deepcopy(model.state_dict())

    def loss_of() -> torch.Tensor:
        return reply_loss(model, tokenizer, [_warm_up_example(rng.choice(pairs), rng) for _ in range(batch_size)])

    for step, loss in learn(model, loss_of, steps=most_steps, rate=3e-3, warm_up=20):
        if step % 5 and step != most_steps:
            continue
        accuracy, _ = selection_accuracy(model, tokenizer, pairs[:100])
        if log:
            log(f"step {step}: loss {loss:.2f}, {accuracy:.0%} selected right")
        if accuracy > AT_MOST:
            model.load_state_dict(before)
            return step - 5
        if accuracy >= STOP_AT and step >= 100:
            return step
        before = copy.deepcopy(model.state_dict())
    return most_steps


def warmed_up(seed: int, log: Callable | None = None):
    """The demonstration's tokenizer and its model after `warm_up`."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    model = make_model(None, tokenizer, seed=seed)
    warm_up(model, tokenizer, seed=seed, log=log)
    return tokenizer, model
