"""Models that sentence-transformers loads: tiny random ones, made here and saved as users have them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from made_pictures import noisy

from contextrl_verl.errors import ConfigError
from data_prep.images.embed.parts import make_embedder, plan_embed, unit_rows

TEXT = dict(
    vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
    max_position_embeddings=8, bos_token_id=2, eos_token_id=3, pad_token_id=3,
)  # fmt: skip
VISION = dict(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8
)
PICTURES = [noisy(seed, 40 + seed, 30) for seed in range(5)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12)).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "<s>": 2, "</s>": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="</s>", eos_token="</s>", bos_token="<s>"
    )
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("saved", [False, True])
def test_a_model_gives_the_library_s_features(clip, tmp_path, saved):
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import CLIPModel
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    folder = clip
    if saved:
        folder = tmp_path / "model"
        SentenceTransformer(modules=[CLIPModel(str(clip))], device="cpu").save(str(folder))
    rows = unit_rows(make_embedder(f"{'st' if saved else 'hf'}:{folder}"), PICTURES)
    model = transformers.CLIPModel.from_pretrained(clip).eval()
    # The library's choice of a processor, with torchvision where it is installed.
    processor = AutoImageProcessor.from_pretrained(clip)
    with torch.inference_mode():
        found = model.get_image_features(**processor(images=PICTURES, return_tensors="pt"))
    expected = getattr(found, "pooler_output", found).double().numpy()
    np.testing.assert_allclose(rows, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    assert (rows.dtype, rows.shape) == (np.float32, (5, 12))


def test_a_text_model_is_told_from_one_for_pictures(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models

    words = StaticEmbedding(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), embedding_dim=4)
    SentenceTransformer(modules=[words], device="cpu").save(str(tmp_path / "model"))
    with pytest.raises(ConfigError, match=r"does not take pictures .*Fix: one that does"):
        make_embedder(f"st:{tmp_path / 'model'}").embed(PICTURES)


@pytest.mark.parametrize("kind", ["hf", "st"])
def test_a_model_that_is_not_there_is_named(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=r"nothing', which is no folder here .*offline mode.* Fix: the name of a"):
        make_embedder(f"{kind}:{tmp_path / 'nothing'}").embed(PICTURES)


def test_code_that_comes_with_a_model_is_not_run(clip, tmp_path):
    import json
    import shutil

    shutil.copytree(clip, tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    (tmp_path / "model/own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        make_embedder(f"hf:{tmp_path / 'model'}").embed(PICTURES)
    assert not (tmp_path / "ran").exists()


def test_a_process_loads_a_model_once_and_a_changed_folder_has_another_name(clip, tmp_path):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(clip, folder)
    embedder = make_embedder(f"hf:{folder}")
    assert make_embedder(f"hf:{folder}") is embedder
    make_embedder.cache_clear()
    assert make_embedder(f"hf:{folder}").name == embedder.name
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    make_embedder.cache_clear()
    assert make_embedder(f"hf:{folder}").name != embedder.name
    assert make_embedder("hf:google/siglip2-base-patch16-224").name == "model:google/siglip2-base-patch16-224"


@pytest.mark.parametrize("spec", ["", "hf:", "st: ", "descriptor:2", "magic", "endpoint:"])
def test_a_description_of_no_embedder_is_named(spec):
    with pytest.raises(ConfigError, match=r"The embedder is .*Fix: descriptor, hf:"):
        make_embedder(spec)


def test_paths_in_a_description_are_made_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    named = {"hf:model": f"hf:{tmp_path / 'model'}"}
    for spec in ("hf:model", "hf:google/siglip2", "descriptor", "endpoint:m base_url=http://h/v1"):
        (payload,) = plan_embed(["0" * 32], tmp_path, spec)
        assert payload["embedder"] == named.get(spec, spec)


def rows_of(vectors) -> np.ndarray:
    return unit_rows(SimpleNamespace(name="m", embed=lambda images: vectors), PICTURES)


def test_vectors_without_direction_are_an_error_and_absent_ones_stay():
    rows = rows_of([[3, 4], [np.nan, np.nan]])
    np.testing.assert_allclose(rows[0], [0.6, 0.8])
    assert np.isnan(rows[1]).all()
    for bad in ([[1, 0], [0, 0]], [[np.inf, 1]], [[np.nan, 1]]):
        with pytest.raises(ConfigError, match=r"m gives a vector of length .*Fix:"):
            rows_of(bad)
    with pytest.raises(ConfigError, match=r"vectors of shape \(2,\)"):
        rows_of([1, 2])
