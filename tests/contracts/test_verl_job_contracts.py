"""What contextrl_verl relies on in verl 0.9.1, for the config, the start of a job, rewards and the platform."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra.utils import get_class
from job_factory import compose_job, job_on
from look import parameters, source
from omegaconf import OmegaConf
from pair_factory import text_pair

import contextrl_verl

CONFIG = Path(contextrl_verl.__file__).parent / "config"
# Keys that contextrl_base.yaml adds to verl's config.
ADDED = {"data.contextrl", "actor_rollout_ref.actor.fsdp_config.contextrl"}


def _leaves(node, path=""):
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from _leaves(value, f"{path}.{name}" if path else name)
    else:
        yield path


@pytest.fixture(scope="module")
def verls_own():
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(config_name="ppo_trainer")


def _known(config, path: str) -> bool:
    """Whether verl's yaml has the key, or the class that the yaml names for it has such a field."""
    parent, _, name = path.rpartition(".")
    node = OmegaConf.select(config, parent)
    if node is None:
        return False
    fields = getattr(get_class(node["_target_"]), "__dataclass_fields__", {}) if "_target_" in node else {}
    return name in node.keys() or name in fields


@pytest.mark.parametrize("name", ["contextrl_base", "platform/cpu", "agentic", "multimodal", "text"])
def test_every_key_that_the_yaml_sets_is_one_of_verls(verls_own, name):
    block = yaml.safe_load((CONFIG / f"{name}.yaml").read_text())
    for own in ("contextrl", "defaults", "hydra"):
        block.pop(own, None)
    # Free dictionaries of verl, and keys with a default elsewhere.
    free = ("ray_init.", "override_config.", "mixed_precision.", "sampler_kwargs.")
    for path in _leaves(block):
        if path in ADDED or any(part in path for part in free):
            continue
        assert _known(verls_own, path), f"{name}.yaml sets {path}, and verl's ppo_trainer has no such key"


def test_every_key_that_the_block_reads_is_one_of_verls(verls_own):
    block = yaml.safe_load((CONFIG / "contextrl_base.yaml").read_text())["contextrl"]["run"]
    for name, value in block.items():
        path = re.fullmatch(r"\$\{(?:oc\.select:)?([\w.]+)(?:,.*)?\}", value).group(1)
        if name == "data_sampler":
            assert not _known(verls_own, "data.sampler"), "verl has a sampler hook: batch_plan.py may use it"
            continue
        path = path.split(".override_config.")[0].removesuffix(".reward_kwargs")  # mappings of the user's own
        assert _known(verls_own, path), f"contextrl_base.yaml, contextrl.run.{name}: verl has no {path}"


def test_a_bad_job_stops_in_validate_config_and_that_is_before_ray(tmp_path):
    from verl.trainer import main_ppo
    from verl.utils.config import validate_config

    config = job_on(tmp_path, "data.train_files=[gone.parquet]", pairs=[text_pair(0)])
    OmegaConf.update(config, "actor_rollout_ref.actor.fsdp_config.contextrl", config.contextrl, force_add=True)
    config.actor_rollout_ref.actor.use_dynamic_bsz = True
    with pytest.raises(SystemExit, match=r"(?s)contextrl: .*gone\.parquet"):
        validate_config(config, use_reference_policy=False, use_critic=False)
    driver = source(inspect.unwrap(main_ppo.main), "grpo/config.py")
    assert 0 < driver.find("validate_config(") < driver.find("run_ppo("), "grpo/config.py: the check before Ray"
    assert "ray.init(" in source(main_ppo.run_ppo, "grpo/config.py")


def test_external_lib_is_imported_where_the_models_config_is_built_and_errors_show():
    from verl.workers.config import HFModelConfig

    with pytest.raises(ModuleNotFoundError, match="contextrl_no_such_module"):
        HFModelConfig(path="nowhere", external_lib="contextrl_no_such_module")


def test_modes_and_keys_of_the_v1_trainer():
    from verl.trainer.ppo.v1 import get_trainer_cls

    config = compose_job()
    assert config.trainer.use_v1 is True, "preflight.py"
    assert config.trainer.v1.trainer_mode == "sync", "preflight.py"
    assert get_trainer_cls("sync") is not None


def test_the_reward_function_of_the_yaml_is_called_with_these_names():
    from verl.trainer.ppo.reward import get_custom_reward_fn

    function = get_custom_reward_fn(compose_job())
    info = {"labels": ["A", "B"], "supporting_position": 0}
    asked = {"solution_str": "A", "ground_truth": "A", "extra_info": info, "reward_router_address": None}
    assert function(data_source="contextrl/selection", **asked)["score"] == 1.0, "reward_fns/dispatch.py"


def test_the_cpu_platform_answers_everything_verl_asks_of_a_platform():
    from verl.plugin.platform import PlatformBase, PlatformRegistry

    from contextrl_verl.patches.cpu.platform import PlatformCPU

    assert not PlatformCPU.__abstractmethods__, "cpu/platform.py"
    assert PlatformBase.__abstractmethods__ <= set(dir(PlatformCPU))
    assert PlatformRegistry.get("cpu") is not None
    assert "platform" in parameters(PlatformRegistry.register)


def test_the_loggers_of_the_yaml_exist():
    from verl.utils.tracking import Tracking

    assert {"console", "file"} <= set(Tracking.supported_backend)
    from verl.utils import tracking

    assert "VERL_FILE_LOGGER_PATH" in source(tracking, "demo/job.py"), "demo/job.py follows the file it names"
