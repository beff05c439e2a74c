"""Image pairs next to text-only rows, through the real processors of Qwen2.5-VL and Qwen3-VL."""

from __future__ import annotations

import pytest
from image_factory import color_of, image_pair, picture
from job_factory import job_on, pairs_in, row_ids, verl_loaders
from loop_factory import OneAnswer, model_inputs, run_loop
from omegaconf import OmegaConf
from pair_factory import text_pair

from contextrl_verl.demo.tiny_vision import FAMILIES, make_processor, token_side
from contextrl_verl.errors import ConfigError
from contextrl_verl.grpo.batch_column import ANSWER, CARRIER
from contextrl_verl.pairs.prompting import images_of

ONE_EACH = [image_pair(number, [[(56, 56)], [(84, 56)]]) for number in range(3)]
TWO_EACH = [image_pair(number, [[(56, 56), (112, 56)], [(84, 84), (56, 84)]]) for number in range(3, 6)]
MIXED = [*ONE_EACH, *TWO_EACH, text_pair(0), text_pair(1)]
# One token for 28x28 pixels (Qwen2.5-VL) or 32x32 (Qwen3-VL), rounded: these sizes give the same numbers in both.
TOKENS = {**{pair.pair_id: 4 + 6 for pair in ONE_EACH}, **{pair.pair_id: 4 + 8 + 9 + 6 for pair in TWO_EACH}}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def processor(verl_tokenizer, family):
    return make_processor(verl_tokenizer, family)


def loaders(folder, processor, *overrides, processor_kwargs=None, **files):
    config = job_on(folder, *overrides, **{"pairs": MIXED, "per_batch": 4, "batch": 6, **files})
    OmegaConf.update(config, "data.mm_processor_kwargs", processor_kwargs or {}, force_add=True)
    return verl_loaders(config, processor.tokenizer, processor)


@pytest.mark.parametrize("workers", [0, 2])
def test_image_pairs_and_text_rows_share_a_batch(tmp_path, processor, workers):
    job = loaders(tmp_path, processor, f"data.dataloader_num_workers={workers}")
    seen = set()
    for batch in job.train_dataloader:
        assert len(pairs_in(row_ids(batch))) == 4
        assert all(len(values) == 6 for values in batch.values())
        assert "images" not in batch
        seen |= set(pairs_in(row_ids(batch)))
    assert seen == {pair.pair_id for pair in MIXED}


def test_ordinary_rows_may_have_images_too(tmp_path, processor):
    picture_column = [{"bytes": picture((1, 2, 3), 56, 56), "path": None}]
    prompt = [{"role": "user", "content": "what is <image>?"}]
    job = loaders(tmp_path, processor, images=picture_column, prompt=prompt)
    for batch in job.train_dataloader:
        for name, messages in zip(row_ids(batch), batch["raw_prompt"], strict=True):
            assert len(images_of(messages)) == (1 if name.startswith("rl") else 2 * (name > "image3") + 2) or (
                name.startswith("p") and not images_of(messages)
            )


@pytest.mark.parametrize("pair", [ONE_EACH[1], TWO_EACH[1]], ids=["2x1", "2x2"])
def test_images_stand_at_the_label_of_their_context(tmp_path, processor, pair):
    job = loaders(tmp_path, processor, pairs=[pair], held_out=[pair], per_batch=1)
    rows = [job.val_dataset[at] for at in range(len(job.val_dataset))]
    asked = [row for row in rows if row["agent_name"] == ANSWER]
    assert len(asked) == 2
    for row in asked:
        (message,) = row["raw_prompt"]
        shown: dict[str, list] = {"A": [], "B": []}
        label = ""
        for part in message["content"]:
            if part["type"] == "image":
                shown[label].append(color_of(part["image"]))
            else:
                label = next((name for name in "BA" if f"Context {name} =" in part["text"]), label)
        number = int(pair.pair_id.removeprefix("image"))
        supporting = row["reward_model"]["ground_truth"]
        colors = [
            [(10 * number, 50 * at, 50 * image) for image in range(len(c.images))] for at, c in enumerate(pair.contexts)
        ]
        assert shown[supporting] == colors[0]
        assert shown["B" if supporting == "A" else "A"] == colors[1]
        assert row["extra_info"]["images"] == len(images_of([message])) == sum(map(len, colors))


def test_the_length_filter_counts_the_tokens_an_image_becomes(tmp_path, processor, family):
    def words(pair, order=(0, 1)):
        from contextrl_verl.pairs.prompting import PromptConfig, PromptRenderer

        messages = PromptRenderer(PromptConfig()).messages(pair, order)
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return len(processor.tokenizer(text, add_special_tokens=False)["input_ids"]) - len(images_of(messages))

    pairs = [
        image_pair(number, [[(token_side(family) * wide, 56)], [(56, 56)]])
        for number, wide in enumerate((2, 3, 4, 5, 6))
    ]
    lengths = {pair.pair_id: words(pair) + 2 * (number + 2) + 4 for number, pair in enumerate(pairs)}
    limit = lengths["image2"]
    dataset = loaders(tmp_path, processor, f"data.max_prompt_length={limit}", pairs=pairs, per_batch=1).train_dataset
    assert [pair.pair_id for pair in dataset.pairs] == ["image0", "image1", "image2"]
    assert sum(dataset.pairs.dropped.values()) == 2


@pytest.mark.parametrize("extra", [{}, {"min_pixels": 28 * 28, "max_pixels": 4 * 28 * 28}], ids=["", "max_pixels"])
@pytest.mark.parametrize("agent", [CARRIER, ANSWER])
def test_prompt_tokens_and_the_training_sides_pixels_agree(tmp_path, processor, agent, extra):
    job = loaders(tmp_path, processor, processor_kwargs=extra, pairs=MIXED[:6], held_out=MIXED[:6])
    image_token = processor.image_token_id
    for dataset in (job.train_dataset, job.val_dataset):
        rows = [row for at in range(len(dataset)) if (row := dataset[at])["agent_name"] == agent]
        for row in rows[:6]:
            server = OneAnswer([11])
            output = run_loop(job.config, row, processor.tokenizer, processor, server)
            count = output.prompt_ids.count(image_token)
            inputs = model_inputs(output, processor.tokenizer, processor)
            assert int(inputs["image_grid_thw"].prod(-1).sum()) // 4 == count
            if not extra:
                assert count == TOKENS[row["extra_info"]["pair_id"]]
            if agent == ANSWER:
                (asked,) = server.asked
                assert asked["image_data"] == images_of(row["raw_prompt"])


def test_text_pairs_of_a_vision_model_have_no_images(tmp_path, processor):
    job = loaders(tmp_path, processor, pairs=[text_pair(0)], per_batch=1)
    row = next(r for at in range(6) if (r := job.train_dataset[at])["agent_name"] == CARRIER)
    output = run_loop(job.config, row, processor.tokenizer, processor)
    assert output.multi_modal_data == {}
    assert "pixel_values" not in model_inputs(output, processor.tokenizer, processor)


def test_image_pairs_without_a_processor_are_refused(tmp_path, verl_tokenizer):
    with pytest.raises(ConfigError, match="has no processor"):
        verl_loaders(job_on(tmp_path, pairs=ONE_EACH), verl_tokenizer)
