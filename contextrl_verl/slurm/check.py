"""``python -m contextrl_verl.slurm.check config.yaml``: does a resolved configuration fit the nodes it is sent to?"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

from contextrl_verl.checkpoint.card import read_config
from contextrl_verl.errors import ConfigError, JobRefused


def check_allocation(config: Any, nodes: int, gpus: int, requeue: bool) -> None:
    """Raises ConfigError for all of a job's configuration that does not fit what it asks Slurm for."""
    trainer, ray_init = config.trainer, (config.get("ray_kwargs") or {}).get("ray_init", {})
    problems = [
        f"trainer.{key} is {trainer[key]}, and the job asks Slurm for {variable}={wanted}. Fix: "
        f"{variable}={trainer[key]}, or leave trainer.{key} to submit.sh."
        for key, wanted, variable in (("nnodes", nodes, "NODES"), ("n_gpus_per_node", gpus, "GPUS_PER_NODE"))
        if trainer[key] != wanted
    ]
    problems += [
        f"ray_kwargs.ray_init.{key} is {ray_init[key]}, which Ray refuses of a driver that joins a running cluster. "
        f"Fix: ++ray_kwargs.ray_init.{key}=null (RAY_START_ARGS and CPUS_PER_NODE say what a node has)."
        for key in ("num_cpus", "num_gpus")
        if ray_init.get(key) is not None
    ]
    if requeue and trainer.save_freq <= 0:
        problems.append(
            f"trainer.save_freq is {trainer.save_freq}, so a requeued job would start at step 0 again. "
            "Fix: trainer.save_freq=<steps you can afford to lose>, or REQUEUE=0."
        )
    if requeue and trainer.resume_mode != "auto":
        problems.append(
            f"trainer.resume_mode is {trainer.resume_mode!r}, so a requeued job would not go on from its last "
            "checkpoint. Fix: trainer.resume_mode=auto, or REQUEUE=0."
        )
    if problems:
        raise ConfigError(*problems)


def check_offline(path: str) -> None:
    """Raises ConfigError if the hub is switched off and a model given by its name there is not whole in the cache."""
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if not constants.HF_HUB_OFFLINE or Path(path).exists():
        return
    try:
        found = try_to_load_from_cache(path, "config.json")
    except HFValidationError:
        # Not such a name; loading it tells what is wrong.
        return
    if not isinstance(found, str) or not _has_weights(Path(found).parent):
        raise ConfigError(
            f"actor_rollout_ref.model.path is {path!r}, HF_HUB_OFFLINE is set, and {constants.HF_HUB_CACHE} does not "
            f"have all of that model. Fix: HF_HUB_OFFLINE=0 hf download {path} with the same HF_HOME where there is "
            "internet, or MODEL=<its folder>."
        )


def _has_weights(folder: Path) -> bool:
    # A download that was cut short has the index of the weights and not all of the files.
    shards = [json.loads(index.read_text())["weight_map"].values() for index in folder.glob("*.index.json")]
    whole = [all((folder / name).exists() for name in names) for names in shards]
    return any(whole) if whole else any(file.suffix in (".safetensors", ".bin") for file in folder.iterdir())


def check_verl(config: Any) -> None:
    """verl's own checks, as a ConfigError; building its dataclasses also runs contextrl_verl's check of the job."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    # GRPO has no critic, and verl says so at length.
    warnings.filterwarnings("ignore", message="Disabled critic")
    try:
        validate_config(config, need_reference_policy(config), need_critic(config))
    except JobRefused as error:
        # How the check of the job ends a trainer; here another sentence goes in front.
        raise ConfigError(*error.problems) from None
    except Exception as error:  # whatever building verl's dataclasses raises
        told = f"{type(error).__name__}: {error}"
        raise ConfigError(f"verl refuses the configuration: {told}. Fix: correct the keys it names.") from None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--gpus-per-node", type=int, required=True)
    parser.add_argument("--requeue", type=int, choices=(0, 1), default=1)
    options = parser.parse_args()
    try:
        config = read_config(options.config)
        check_allocation(config, options.nodes, options.gpus_per_node, bool(options.requeue))
        check_offline(config.actor_rollout_ref.model.path)
        check_verl(config)
    except ConfigError as error:
        print(f"contextrl slurm: {error}", file=sys.stderr)
        return 1
    print(f"contextrl slurm: the configuration fits {options.nodes} node(s) with {options.gpus_per_node} GPU(s) each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
