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
def tokenizer(demo_tokenizer):
    return demo_tokenizer


def _ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("word", [*tiny_model.LABELS, *DIGITS])
def test_labels_and_digits_are_one_token_wherever_they_stand(tokenizer, word):
    (bare,) = _ids(tokenizer, word)
    prompt = tiny_model.chat_text("hello")
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


def test_the_text_written_out_is_that_of_the_template(tokenizer):
    messages = [{"role": "user", "content": "say 7"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tiny_model.chat_text("say 7") == rendered
    assert tokenizer.eos_token == "<|im_end|>"


def test_checkpoint_loads_with_its_tokenizer(tmp_path, tokenizer):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = tiny_model.make_model(tmp_path, tokenizer)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.config.hidden_size // loaded.config.num_attention_heads == 32
    assert loaded.config.max_position_embeddings == 4096
    assert loaded.config.eos_token_id == again.eos_token_id == tokenizer.eos_token_id
    text = tiny_model.chat_text("Context A:\n7 ok")
    assert _ids(again, text) == _ids(tokenizer, text)
    assert again.chat_template == tokenizer.chat_template
    torch.testing.assert_close(loaded.state_dict(), made.state_dict(), rtol=0, atol=0)


def test_same_seed_same_weights_and_the_callers_random_state_stays(tokenizer):
    before = torch.random.get_rng_state()
    one, other = (tiny_model.make_model(None, tokenizer, seed=4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert torch.equal(before, torch.random.get_rng_state())


def test_padding_does_not_change_the_logits(tokenizer):
    model = tiny_model.make_model(None, tokenizer).eval()
    asked = ["say 7", "a much longer message than the other one"]
    together = tiny_model.next_token_logits(model, tokenizer, asked)
    alone = torch.cat([tiny_model.next_token_logits(model, tokenizer, [message]) for message in asked])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_selections_are_asked_in_both_orders_and_their_logits_are_the_labels(tokenizer):
    model, pairs = tiny_model.make_model(None, tokenizer).eval(), evidence_pairs(3, 0)
    logits, options, supporting = tiny_model.selection_logits(model, tokenizer, pairs)
    assert supporting.tolist() == [0, 1] * 3
    assert torch.equal(options, logits[:, _ids(tokenizer, "A") + _ids(tokenizer, "B")])
    first, second = (tiny_model.selection_prompt(pairs[0], order) for order in tiny_model.ORDERS)
    right, wrong = pairs[0].supporting.text, pairs[0].confounders[0].text
    assert first.index(right) < first.index(wrong)
    assert second.index(wrong) < second.index(right)


def test_the_loss_is_over_replies_and_their_ends(tokenizer):
    model, turns = tiny_model.make_model(None, tokenizer).eval(), [("what is port?", "3"), ("which? 1 or 2", "1")]
    loss = tiny_model.reply_loss(model, tokenizer, [turns, [("say 7", "7 7")]])
    total, count = 0.0, 0
    for messages in (turns, [("say 7", "7 7")]):
        text = "\n".join(tiny_model.chat_text(user) + reply + "<|im_end|>" for user, reply in messages)
        ids = _ids(tokenizer, text)
        with torch.no_grad():
            logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        end, inside = tokenizer.eos_token_id, False
        starts = _ids(tokenizer, "assistant\n")
        for at in range(len(ids) - 1):
            inside = inside or ids[at + 1 - len(starts) : at + 1] == starts
            if inside:
                total, count, inside = total - float(logs[at, ids[at + 1]]), count + 1, ids[at + 1] != end
    assert count == 2 + 2 + len(_ids(tokenizer, "7 7")) + 1
    assert float(loss) == pytest.approx(total / count, rel=1e-4)


def test_learning_warms_up_and_tells_each_step(tokenizer):
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 5.0)
    told = list(tiny_model.learn(model, lambda: model.weight.square().sum(), steps=3, rate=0.1, warm_up=2))
    assert [step for step, _ in told] == [1, 2, 3]
    assert told[0][1] == 25.0
    # Adam's first step is as long as the learning rate: half of it, for the rate still rises.
    assert told[1][1] ** 0.5 == pytest.approx(4.95, abs=5e-3)


def _warmed(tokenizer, **how):
    model = tiny_model.make_model(None, tokenizer, seed=1)
    return model, tiny_model.warm_up(model, tokenizer, seed=1, **how)


def test_warm_up_stops_when_selecting_has_just_begun_and_takes_back_too_much(tokenizer, monkeypatch):
    def warmed(accuracies, **how):
        looks = iter(accuracies)
        monkeypatch.setattr(tiny_model, "selection_accuracy", lambda *_: (next(looks), 1.0))
        return _warmed(tokenizer, batch_size=2, **how)

    # Before step 100 it has read too little; a look is every five steps.
    assert warmed([0.6] * 19 + [0.5, 0.56])[1] == 105
    (kept, steps), (begun, _) = warmed([0.5, 0.7]), warmed([0.5], most_steps=5)
    assert steps == 5
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), begun.parameters(), strict=True))


@pytest.mark.parametrize("most_steps", [60, pytest.param(800, marks=pytest.mark.slow)])
def test_the_real_warm_up_teaches_to_reply_with_labels_and_little_more(tokenizer, most_steps):
    model, steps = _warmed(tokenizer, most_steps=most_steps, batch_size=32 if most_steps == 60 else 64)
    accuracy, mass = tiny_model.selection_accuracy(model, tokenizer, evidence_pairs(128, 2, "heldout"))
    assert mass >= 0.9
    assert 0.4 <= accuracy <= 0.65
    if most_steps == 60:
        return
    assert 100 <= steps < 800
    # The ordinary task is right about half of the time, so that GRPO has something to raise.
    with torch.no_grad():
        first = tiny_model.next_token_logits(model, tokenizer, [f"say {digit}" for digit in DIGITS]).softmax(-1)
    right = first[range(len(DIGITS)), [_ids(tokenizer, digit)[0] for digit in DIGITS]]
    assert 0.2 <= float(right.mean()) <= 0.8
