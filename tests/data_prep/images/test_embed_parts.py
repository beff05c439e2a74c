"""Embedding in parts: what is written, Ray with a pool of GPU actors, refused pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chat_server import ChatServer, failure
from embedding_job import COUNT, fill, job
from embedding_server import picture_of, right
from made_pictures import noisy

from contextrl_verl.errors import ConfigError
from data_prep.common.pipeline import PipelineError, run_parts, total
from data_prep.images.embed.parts import (
    embed_part,
    load_embeddings,
    look,
    make_embedder,
    perceptual_hash,
    plan_embed,
    unit_rows,
)
from data_prep.images.store import ImageStore


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    fill(folder)
    return folder


def contents(done) -> list[bytes]:
    return [part.path.read_bytes() for part in done]


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory) -> list[bytes]:
    return contents(job(store, tmp_path_factory.mktemp("whole")))


def test_each_picture_has_its_row_in_the_order_of_names(store, tmp_path):
    names = [path.stem for path in store.rglob("*.png")]
    plan = plan_embed([*names, *names[:5]], store, per_part=10)
    assert [len(part["images"]) for part in plan] == [10, 10, 10, 6]
    done = run_parts(tmp_path, plan, embed_part, title="t", workers=1, progress=False)
    (stage,) = total(done)
    assert stage.summary() == {"name": "embed", "unit": "pictures", "in": COUNT, "out": COUNT, "dropped": {}}
    found = load_embeddings([part.path for part in done])
    assert found.images == sorted(names)
    assert found.embedder == make_embedder("descriptor").name
    pictures = [ImageStore(store).open(name) for name in found.images]
    np.testing.assert_array_equal(found.vectors, unit_rows(make_embedder("descriptor"), pictures))
    assert found.hashes.tolist() == [perceptual_hash(picture) for picture in pictures]
    np.testing.assert_array_equal(found.looks, np.stack([look(picture) for picture in pictures]))


# tests/data_prep/test_pipeline.py runs parts on Ray, and kills them.
@pytest.mark.slow
def test_a_pool_of_gpu_actors_on_ray_gives_the_same_bytes(store, whole, tmp_path):
    ray = pytest.importorskip("ray")
    here = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, runtime_env=here)
    try:
        assert contents(job(store, tmp_path / "half", engine="ray", workers=None, gpus=0.5)) == whole
        with pytest.raises(PipelineError, match=r"is to have 2 GPUs, and Ray's cluster has 1. Fix:"):
            job(store, tmp_path / "too many", engine="ray", workers=None, gpus=2)
        with pytest.raises(PipelineError, match=r"part-\d+ .*The embedder is 'magic'"):
            job(store, tmp_path / "failing", "magic", engine="ray", workers=None, gpus=1)
    finally:
        ray.shutdown()


def test_a_picture_that_is_refused_is_counted_and_left_out(tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    odd, names = noisy(2), [ImageStore(tmp_path / "store").put(noisy(seed)) for seed in range(4)]

    def reply(number, body):
        return failure(400, "no") if picture_of(body).tobytes() == odd.tobytes() else right(number, body)

    with ChatServer(reply, path="/v1/embeddings") as server:
        spec = f"endpoint:m base_url={server.url} cache={tmp_path / 'cache'}"
        plan = plan_embed(names, tmp_path / "store", spec)
        done = run_parts(tmp_path / "work", plan, embed_part, title="t", workers=1, progress=False)
    (stage,) = total(done)
    assert stage.summary()["dropped"] == {"refused by the embedder": 1}
    assert stage.samples["refused by the embedder"] == [{"images": [names[2]]}]
    found = load_embeddings([part.path for part in done])
    assert found.images == sorted(set(names) - {names[2]})
    assert found.vectors.shape == (3, 16)


def test_a_picture_that_is_not_in_the_store_stops_the_part(tmp_path):
    (payload,) = plan_embed(["0" * 32], tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be read .*Fix:"):
        embed_part(payload, tmp_path / "out")


def test_with_gpus_the_local_engine_keeps_one_process_for_all_parts(store, whole, tmp_path):
    before = make_embedder.cache_info().hits
    assert contents(job(store, tmp_path, workers=None, gpus=1)) == whole
    # Done here, where the parts find the embedder made before.
    assert make_embedder.cache_info().hits - before >= len(whole) - 1
