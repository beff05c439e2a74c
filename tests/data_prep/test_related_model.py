"""The encoder option for related issues, with a tiny real sentence encoder made here."""

from __future__ import annotations

import numpy as np
import pytest
from made_runs import made_run, write_runs
from typer.testing import CliRunner

from contextrl_verl.cli import app
from contextrl_verl.pairs.files import PairFile
from data_prep.trajectories import candidates
from data_prep.trajectories.candidates import CascadeSettings
from data_prep.trajectories.prepare import PrepareSettings, find_candidates, prepare
from data_prep.trajectories.run import TrajectoryError


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A random BERT of 0.1 M weights with a tokenizer trained on the issues, saved as sentence-transformers does."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    texts = [made_run(number)["messages"][1]["content"] for number in range(24)]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names)
    fast.save_pretrained(folder / "bert")
    config = BertConfig(
        vocab_size=len(fast), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder / "bert")
    words = Transformer(str(folder / "bert"), max_seq_length=64)
    model = SentenceTransformer(modules=[words, Pooling(32)], device="cpu")
    model.save(str(folder / "model"))
    return folder / "model"


@pytest.fixture
def source(tmp_path):
    return write_runs(tmp_path / "runs.jsonl", [made_run(number) for number in range(24)])


def settings(encoder, band):
    cascade = CascadeSettings(commit="any", related=band)
    return PrepareSettings(issue=("related",), overlap_cap=1, cascade=cascade, related_model=str(encoder))


def stage_of(summary):
    return next(stage for stage in summary["stages"] if stage["name"] == "related issue")


def test_the_band_is_of_the_encoder_s_cosines(encoder, source, tmp_path):
    from sentence_transformers import SentenceTransformer

    summary = prepare(source, tmp_path / "all.parquet", settings(encoder, (-1.0, 1.1)), workers=1, progress=False)
    every = stage_of(summary)
    assert every["out"] == every["in"] > 100
    issues = {made_run(number)["instance_id"]: made_run(number)["messages"][1]["content"] for number in range(24)}
    issues = {name: text.split("\n")[1] for name, text in issues.items()}
    vectors = SentenceTransformer(str(encoder), device="cpu").encode(list(issues.values()), normalize_embeddings=True)
    by_name = dict(zip(issues, vectors, strict=True))
    cosines = [float(by_name[a] @ by_name[b]) for a in by_name for b in by_name if a < b]
    middle = float(np.median(cosines))
    summary = prepare(source, tmp_path / "half.parquet", settings(encoder, (middle, 1.1)), workers=1, progress=False)
    half = stage_of(summary)
    assert half["dropped"]["unrelated issues"] == every["in"] - half["out"]
    assert 0 < half["out"] < every["in"]
    for pair in PairFile(tmp_path / "half.parquet"):
        one, other = (
            by_name[side["instance_id"]] for side in (pair.provenance["supporting"], *pair.provenance["confounders"])
        )
        assert float(one @ other) >= middle - 1e-5


def test_vectors_are_computed_once(encoder, source, tmp_path, monkeypatch):
    loads = []
    load = candidates.load_sentence_encoder
    monkeypatch.setattr(
        candidates, "load_sentence_encoder", lambda name, *rest: loads.append(name) or load(name, *rest)
    )
    for _ in range(2):
        find_candidates(source, tmp_path / "p.parquet", settings(encoder, (-1.0, 1.1)), workers=1, progress=False)
    assert loads == [str(encoder)]


def test_a_model_that_is_none_and_a_band_that_is_missing_are_told(source, tmp_path):
    with pytest.raises(TrajectoryError, match=r"--related-model is '.*nothing', which is no folder here .*Fix:"):
        prepare(source, tmp_path / "p.parquet", settings(tmp_path / "nothing", (0, 1)), workers=1, progress=False)
    command = ["pairs", "trajectories", "--input", str(source), "--out", str(tmp_path / "p.parquet")]
    done = CliRunner().invoke(app, [*command, "--set", "related_model=m"])
    assert done.exit_code == 1
    assert "related_model is given without cascade.related" in done.output
