"""The ``vllm.general_plugins`` entry point: vLLM calls ``register`` in each of its processes."""

import functools

from contextrl_verl.patches.cpu.environment import cpu_selected
from contextrl_verl.patches.on_import import replace


def register() -> None:
    """Keep the weights of vLLM's linear layers loadable; without ``VERL_PLATFORM=cpu`` do nothing.

    Blocker: ``dispatch_cpu_unquantized_gemm`` (vllm/model_executor/layers/utils.py) packs a linear layer's weight for
    oneDNN after loading and replaces the parameter by an empty one. verl's next weight update then fails, and where
    the parameter is kept (the output embedding) the packed copy would go on serving the old weight. Layers with a
    two-dimensional weight therefore compute with the parameter itself; all others are left to vLLM.
    May go when vLLM can reload weights on a CPU.
    """
    if cpu_selected():
        replace("vllm.model_executor.layers.utils", "dispatch_cpu_unquantized_gemm", _keep_linear_weights)


def _keep_linear_weights(pack):
    from torch.nn.functional import linear

    @functools.wraps(pack)
    def dispatch(layer, remove_weight: bool) -> None:
        if layer.weight.ndim == 2:
            layer.cpu_linear = linear
        else:
            pack(layer, remove_weight)

    return dispatch
