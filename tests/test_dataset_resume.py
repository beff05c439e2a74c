"""A resumed job continues with exactly the rows that were left, or says why it cannot."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
import torch
from job_factory import job_on, row_ids, verl_loaders
from pair_factory import text_pair

from contextrl_verl.errors import ConfigError
from contextrl_verl.grpo.preflight import check_resume
from contextrl_verl.settings import parse_settings

SIX = [text_pair(number) for number in range(6)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [1, 5, 11])
def test_a_resumed_loader_gives_exactly_the_rest(tmp_path, verl_tokenizer, workers, done):
    config = job_on(tmp_path, "contextrl.epochs=3", f"data.dataloader_num_workers={workers}", pairs=SIX)
    whole = [row_ids(batch) for batch in verl_loaders(config, verl_tokenizer).train_dataloader]
    loader, read, stored = verl_loaders(config, verl_tokenizer).train_dataloader, [], io.BytesIO()
    for batch in loader:
        read.append(row_ids(batch))
        if len(read) == done:
            torch.save(loader.state_dict(), stored)
    assert read == whole
    stored.seek(0)
    fresh = verl_loaders(config, verl_tokenizer).train_dataloader
    fresh.load_state_dict(torch.load(stored, weights_only=False))
    assert [row_ids(batch) for batch in fresh] == whole[done:]


CHANGES = {
    "fewer_pairs": {"pairs": SIX[:5]},
    "another_pair": {"pairs": [*SIX[:5], text_pair(9)]},
    "order_of_pairs": {"pairs": SIX[::-1]},
    "more_rows": {"rows": range(13)},
    "other_rows": {"rows": range(1, 13)},
    "batch": {"batch": 6},
    "pairs_per_batch": {"per_batch": 1},
    "seed": {"seed": 2},
}


@pytest.mark.parametrize(("change", "workers"), [*((name, 0) for name in CHANGES), ("seed", 2)])
def test_changed_data_or_seed_on_resume_is_refused(tmp_path, verl_tokenizer, workers, change):
    def loader(seed=1, **files):
        overrides = f"contextrl.seed={seed}", f"data.dataloader_num_workers={workers}"
        return verl_loaders(job_on(tmp_path, *overrides, **{"pairs": SIX, **files}), verl_tokenizer).train_dataloader

    before = loader()
    states = [before.state_dict() for _ in before]
    after = loader(**CHANGES[change])
    after.load_state_dict(states[0])
    with pytest.raises(ConfigError, match="Fix: resume with the same data"):
        next(iter(after))


def test_a_resumed_job_may_be_longer(tmp_path, verl_tokenizer):
    before = verl_loaders(job_on(tmp_path, pairs=SIX), verl_tokenizer).train_dataloader
    states = [before.state_dict() for _ in before]
    longer = verl_loaders(job_on(tmp_path, "contextrl.epochs=2", pairs=SIX), verl_tokenizer).train_dataloader
    whole = [row_ids(batch) for batch in longer]
    longer.load_state_dict(states[-1])
    assert [row_ids(batch) for batch in longer] == whole[len(before) :]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ours", [True, False])
def test_the_check_before_ray_tells_whose_state_of_verls_loader_it_is(tmp_path, verl_tokenizer, ours, workers):
    keys = [f"data.dataloader_num_workers={workers}", *([] if ours else ["data.custom_cls.path=null"])]
    config = job_on(tmp_path, *keys, pairs=SIX)
    loader = verl_loaders(config, verl_tokenizer).train_dataloader
    next(iter(loader))
    (folder := tmp_path / "checkpoints" / "global_step_1").mkdir(parents=True)
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("1")
    torch.save(loader.state_dict(), folder / "data.pt")
    settings = parse_settings({"run": {"resume_mode": "auto", "default_local_dir": str(tmp_path / "checkpoints")}})
    if ours:
        check_resume(settings, SimpleNamespace(steps=2))
        return
    with pytest.raises(ConfigError, match=r"global_step_1, which a job without contextrl wrote.*Fix: "):
        check_resume(settings, SimpleNamespace(steps=2))
