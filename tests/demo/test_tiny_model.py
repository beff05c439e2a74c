import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from contextrl_verl.demo import tiny_model  # noqa: E402
from contextrl_verl.demo.evidence_pairs import DIGITS, evidence_pairs  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_model.make_tokenizer()


def _ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("word", [*tiny_model.LABELS, *DIGITS])
def test_labels_and_digits_are_one_token_wherever_they_stand(tokenizer, word):
    (bare,) = _ids(tokenizer, word)
    prompt = tiny_model.chat_text(tokenizer, "hello")
    assert _ids(tokenizer, prompt + word) == [*_ids(tokenizer, prompt), bare]
    assert _ids(tokenizer, "\n" + word) == [*_ids(tokenizer, "\n"), bare]
    after_space = _ids(tokenizer, " " + word)
    assert after_space == [*_ids(tokenizer, " "), bare] if word in DIGITS else len(after_space) == 1


@pytest.mark.parametrize("text", ["say 7", "Context A:\n$ read port\n7 ok", "naïve 数 \t\n\n {}"])
def test_decoding_gives_the_text_back(tokenizer, text):
    assert tokenizer.decode(_ids(tokenizer, text)) == text


def test_two_tokenizers_made_in_the_same_way_are_equal(tokenizer):
    again = tiny_model.make_tokenizer()
    assert again.get_vocab() == tokenizer.get_vocab()
    assert len(tokenizer) <= 512


def test_chat_template_is_chatml(tokenizer):
    text = tiny_model.chat_text(tokenizer, "say 7", prefill="so ")
    assert text == "<|im_start|>user\nsay 7<|im_end|>\n<|im_start|>assistant\nso "
    assert tokenizer.eos_token == "<|im_end|>"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_checkpoint_loads_with_its_tokenizer(tmp_path, tokenizer, dtype):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = tiny_model.make_model(tmp_path, tokenizer, dtype=dtype)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.dtype == getattr(torch, dtype)
    assert made.dtype == torch.float32
    assert loaded.config.hidden_size // loaded.config.num_attention_heads == 32
    assert loaded.config.max_position_embeddings == 4096
    assert loaded.config.eos_token_id == again.eos_token_id == tokenizer.eos_token_id
    text = tiny_model.chat_text(tokenizer, "Context A:\n7 ok")
    assert _ids(again, text) == _ids(tokenizer, text)
    assert tiny_model.chat_text(again, "Context A:\n7 ok") == text
    # Weights, not logits: casting the whole module would also cast its rotary buffers, which loading keeps in fp32.
    torch.testing.assert_close(loaded.state_dict(), made.to(loaded.dtype).state_dict(), rtol=0, atol=0)


def test_a_head_size_vllm_refuses_is_refused(tokenizer):
    with pytest.raises(ValueError, match="use hidden_size=64"):
        tiny_model.make_model(None, tokenizer, hidden_size=128, heads=2)


def test_same_seed_same_weights_and_the_callers_random_state_stays(tokenizer):
    before = torch.random.get_rng_state()
    one, other = (tiny_model.make_model(None, tokenizer, seed=4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert torch.equal(before, torch.random.get_rng_state())


def test_padding_does_not_change_the_logits(tokenizer):
    model = tiny_model.make_model(None, tokenizer).eval()
    texts = [tiny_model.chat_text(tokenizer, user) for user in ("say 7", "a much longer message than the other one")]
    together = tiny_model.next_token_logits(model, tokenizer, texts)
    alone = torch.cat([tiny_model.next_token_logits(model, tokenizer, [text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_selection_prompts_ask_every_pair_in_both_orders():
    pairs = list(evidence_pairs(10, 0))
    prompts = tiny_model.selection_prompts(pairs, lambda query, answer, a, b: f"{a}|{b}")
    assert [label for _, label in prompts] == ["A", "B"] * 10
    for (first, _), (second, _) in zip(prompts[::2], prompts[1::2], strict=True):
        assert first.split("|") == second.split("|")[::-1]


def test_two_steps_of_warm_up_change_the_model_the_same_way_each_time(tokenizer):
    def warmed():
        model = tiny_model.make_model(None, tokenizer)
        assert tiny_model.warm_up(model, tokenizer, most_steps=2, batch_size=8) == 2
        return model

    one, other, cold = warmed(), warmed(), tiny_model.make_model(None, tokenizer)
    weight = "model.embed_tokens.weight"
    assert torch.equal(one.state_dict()[weight], other.state_dict()[weight])
    assert not torch.equal(one.state_dict()[weight], cold.state_dict()[weight])
    measured = tiny_model.selection_accuracy(one, tokenizer, evidence_pairs(4, 0, "heldout"))
    assert 0 <= measured["accuracy"] <= 1
    assert measured["prompts"] == 8
    assert 0 <= tiny_model.copy_success(one, tokenizer) <= 1


def test_warm_up_stops_when_selecting_has_just_begun(tokenizer):
    model = tiny_model.make_model(None, tokenizer, seed=1)
    steps = tiny_model.warm_up(model, tokenizer, seed=1)
    assert steps < 800
    measured = tiny_model.selection_accuracy(model, tokenizer, evidence_pairs(128, 2, "heldout"))
    assert 0.45 <= measured["accuracy"] <= 0.65
    assert measured["option_mass"] >= 0.9
    assert 0.2 <= tiny_model.copy_success(model, tokenizer) <= 0.8
