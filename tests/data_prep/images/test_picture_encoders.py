"""Encoders of transformers and sentence-transformers: tiny random models, made here and saved as users have them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_pictures import noisy
from PIL import Image

from contextrl_verl.errors import ConfigError
from data_prep.images.embed import Embedder, make_embedder, settled, unit_rows

TEXT = dict(
    vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
    max_position_embeddings=8, bos_token_id=2, eos_token_id=3, pad_token_id=3,
)  # fmt: skip
VISION = dict(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8
)
PICTURES = [noisy(seed, 40 + seed, 30) for seed in range(5)]


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(0)
    SiglipModel(SiglipConfig(text_config=TEXT, vision_config=VISION)).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


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


def by_hand(model, processor, pictures):
    """Features of each picture alone, straight from the library."""
    rows = []
    with torch.inference_mode():
        for picture in pictures:
            found = model.get_image_features(**processor(images=[picture], return_tensors="pt"))
            rows.append(getattr(found, "pooler_output", found)[0].double().numpy())
    return unit_rows(np.stack(rows), "by hand")


@pytest.mark.parametrize("family", ["siglip", "clip"])
def test_a_vision_encoder_gives_the_library_s_features(family, request):
    import transformers

    folder = request.getfixturevalue(family)
    embedder = make_embedder(f"hf:{folder}")
    assert isinstance(embedder, Embedder)
    assert embedder.dimension is None
    rows = embedder.embed(PICTURES)
    model = {"siglip": transformers.SiglipModel, "clip": transformers.CLIPModel}[family].from_pretrained(folder).eval()
    kind = {"siglip": transformers.SiglipImageProcessorPil, "clip": transformers.CLIPImageProcessorPil}[family]
    np.testing.assert_allclose(rows, by_hand(model, kind.from_pretrained(folder), PICTURES), atol=1e-5)
    assert rows.dtype == np.float32
    assert embedder.dimension == rows.shape[1] == {"siglip": 16, "clip": 12}[family]
    assert embedder.embed([]).shape == (0, embedder.dimension)


def test_pictures_go_in_batches_and_any_mode_of_work_gives_the_same(siglip):
    from data_prep.images.embed.models import VisionEncoder

    together = VisionEncoder(str(siglip)).embed(PICTURES)
    np.testing.assert_allclose(VisionEncoder(str(siglip), batch=2).embed(PICTURES), together, atol=1e-6)


def test_a_model_without_image_features_gives_its_pooled_output(tmp_path):
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    torch.manual_seed(0)
    ViTModel(ViTConfig(**VISION)).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    assert make_embedder(f"hf:{tmp_path}").embed(PICTURES).shape == (5, 16)


def test_a_model_without_a_pooled_vector_is_refused(tmp_path):
    from transformers import SegformerConfig, SegformerModel, ViTImageProcessorPil

    sizes = dict(depths=[1, 1], hidden_sizes=[8, 16], num_attention_heads=[1, 2], decoder_hidden_size=8)
    layers = dict(num_encoder_blocks=2, sr_ratios=[2, 1], patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[1, 1])
    SegformerModel(SegformerConfig(**sizes, **layers)).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"gives no pooled vector for a picture. Fix:"):
        make_embedder(f"hf:{tmp_path}").embed(PICTURES)


def test_a_sentence_transformers_model_gives_the_same_features(clip, tmp_path):
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import CLIPModel
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    SentenceTransformer(modules=[CLIPModel(str(clip))], device="cpu").save(str(tmp_path / "model"))
    embedder = make_embedder(f"st:{tmp_path / 'model'}")
    rows = embedder.embed(PICTURES)
    assert embedder.dimension == 12
    model = transformers.CLIPModel.from_pretrained(clip).eval()
    # sentence-transformers takes the library's choice of a processor, with torchvision where it is installed.
    expected = by_hand(model, AutoImageProcessor.from_pretrained(clip), PICTURES)
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert embedder.embed([]).shape == (0, 12)


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
    with pytest.raises(ConfigError, match=r"nothing' ?,? ?(which )?cannot be loaded .*Fix: the name of a"):
        make_embedder(f"{kind}:{tmp_path / 'nothing'}").embed(PICTURES)


def test_code_that_comes_with_a_model_is_not_run(siglip, tmp_path):
    import json
    import shutil

    shutil.copytree(siglip, tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    (tmp_path / "model/own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        make_embedder(f"hf:{tmp_path / 'model'}").embed(PICTURES)
    assert not (tmp_path / "ran").exists()


def test_a_process_loads_a_model_once_and_a_changed_folder_has_another_name(siglip, tmp_path):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(siglip, folder)
    embedder = make_embedder(f"hf:{folder}")
    assert make_embedder(f"hf:{folder}") is embedder
    make_embedder.cache_clear()
    assert make_embedder(f"hf:{folder}").name == embedder.name
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    make_embedder.cache_clear()
    assert make_embedder(f"hf:{folder}").name != embedder.name
    assert make_embedder("hf:google/siglip2-base-patch16-224").name == "hf:google/siglip2-base-patch16-224"


@pytest.mark.parametrize("spec", ["", "hf:", "st: ", "descriptor:2", "magic", "endpoint:"])
def test_a_description_of_no_embedder_is_named(spec):
    with pytest.raises(ConfigError, match=r"The embedder is .*Fix: descriptor, hf:"):
        make_embedder(spec)


def test_paths_in_a_description_are_made_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert settled("hf:model") == f"hf:{tmp_path / 'model'}"
    assert settled("hf:google/siglip2") == "hf:google/siglip2"
    assert settled("descriptor") == "descriptor"
    named = "endpoint:model=m base_url=http://h/v1"
    assert settled("endpoint:m base_url=http://h/v1") == f"{named} cache={tmp_path}/outputs/embedding_cache"
    found = settled("endpoint:m base_url=http://h/v1 cache=c form=input")
    assert found == f"{named} cache={tmp_path}/c form=input"
    assert settled(found) == found


def test_vectors_without_direction_are_an_error_and_absent_ones_stay():
    rows = unit_rows([[3, 4], [np.nan, np.nan]], "m")
    np.testing.assert_allclose(rows[0], [0.6, 0.8])
    assert np.isnan(rows[1]).all()
    for bad in ([[1, 0], [0, 0]], [[np.inf, 1]], [[np.nan, 1]]):
        with pytest.raises(ConfigError, match=r"m gives a vector of length .*Fix:"):
            unit_rows(bad, "m")
    with pytest.raises(ConfigError, match=r"vectors of shape \(2,\)"):
        unit_rows([1, 2], "m")


def test_a_gray_or_tiny_picture_is_no_trouble(siglip):
    rows = make_embedder(f"hf:{siglip}").embed([Image.new("RGB", (1, 1)), Image.new("RGB", (2, 300), "white")])
    assert np.isfinite(rows).all()
