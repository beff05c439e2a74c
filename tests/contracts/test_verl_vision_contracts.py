"""What contextrl_verl relies on, and works around, in verl 0.9.1's forward pass of vision-language models."""

from __future__ import annotations

import inspect

import pytest
import torch
from look import parameters, source

from contextrl_verl.demo.tiny_vision import make_model, make_processor

qwen2_vl = pytest.importorskip("verl.models.transformers.qwen2_vl", reason="needs verl and a working torchvision")

import contextrl_verl.grpo.register  # noqa: E402, F401


@pytest.fixture(scope="module")
def inner(demo_tokenizer):
    return make_model(make_processor(demo_tokenizer, "qwen2_5_vl"), "qwen2_5_vl").model


def test_a_batch_without_images_is_embedded_and_reaches_the_tower(inner):
    ids = torch.tensor([[5, 6, 7]])
    embeds, mask = qwen2_vl._get_input_embeds(inner, ids)
    assert mask is None
    assert torch.equal(embeds, inner.get_input_embeddings()(ids))
    inner.zero_grad()
    embeds.sum().backward()
    # Zero, but there: with several ranks every one of them must reduce these gradients.
    assert all(p.grad is not None and not p.grad.any() for p in inner.visual.patch_embed.parameters())


def test_verl_still_fails_without_the_work_around(inner):
    """When this fails, verl has mended it: delete contextrl_verl/patches/qwen2_vl_text_only.py and its tests here."""
    original = inspect.unwrap(qwen2_vl._get_input_embeds)
    with pytest.raises(AttributeError, match="mean"):
        original(inner, torch.tensor([[5, 6, 7]]))


def test_batches_with_images_are_verls_alone(inner):
    pixels, grid = torch.randn(16, 1176), torch.tensor([[1, 4, 4]])
    ids = torch.tensor([[5, *[inner.config.image_token_id] * 4, 7]])
    original = inspect.unwrap(qwen2_vl._get_input_embeds)
    for function in (original, qwen2_vl._get_input_embeds):
        embeds, _ = function(inner, ids, None, pixels, None, grid, None)
        assert torch.allclose(embeds[0, 1:5], inner.visual(pixels, grid_thw=grid).pooler_output)


def test_the_function_is_looked_up_by_the_forward_pass_when_it_runs():
    names = ["model", "input_ids", "attention_mask", "pixel_values", "pixel_values_videos"]
    grids = ["image_grid_thw", "video_grid_thw"]
    assert parameters(inspect.unwrap(qwen2_vl._get_input_embeds)) == names + grids, "all_text_batches.py"
    assert "_get_input_embeds(" in source(qwen2_vl.qwen2_vl_base_forward, "all_text_batches.py")


def test_qwen3_vl_unpacks_by_itself(demo_tokenizer):
    from verl.models.transformers import qwen3_vl

    inner = make_model(make_processor(demo_tokenizer, "qwen3_vl"), "qwen3_vl").model
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(qwen3_vl._get_input_embeds(inner, ids)["inputs_embeds"], inner.get_input_embeddings()(ids))
