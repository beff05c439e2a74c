"""verl 0.9.1 and vLLM on a CPU, for development, tests and demonstrations.

``environment`` holds the variables a run needs, ``platform`` the platform class that verl lacks, ``shims`` what verl
needs changed, and ``vllm_plugin`` what vLLM needs changed. ``VERL_PLATFORM=cpu`` switches all of it on through the
entry points of this package; without that variable none of it is imported or applied.

What a run has to configure besides: ``trainer.device=cpu``, ``actor.strategy=fsdp2`` (FSDP1 wants a device index),
fp32 mixed precision, ``attn_implementation=sdpa``, ``enforce_eager=True``, ``free_cache_engine=False``,
``enable_sleep_mode=False``, and ``ray_kwargs.ray_init.num_gpus`` with one logical GPU per worker.
"""


def activate() -> None:
    """Apply verl's shims, then register the platform.

    The platform comes last on purpose: if a shim fails, verl stops with "Unknown platform 'cpu'" instead of running
    half adapted.
    """
    from contextrl_verl.patches.cpu.shims import apply_all

    apply_all()
    allow_torchvision()
    import contextrl_verl.patches.cpu.platform  # noqa: F401


def allow_torchvision() -> None:
    """PyPI's torchvision beside a CPU build of torch, here and in the processes that this one starts."""
    import os

    from contextrl_verl.patches.cpu.environment import cpu_environment
    from contextrl_verl.patches.cpu.torchvision_ops import install

    install()
    os.environ["PYTHONPATH"] = cpu_environment()["PYTHONPATH"]
