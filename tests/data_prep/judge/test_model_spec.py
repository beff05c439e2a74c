"""What is shown of other programs' errors: no key in any form, nothing that a terminal obeys, one sentence at once."""

from __future__ import annotations

import base64
import sys
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from huggingface_hub import constants
from pydantic import SecretStr

from contextrl_verl.errors import ConfigError, printable
from data_prep.models.spec import load_sentence_encoder, scrubbed

KEYS = ["abcd+/efgh==ijkl", "sk-0123456789abcdef", "sk-proj-" + "aB3_-" * 12]


@pytest.mark.parametrize("key", ["short", *KEYS])
def test_a_key_of_any_kind_is_scrubbed(key):
    secret = SecretStr(key)
    assert scrubbed(f"a {key} b {key}", secret) == "a <API key> b <API key>"
    assert scrubbed(f"?key={quote(key, safe='')}&x", secret) == "?key=<API key>&x"
    assert scrubbed(f"a {key.encode().hex().upper()} b", secret) == "a <API key> b"
    # A local server's stand-in for a key is an ordinary word.
    assert scrubbed("none of them", SecretStr("none")) == "none of them"


@pytest.mark.parametrize("key", KEYS)
def test_a_part_or_an_encoding_of_a_key_is_scrubbed(key):
    secret = SecretStr(key)
    for length in range(8, len(key)):
        assert scrubbed(f"bad key '{key[:length]}...'", secret) == "bad key '<API key>'"
    assert scrubbed(f"bad key {key[:6]}***{key[-4:]}.", secret) == "bad key <API key>."
    for before in ("", "x", "xy", "xyz", "user:"):
        for after in ("", ":", ":pw"):
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                code = encode(f"{before}{key}{after}".encode()).decode()
                shown = scrubbed(f"Basic {code} end", secret)
                assert "<API key>" in shown
                # What is left are at most the codes of the neighbours.
                assert len(shown) <= len("Basic <API key> end") + len(before + after) * 2
    ordinary = "HTTP 400: the model sk-0 is unknown; see https://example.org/docs?x=aGVsbG8gd29ybGQh for abcd"
    assert scrubbed(ordinary, secret) == ordinary


def test_what_a_terminal_obeys_is_left_out():
    told = "\x1b[31mred\x1b[0m \x1b]0;title\x07x\x1b]8;;http://a\x1b\\link \x1b(B\x9b2J\r\b\x00 \u202egnp.exe\n\x1b"
    assert printable("\x1b[31mred\x1b[0m\tone\ntwo é 中") == "red\tone\ntwo é 中"
    assert not set(printable(told)) & set("\x1b\x00\x07\x08\r\x9b\u202e")


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_without_a_network_a_name_is_one_sentence_before_anything_is_loaded(no_hub, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(
        ConfigError, match=r"^--embedder is 'some/model', which is no folder .* does not answer \(.+\)\. Fix: "
    ) as told:
        load_sentence_encoder("some/model", "--embedder", ConfigError)
    assert "\n" not in str(told.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["some/model", "short-name"])
def test_without_a_network_a_model_in_the_cache_is_loaded_from_there(no_hub, monkeypatch, name):
    (no_hub / ("models--some--model" if "/" in name else f"models--sentence-transformers--{name}")).mkdir()
    fake = SimpleNamespace(SentenceTransformer=lambda model, **options: (model, options))
    monkeypatch.setitem(sys.modules, "sentence_transformers", fake)
    assert load_sentence_encoder(name, "x", ConfigError) == (
        name,
        {"trust_remote_code": False, "local_files_only": True},
    )


@pytest.mark.parametrize("error", [RuntimeError("a\n\x1b[1mdump\x1b[0m\n" + "x" * 9999), KeyError("model_type")])
def test_whatever_the_library_raises_is_one_sentence(tmp_path, monkeypatch, error):
    def broken(*_, **__):
        raise error

    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=broken))
    with pytest.raises(ConfigError, match=r"which cannot be loaded \(.*\)\. Fix: ") as told:
        load_sentence_encoder(str(tmp_path), "x", ConfigError)
    assert len(str(told.value)) < 700
    assert "\x1b" not in str(told.value)


def test_a_library_that_is_there_and_broken_is_not_called_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace())
    with pytest.raises(ConfigError, match=r"which cannot be imported \(cannot import name"):
        load_sentence_encoder(str(tmp_path), "x", ConfigError)
