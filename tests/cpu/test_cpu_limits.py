"""Limits of the CPU platform that a larger model meets are told with the number that it needs."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
from transformers import LlamaConfig

from contextrl_verl.errors import ConfigError
from contextrl_verl.patches.cpu.limits import check_cpu_limits
from contextrl_verl.settings import RunView

# SmolLM2-135M's sizes: an embedding of 49152 * 576 * 4 = 108 MiB, a token of cache 2 * 30 * 3 * 64 * 4 = 45 KiB.
SMOLLM2 = LlamaConfig(
    vocab_size=49152, hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3
)


@pytest.fixture(autouse=True)
def room(monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 30))


def test_the_embedding_must_fit_into_verls_transfer():
    with pytest.raises(ConfigError, match=r"update_weights_bucket_megabytes is 64, .* has 108 MiB.* Fix: .*=108\.$"):
        check_cpu_limits(RunView(bucket_megabytes=64), SMOLLM2)
    check_cpu_limits(RunView(bucket_megabytes=108), SMOLLM2)


def test_the_transfer_must_fit_into_shared_memory(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=64 << 20))
    with pytest.raises(ConfigError, match=r"/dev/shm has 64 MiB left.*256 MiB"):
        check_cpu_limits(RunView(bucket_megabytes=256), SMOLLM2)


def test_a_sequence_must_fit_into_vllms_cache():
    check_cpu_limits(RunView(bucket_megabytes=256, max_model_len=23_301), SMOLLM2)
    with pytest.raises(ConfigError, match=r"VLLM_CPU_KVCACHE_SPACE is 1 GiB.*max_model_len=23302 .* Fix: .*SPACE=2"):
        check_cpu_limits(RunView(bucket_megabytes=256, max_model_len=23_302), SMOLLM2)
