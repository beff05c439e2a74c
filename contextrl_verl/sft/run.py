"""One run of verl's supervised trainer on selections, as a subprocess; the result is a Hugging Face folder for GRPO.

    python -m contextrl_verl.sft.run --out DIR [--cpu] model.path=MODEL contextrl.pairs.train_files=[pairs.parquet] ...

trains, or finds that DIR holds the result of the same job already, and prints the folder as its last line.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contextrl_verl.checkpoint.card import data_files
from contextrl_verl.errors import ConfigError
from contextrl_verl.launch import JobError, OnMetrics, command_of, watch
from contextrl_verl.pairs.whole_file import write_whole
from contextrl_verl.patches.cpu.environment import cpu_environment, cpu_selected

TRAINER = "verl.trainer.sft_trainer_ray"
GPU, CPU = "selection_sft", "selection_sft_cpu"
# Says what made the folder; written last, so its presence means that the run ended well.
MANIFEST = "selection_sft.json"
# Of no influence on the weights.
_FREE = ("trainer.logger", "trainer.project_name", "trainer.experiment_name")


def run_selection_sft(
    keys: Mapping[str, Any],
    folder: Path,
    *,
    config_name: str = CPU,
    on_metrics: OnMetrics | None = None,
    timeout: float = float("inf"),
) -> Path:
    """Train on selections and return the Hugging Face folder of the result, an absolute path.

    Called again with the same keys and unchanged pair files, it returns the folder without training. A run that was cut
    short starts again, or resumes if the keys had it save on the way.

    Args:
        keys: Hydra overrides; paths are relative to the current folder.
        folder: gets ``trainer.log``, ``metrics.jsonl``, ``.hydra``, ``checkpoints`` and ``selection_sft.json``; every
            node must see it.
        on_metrics, timeout: as of :func:`contextrl_verl.launch.watch`.

    Raises:
        ConfigError: something is wrong with the keys, or the folder holds the result of another job.
        JobError: the trainer stopped; the message ends with the last lines of its log.
    """
    folder = folder.resolve()
    own = {"hydra.run.dir": str(folder), "trainer.default_local_dir": str(folder / "checkpoints")}
    for key in keys:
        if key.lstrip("+~") in own:
            raise ConfigError(f"{key} is {keys[key]!r}, and it is set from --out. Fix: leave it out.")
    job = {"--config-name": config_name, **{key: keys[key] for key in sorted(keys) if key not in _FREE}}
    if (done := finished(folder, job)) is not None:
        return done
    command = command_of(TRAINER, config_name, {"trainer.logger": ["console", "file"], **keys, **own})
    environment = dict(os.environ)
    if config_name == CPU:
        # verl's trainer calls ray.init() bare; more CPUs than there are, for a worker asks for ten.
        ranks = int(keys.get("trainer.n_gpus_per_node", 1))
        logical = json.dumps({"CPU": 32 * ranks, "GPU": ranks})
        environment = {"RAY_OVERRIDE_RESOURCES": logical, **cpu_environment()}
    try:
        watch(command, folder, environment, on_metrics=on_metrics, timeout=timeout)
    except JobError as error:
        raise _sentence(folder / "trainer.log") or error from None
    checkpoints = folder / "checkpoints"
    step = (checkpoints / "latest_checkpointed_iteration.txt").read_text().strip()
    model = checkpoints / f"global_step_{step}" / "huggingface"
    if not list(model.glob("*.safetensors")):
        raise JobError(f"the trainer ended without weights in {model}; its log is {folder / 'trainer.log'}.")
    record = {"job": job | _pair_files(folder), "model": str(model.relative_to(folder)), "steps": int(step)}
    write_whole(folder / MANIFEST, json.dumps(record, indent=2) + "\n")
    return model


def finished(folder: Path, job: Mapping[str, Any]) -> Path | None:
    """The result in ``folder`` if this very job has ended there, None if none has.

    Raises:
        ConfigError: another job has: other keys, or pair files that changed since.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    record = json.loads(path.read_text())
    old, new = record["job"], json.loads(json.dumps(job | _pair_files(folder)))
    differ = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    if differ:
        raise ConfigError(
            f"{folder} holds the result of another supervised job; what differs: {', '.join(differ)}. "
            "Fix: name another folder, or remove this one."
        )
    model = folder / record["model"]
    if not list(model.glob("*.safetensors")):
        raise ConfigError(f"{path} names {model}, and its weights are gone. Fix: remove {folder} to train again.")
    return model


def _pair_files(folder: Path) -> dict[str, list[str | None]]:
    """Names of the pair files of the job that ran in ``folder``, and the digests of those with that name."""
    from omegaconf import OmegaConf

    digests: dict[str, list[str | None]] = {}
    for row in data_files(OmegaConf.load(folder / ".hydra" / "config.yaml")):
        if row["key"] == "contextrl.pairs.train_files":
            digests.setdefault(row["name"], []).append(row["sha256"])
    return digests


def _sentence(log: Path) -> ConfigError | None:
    """What a job says that cannot be right: one paragraph, or several with numbers."""
    text = log.read_text(errors="replace")
    found = re.findall(r"^contextrl: (.*Fix: .*|\d+ things to mend:(?:\n\d+\. .*)+)", text, re.MULTILINE)
    return ConfigError(*re.sub(r"^\d+ things to mend:\n", "", found[-1]).split("\n")) if found else None


def _show(step: int, metrics: dict[str, Any]) -> None:
    shown = [f"{name} {metrics[f'{name}/loss']:.4f}" for name in ("train", "val") if f"{name}/loss" in metrics]
    print(f"step {step}: loss in {', '.join(shown)}", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m contextrl_verl.sft.run", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run and its result")
    parser.add_argument("--cpu", action="store_true", help="config selection_sft_cpu, also with VERL_PLATFORM=cpu")
    parser.add_argument("override", nargs="*", help="Hydra overrides, key=value")
    given = parser.parse_args(arguments)
    cpu = given.cpu or cpu_selected()
    try:
        for override in given.override:
            if "=" not in override:
                raise ConfigError(f"{override!r} is no Hydra override. Fix: key=value.")
        keys = dict(override.split("=", 1) for override in given.override)
        model = run_selection_sft(keys, given.out, config_name=CPU if cpu else GPU, on_metrics=_show)
    except (ConfigError, JobError) as error:
        print(f"contextrl sft: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    print(model)
    return 0


if __name__ == "__main__":
    sys.exit(main())
