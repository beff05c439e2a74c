"""Environment variables of a run on a CPU. Imports nothing but ``os``: the verl and vLLM entry points load it."""

import os
from collections.abc import Mapping

# Names an entry point to torch, see torchvision_ops.py.
AUTOLOAD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "autoload")

ENVIRONMENT: dict[str, str] = {
    # Selects contextrl_verl.patches.cpu.platform and switches on the shims.
    "VERL_PLATFORM": "cpu",
    # verl registers its own engines for cuda and npu only; nothing in the FSDP2 engine needs CUDA itself.
    "VERL_ENGINE_DEVICE": "cuda",
    # GiB. vLLM otherwise sizes its cache as a share of the whole memory (rollout.gpu_memory_utilization).
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # vLLM 0.28.0's CPU platform asks whether a model uses MLA by its architecture's name, and the text part of a
    # Qwen3-VL has none: IndexError in VllmConfig.with_hf_config. With MLA off it does not ask.
    "VLLM_MLA_DISABLE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray runs its workers at a niceness of 15. Without GPUs any other process on the same cores starves the trainer.
    "RAY_worker_niceness": "0",
    "HF_HUB_OFFLINE": "1",
    # The few cores are taken by Ray's processes, and forking after the tokenizer's threads have started warns.
    "TOKENIZERS_PARALLELISM": "false",
}


def cpu_selected(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is to run verl on the CPU; read the way verl reads the variable."""
    return environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def cpu_environment(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """A copy of ``base`` for a subprocess that runs verl on the CPU.

    What the caller has set stays, except ``VERL_PLATFORM``: asking for this environment is asking for the CPU.
    """
    path = base.get("PYTHONPATH", "").split(os.pathsep)
    path = os.pathsep.join([AUTOLOAD, *(folder for folder in path if folder and folder != AUTOLOAD)])
    return {**ENVIRONMENT, **base, "VERL_PLATFORM": "cpu", "PYTHONPATH": path}


def main() -> None:
    """Print the variables as shell exports, for ``eval "$(python -m contextrl_verl.patches.cpu.environment)"``."""
    import shlex

    chosen = cpu_environment()
    for name in [*ENVIRONMENT, "PYTHONPATH"]:
        print(f"export {name}={shlex.quote(chosen[name])}")


if __name__ == "__main__":
    main()
