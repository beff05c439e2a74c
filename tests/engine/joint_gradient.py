"""Run under torchrun-like environment variables: compares the engine's gradients with plain autograd.

Prints one JSON line a case on rank 0: {"case", "error", "cosine"}; error is the largest absolute difference over all
parameters, relative to the largest gradient, and cosine that of the two gradients, both at their worst mini-batch.
Arguments: folder of the model, then strategy and precision of the engine (default fsdp2 fp32).
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from functools import partial

import flash_attention
import torch
import torch.distributed as dist
import verl  # noqa: F401  (activates the CPU platform)
from tensordict import TensorDict
from torch.distributed.tensor import DTensor
from transformers import Qwen2Config, Qwen2ForCausalLM
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPActorConfig, FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
from verl.workers.engine import EngineRegistry
from verl.workers.utils.losses import ppo_loss

import contextrl_verl.register  # noqa: F401
from contextrl_verl.carrier import ordinary_row, pair_row
from contextrl_verl.engine import MODEL_TYPE
from contextrl_verl.engine_config import ContextRLFSDPEngineConfig

COEF, CLIP, VOCABULARY = 0.3, 4.0, 97
DEVICE = os.environ.get("CONTEXTRL_TEST_DEVICE", "cpu")
# sdpa, or flash_attention_2: on a CPU its stand-in.
ATTENTION = os.environ.get("CONTEXTRL_TEST_ATTENTION", "sdpa")
if ATTENTION == flash_attention.NAME and DEVICE == "cpu":
    flash_attention.install()


def make_rows(seed: int, ordinary: int = 8, pairs: int = 8) -> list[dict]:
    """Ordinary rows and pairs (two and three options) in an order that mixes them over ranks and mini-batches."""
    g = torch.Generator().manual_seed(seed)

    def draw(count):
        return torch.randint(1, VOCABULARY, (count,), generator=g)

    rows = []
    for number in range(ordinary):
        prompt, response = 4 + number % 4, 3 + number % 5
        rows.append(
            {
                "ids": draw(prompt + response),
                "prompt": prompt,
                "advantage": float(torch.randn((), generator=g)),
                "column": ordinary_row(3),
                "pair": None,
            }
        )
    for number in range(pairs):
        ids = torch.randperm(VOCABULARY - 1, generator=g)[:3] + 1
        options = 2 + number % 2
        supporting = number % options
        prompt = 5 + number % 4
        rows.append(
            {
                "ids": torch.cat([draw(prompt), ids[supporting : supporting + 1]]),
                "prompt": prompt,
                "advantage": 0.0,
                "column": pair_row(ids.tolist(), options, supporting),
                "pair": (ids[:options], supporting),
            }
        )
    order = torch.randperm(len(rows), generator=g).tolist()
    return [rows[i] for i in order]


def reference_loss(model, rows, mode, temperature, coef):
    """L_GRPO + coef * mean(L_CA), written down from the definitions; at ratio 1 the clip is inactive."""
    per_row, lengths, losses = [], [], []
    for row in rows:
        logits = model(row["ids"][None].to(DEVICE), **row.get("model_inputs", {})).logits[0].float()
        if row["pair"] is None:
            logp = torch.log_softmax(logits / temperature, -1)[:-1].gather(-1, row["ids"][1:, None].to(DEVICE))[:, 0]
            logp = logp[row["prompt"] - 1 :]
            per_row.append(-row["advantage"] * torch.exp(logp - logp.detach()))
            lengths.append(len(logp))
            row["old"] = logp.detach()
        else:
            ids, supporting = row["pair"]
            z = logits[row["prompt"] - 1][ids]
            others = torch.cat([z[:supporting], z[supporting + 1 :]])
            margins = (z[supporting] - others).clamp(-CLIP, CLIP)
            losses.append(torch.log1p(torch.exp(-margins).sum()))
            row["old"] = torch.zeros(1)
    if not per_row:
        grpo = 0.0
    elif mode == "token-mean":
        grpo = sum(r.sum() for r in per_row) / sum(lengths)
    elif mode == "seq-mean-token-sum":
        grpo = sum(r.sum() for r in per_row) / len(per_row)
    else:
        grpo = sum(r.mean() for r in per_row) / len(per_row)
    return grpo + coef * (sum(losses) / len(losses) if losses else 0.0)


def as_batch(rows, temperature, packed, dynamic, micro, total) -> TensorDict:
    def jagged(tensors):
        return torch.nested.as_nested_tensor([t.to(DEVICE) for t in tensors], layout=torch.jagged)

    positions = [row.get("positions", torch.arange(len(row["ids"]))).to(DEVICE) for row in rows]
    responses = [row["ids"][row["prompt"] :] for row in rows]
    masks = [torch.full((len(r),), int(row["pair"] is None)) for r, row in zip(responses, rows, strict=True)]
    data = TensorDict(
        {
            "input_ids": jagged([row["ids"] for row in rows]),
            # The dimension is named as verl names it: rows of equal length do not tell it, where positions are (4, L).
            "position_ids": tu.nested_tensor_from_tensor_list(positions, ragged_idx=positions[0].dim()),
            "prompts": jagged([row["ids"][: row["prompt"]] for row in rows]),
            "responses": jagged(responses),
            "response_mask": jagged(masks),
            "loss_mask": jagged(masks),
            "old_log_probs": jagged([row["old"].cpu() for row in rows]),
            "advantages": jagged(
                [torch.full((len(r),), row["advantage"]) for r, row in zip(responses, rows, strict=True)]
            ),
            "contextrl": jagged([row["column"] for row in rows]),
        },
        batch_size=len(rows),
    )
    if "images" in rows[0]:
        tu.assign_non_tensor_stack(data, "multi_modal_inputs", [row["images"] for row in rows])
    tu.assign_non_tensor(
        data,
        use_dynamic_bsz=dynamic,
        max_token_len_per_gpu=max(32, *(2 * len(row["ids"]) for row in rows)),
        micro_batch_size_per_gpu=micro,
        use_remove_padding=packed,
        use_fused_kernels=False,
        temperature=temperature,
        global_batch_size=total,
        calculate_entropy=False,
    )
    return data


def make_engine(folder, strategy, packed, dynamic, coef, ours=True, per_batch=0, precision="fp32"):
    block = {
        "objective": "context_awareness",
        "loss": {"coef": coef, "clip": CLIP},
        "pairs": {"per_batch": per_batch},
        "prompt": {"labels": ["A", "B", "C"]},
    }
    common = {
        "strategy": strategy,
        "use_dynamic_bsz": dynamic,
        "max_token_len_per_gpu": 32,
        "micro_batch_size_per_gpu": 2,
        "use_torch_compile": False,
        "use_remove_padding": packed,
        "mixed_precision": {"param_dtype": precision, "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        # Gradients by the model's own names under FSDP1 too.
        "use_orig_params": True,
    }
    model_type = MODEL_TYPE if ours else "language_model"
    config = ContextRLFSDPEngineConfig(**common, contextrl=block) if ours else FSDPEngineConfig(**common)
    model = HFModelConfig(
        path=folder,
        load_tokenizer=False,
        override_config={"attn_implementation": ATTENTION},
        use_remove_padding=packed,
        enable_gradient_checkpointing=False,
        model_type=model_type,
    )
    engine = EngineRegistry.new(
        model_type=model_type,
        backend=strategy,
        model_config=model,
        engine_config=config,
        optimizer_config=FSDPOptimizerConfig(lr=1e-3, total_training_steps=10),
        checkpoint_config=CheckpointConfig(),
    )
    engine.initialize()
    return engine


def plain_name(name: str) -> str:
    return name.replace("_fsdp_wrapped_module.", "")


def full(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def run_case(folder, mode, temperature, packed, minis, strategy="fsdp2", precision="fp32", apart=False):
    engine = make_engine(folder, strategy, packed, minis == 1, COEF, precision=precision)
    reference = Qwen2ForCausalLM.from_pretrained(folder, attn_implementation="sdpa", dtype=torch.float32).to(DEVICE)
    rows = make_rows(seed=1)
    if apart:  # mini-batches of pairs alone and of ordinary rows alone
        rows.sort(key=lambda row: row["pair"] is None)
    return compare(engine, reference, rows, mode, temperature, packed, minis, strategy)


def compare(engine, reference, rows, mode, temperature, packed, minis, strategy="fsdp2"):
    """Largest relative error, smallest cosine and metrics over the mini-batches, with an optimiser step after each."""
    rank, ranks, dynamic = dist.get_rank(), dist.get_world_size(), minis == 1
    per_mini = len(rows) // minis
    actor = FSDPActorConfig(
        loss_agg_mode=mode,
        strategy=strategy,
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=2,
        fsdp_config=FSDPEngineConfig(),
    )
    worst, cosine = 0.0, 1.0
    metrics = []
    for number in range(minis):
        part = rows[number * per_mini : (number + 1) * per_mini]
        reference.zero_grad()
        reference_loss(reference, part, mode, temperature, COEF).backward()
        mine = part[rank * per_mini // ranks : (rank + 1) * per_mini // ranks]
        data = as_batch(mine, temperature, packed, dynamic, 2, per_mini)
        with engine.train_mode(zero_grad_on_exit=False):
            engine.optimizer_zero_grad()
            output = engine.forward_backward_batch(data, partial(ppo_loss, config=actor))
            metrics.append(output["metrics"])
            mine = {plain_name(name): full(p.grad).float() for name, p in engine.module.named_parameters()}
            expected = torch.cat([parameter.grad.flatten() for parameter in reference.parameters()])
            gradient = torch.cat([mine[name].flatten() for name, _ in reference.named_parameters()])
            worst = max(worst, ((gradient - expected).abs().max() / expected.abs().max()).item())
            cosine = min(cosine, torch.cosine_similarity(gradient, expected, dim=0).item())
            engine.optimizer_step()
            weights = {plain_name(name): full(p).detach().clone() for name, p in engine.module.named_parameters()}
        reference.load_state_dict(weights, strict=False)
    return worst, cosine, metrics


def write_model(folder: str) -> None:
    """A Qwen2 of a few thousand random weights, written by rank 0."""
    if dist.get_rank() == 0 and not os.path.exists(folder):
        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            initializer_range=0.3,
        )
        Qwen2ForCausalLM(config).save_pretrained(folder)
    dist.barrier()


def main(folder: str, strategy: str = "fsdp2", precision: str = "fp32") -> None:
    dist.init_process_group("gloo" if DEVICE == "cpu" else "nccl")
    write_model(folder)
    modes = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean")
    cases = [*itertools.product(modes, (1.0, 0.7), (False, True), (1, 4), (False,))]
    cases += [(mode, 1.0, packed, 4, True) for mode, packed in itertools.product(modes, (False, True))]
    for mode, temperature, packed, minis, apart in cases:
        error, cosine, metrics = run_case(folder, mode, temperature, packed, minis, strategy, precision, apart)
        if dist.get_rank() == 0:
            case = f"{mode} T={temperature} {'packed' if packed else 'padded'} minis={minis}{' apart' * apart}"
            pairs = [m["contextrl/pairs"].values for m in metrics]
            print(json.dumps({"case": case, "error": error, "cosine": cosine, "pairs": pairs}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
