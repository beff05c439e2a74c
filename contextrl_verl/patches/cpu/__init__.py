"""verl 0.9.1 and vLLM on a CPU, for development, tests and demonstrations.

``VERL_PLATFORM=cpu`` switches all of it on through the entry points of this package; without that variable none of it
is imported or applied. What a run has to configure besides is in config/platform/cpu.yaml.
"""


def activate() -> None:
    """Apply verl's shims, then register the platform.

    The platform comes last on purpose: if a shim fails, verl stops with "Unknown platform 'cpu'" instead of running
    half adapted.
    """
    from contextrl_verl.patches.cpu.shims import apply_all
    from contextrl_verl.patches.cpu.torchvision_ops import allow_torchvision

    apply_all()
    allow_torchvision()
    import contextrl_verl.patches.cpu.platform  # noqa: F401
