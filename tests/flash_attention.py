"""A stand-in for the package flash-attn on a CPU: transformers' and verl's own code around it runs as on a GPU.

Only the two innermost functions are replaced, by SDPA on each sequence that they are told of. So the sequences of a
packed row are found as on a GPU, by ``position_ids == 0``, padding is taken out and put back, and vision towers get
their ``cu_seqlens``. What no sequence covers is NaN here; flash-attn leaves uninitialised memory there.
Unlike flash-attn, fp32 is accepted: gradients are compared to 1e-5. ``install()`` once, before a model is made.
"""

from __future__ import annotations

import itertools

import torch
from torch.nn.functional import scaled_dot_product_attention

NAME = "flash_attention_2"


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1)):
    """(rows, tokens, heads, size), every row one sequence."""
    assert dropout_p == 0.0, "no dropout in this stand-in"
    assert window_size == (-1, -1), "no windows in this stand-in"
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    attended = scaled_dot_product_attention(q, k, v, is_causal=causal, scale=softmax_scale, enable_gqa=True)
    return attended.transpose(1, 2).contiguous()


def flash_attn_varlen_func(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
):
    """(tokens, heads, size); sequence i is [cu_seqlens[i], cu_seqlens[i + 1])."""
    starts, key_starts = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert starts == key_starts, "queries and keys are the same tokens"
    assert max(b - a for a, b in itertools.pairwise(starts)) <= int(max_seqlen_q) == int(max_seqlen_k)
    out = torch.full_like(q, torch.nan)
    for begin, end in itertools.pairwise(starts):
        row = (x[None, begin:end] for x in (q, k, v))
        out[begin:end] = flash_attn_func(*row, dropout_p, softmax_scale, causal, window_size)[0]
    return out


def install() -> None:
    """Let ``attn_implementation="flash_attention_2"`` mean these functions, in transformers and in verl's patches."""
    import verl.models.transformers.qwen2_vl as verl_qwen2_vl
    from transformers import modeling_flash_attention_utils as utils
    from transformers.modeling_utils import PreTrainedModel

    functions = (flash_attn_func, flash_attn_varlen_func, None, utils._pad_input, utils._unpad_input)
    utils._lazy_imports = lambda *args, **kwargs: functions
    utils.FLASH_ATTENTION_COMPATIBILITY_MATRIX[2]["general_availability_check"] = lambda: True
    PreTrainedModel._flash_attn_can_dispatch = lambda self, flash_attn_version, is_init_check=False: True
    # As its module sets them where the package is installed.
    verl_qwen2_vl.flash_attn_func = flash_attn_func
    verl_qwen2_vl.flash_attn_varlen_func = flash_attn_varlen_func
    verl_qwen2_vl._flash_supports_window_size = True
    verl_qwen2_vl._flash_supports_deterministic = False
    verl_qwen2_vl._flash_use_top_left_mask = False
    # Casts fp32 to bf16 for flash-attn's sake.
    verl_qwen2_vl.fa_peft_integration_check = lambda q, k, v, target_dtype: (q, k, v)
