"""Shared by the scripts here: a tiny Qwen2, an engine of any kind on it, batches, and the comparison with autograd.

The scripts run under torchrun-like environment variables (tests/ranks.py). CONTEXTRL_TEST_DEVICE is cpu or cuda,
CONTEXTRL_TEST_ATTENTION sdpa or flash_attention_2, on a CPU by its stand-in, CONTEXTRL_TEST_PRECISION fp32 or bf16.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import flash_attention
import torch
import torch.distributed as dist
import verl  # noqa: F401  (activates the CPU platform)
from peft import LoraConfig, TaskType, get_peft_model
from tensordict import TensorDict
from tiny_qwen2 import VOCABULARY, tiny_qwen2
from torch.distributed.tensor import DTensor
from transformers import Qwen2ForCausalLM
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPActorConfig, FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
from verl.workers.engine import EngineRegistry
from verl.workers.utils.losses import ppo_loss

import contextrl_verl.grpo.register  # noqa: F401
from contextrl_verl.grpo.batch_column import ordinary_row, pair_row
from contextrl_verl.grpo.config import ContextRLFSDPEngineConfig
from contextrl_verl.grpo.engine import MODEL_TYPE

COEF, CLIP = 0.3, 4.0
DEVICE = os.environ.get("CONTEXTRL_TEST_DEVICE", "cpu")
ATTENTION = os.environ.get("CONTEXTRL_TEST_ATTENTION", "sdpa")
PRECISION = os.environ.get("CONTEXTRL_TEST_PRECISION", "fp32")
if ATTENTION == flash_attention.NAME and DEVICE == "cpu":
    flash_attention.install()
# verl replaces the forward pass of the class; the reference runs with this one.
_FORWARD = Qwen2ForCausalLM.forward


@dataclass(frozen=True)
class Setup:
    """An engine and how batches are shown to it.

    Attributes:
        packed: rows without padding (``use_remove_padding``).
        dynamic: micro-batches by tokens, else two rows each.
        fused: backend of verl's fused kernels.
        ranks: that share a sequence (Ulysses).
        ours: ContextRLEngine, else verl's own.
        lora: target modules of adapters.
        engine, model, batch: further fields of verl's FSDPEngineConfig and HFModelConfig, and values beside a batch.
    """

    packed: bool = True
    dynamic: bool = False
    fused: str | None = None
    ranks: int = 1
    strategy: str = "fsdp2"
    precision: str = PRECISION
    coef: float = COEF
    ours: bool = True
    per_batch: int = 0
    margin: str = "each"
    mass: float = 0.0
    lora: tuple[str, ...] = ()
    engine: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    batch: dict[str, Any] = field(default_factory=dict)


def start() -> None:
    if DEVICE == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("gloo" if DEVICE == "cpu" else "nccl")


def say(**values: Any) -> None:
    """One JSON line, from rank 0."""
    if dist.get_rank() == 0:
        print(json.dumps(values), flush=True)


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


def in_all_rotations(rows: list[dict], options: int, seed: int = 7) -> list[dict]:
    """The rows with pairs of ``options`` contexts, each in all rotations of a drawn order; others as they are."""
    g = torch.Generator().manual_seed(seed)
    changed = []
    for row in rows:
        if row["pair"] is None:
            changed.append(row)
            continue
        ids = torch.randperm(VOCABULARY - 1, generator=g)[:3] + 1
        order = torch.randperm(options, generator=g).tolist()
        shown = []
        for turn in range(options):
            turned = order[turn:] + order[:turn]  # context 0 supports
            prompt = torch.randint(1, VOCABULARY, (5 + turn,), generator=g)
            label = ids[turned.index(0)]
            shown.append({"ids": torch.cat([prompt, label[None]]), "order": turned})
        parts = [len(one["ids"]) for one in shown]
        changed.append(
            {
                **row,
                "ids": torch.cat([one["ids"] for one in shown]),
                "prompt": sum(parts) - 1,
                "column": pair_row(ids.tolist(), options, shown[-1]["order"].index(0)),
                "pair": (ids[:options], None),
                "parts": parts,
                "shown": shown,
            }
        )
    return changed


def pair_loss(logits, row):
    """L_CA of a row that is a pair, written down from its definition."""
    ids, supporting = row["pair"]
    z = logits[row["prompt"] - 1][ids]
    others = torch.cat([z[:supporting], z[supporting + 1 :]])
    margins = (z[supporting] - others).clamp(-CLIP, CLIP)
    return torch.log1p(torch.exp(-margins).sum())


def averaged_pair_loss(model, row):
    """The same of a pair in all rotations: every confounder's margin averaged over them, then one loss."""
    ids, _ = row["pair"]
    sums = {confounder: 0.0 for confounder in range(1, len(ids))}
    for one in row["shown"]:
        z = model(one["ids"][None].to(DEVICE), **one.get("model_inputs", {})).logits[0, -2].float()[ids]
        for confounder in sums:
            sums[confounder] = sums[confounder] + z[one["order"].index(0)] - z[one["order"].index(confounder)]
    margins = torch.stack([total / len(row["shown"]) for total in sums.values()]).clamp(-CLIP, CLIP)
    return torch.log1p(torch.exp(-margins).sum())


def pair_mass_loss(logits, row):
    """-log of the probability of a pair's labels together."""
    return -torch.log(torch.softmax(logits[row["prompt"] - 1], -1)[row["pair"][0]].sum())


def reference_loss(model, rows, mode, temperature, coef, mass=0.0):
    """L_GRPO + coef * mean(L_CA + mass * L_mass), from the definitions; at ratio 1 the clip is inactive."""
    per_row, lengths, losses = [], [], []
    for row in rows:
        if "shown" in row:
            losses.append(averaged_pair_loss(model, row))
            row["old"] = torch.zeros(1)
            continue
        logits = model(row["ids"][None].to(DEVICE), **row.get("model_inputs", {})).logits[0].float()
        if row["pair"] is None:
            logp = torch.log_softmax(logits / temperature, -1)[:-1].gather(-1, row["ids"][1:, None].to(DEVICE))[:, 0]
            logp = logp[row["prompt"] - 1 :]
            per_row.append(-row["advantage"] * torch.exp(logp - logp.detach()))
            lengths.append(len(logp))
            row["old"] = logp.detach()
        else:
            losses.append(pair_loss(logits, row) + (mass * pair_mass_loss(logits, row) if mass else 0.0))
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


def as_batch(rows, setup: Setup, temperature: float, total: int) -> TensorDict:
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
    if any("parts" in row for row in rows):
        extra = [{"contextrl_parts": row["parts"]} if "parts" in row else {} for row in rows]
        tu.assign_non_tensor_stack(data, "extra_fields", extra)
    if "images" in rows[0]:
        tu.assign_non_tensor_stack(data, "multi_modal_inputs", [row["images"] for row in rows])
    tu.assign_non_tensor(
        data,
        use_dynamic_bsz=setup.dynamic,
        max_token_len_per_gpu=max(32, *(2 * len(row["ids"]) for row in rows)),
        micro_batch_size_per_gpu=min(2, len(rows)),
        use_remove_padding=setup.packed,
        use_fused_kernels=setup.fused is not None,
        temperature=temperature,
        global_batch_size=total,
        calculate_entropy=False,
    )
    tu.assign_non_tensor(data, **setup.batch)
    return data


def make_engine(folder: str, setup: Setup):
    block = {
        "objective": "context_awareness",
        "loss": {"coef": setup.coef, "clip": CLIP, "margin": setup.margin, "mass_coef": setup.mass},
        "pairs": {"per_batch": setup.per_batch, "orders": "both" if setup.margin == "averaged" else "random"},
        "prompt": {"labels": ["A", "B", "C"]},
    }
    common = {
        "strategy": setup.strategy,
        "use_dynamic_bsz": setup.dynamic,
        "max_token_len_per_gpu": 32,
        "micro_batch_size_per_gpu": 2,
        "use_torch_compile": False,
        "use_remove_padding": setup.packed,
        "use_fused_kernels": setup.fused is not None,
        "ulysses_sequence_parallel_size": setup.ranks,
        "mixed_precision": {"param_dtype": setup.precision, "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        # Gradients by the model's own names under FSDP1 too.
        "use_orig_params": True,
        **setup.engine,
    }
    model_type = MODEL_TYPE if setup.ours else "language_model"
    config = ContextRLFSDPEngineConfig(**common, contextrl=block) if setup.ours else FSDPEngineConfig(**common)
    adapters = {"lora_rank": 4, "lora_alpha": 8, "target_modules": list(setup.lora)} if setup.lora else {}
    model = HFModelConfig(
        path=folder,
        override_config={"attn_implementation": ATTENTION},
        use_remove_padding=setup.packed,
        use_fused_kernels=setup.fused is not None,
        fused_kernel_options={"impl_backend": setup.fused} if setup.fused else {},
        model_type=model_type,
        **{"load_tokenizer": False, "enable_gradient_checkpointing": False, **adapters, **setup.model},
    )
    engine = EngineRegistry.new(
        model_type=model_type,
        backend=setup.strategy,
        model_config=model,
        engine_config=config,
        optimizer_config=FSDPOptimizerConfig(lr=1e-3, total_training_steps=10),
        checkpoint_config=CheckpointConfig(),
    )
    engine.initialize()
    return engine


def text_reference(folder: str, lora: tuple[str, ...] = ()):
    """transformers' own model with its own forward pass, and peft's adapters on it."""
    model = Qwen2ForCausalLM.from_pretrained(folder, attn_implementation="sdpa", dtype=torch.float32).to(DEVICE)
    model.forward = _FORWARD.__get__(model)
    if lora:
        model = get_peft_model(
            model, LoraConfig(task_type=TaskType.CAUSAL_LM, r=4, lora_alpha=8, target_modules=list(lora))
        )
    return model


def put_back_forward() -> None:
    """Undo what verl's fused kernels did to the class; the next engine patches it anew."""
    Qwen2ForCausalLM.forward = _FORWARD


def plain_name(name: str) -> str:
    return name.replace("_fsdp_wrapped_module.", "")


def full(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share(engine, rows: list[dict]) -> list[dict]:
    """The rows of this rank's data-parallel group."""
    rank, ranks = engine.get_data_parallel_rank(), engine.get_data_parallel_size()
    return rows[rank * len(rows) // ranks : (rank + 1) * len(rows) // ranks]


def actor_config(mode: str, strategy: str = "fsdp2", **options) -> FSDPActorConfig:
    return FSDPActorConfig(
        loss_agg_mode=mode,
        strategy=strategy,
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=2,
        fsdp_config=FSDPEngineConfig(),
        **options,
    )


def gradients(engine, rows, setup: Setup, actor: FSDPActorConfig, temperature: float = 1.0):
    """Whole gradients by plain name of one mini-batch, which all ranks share; and its metrics. They stay in place."""
    data = as_batch(share(engine, rows), setup, temperature, len(rows))
    engine.optimizer_zero_grad()
    output = engine.forward_backward_batch(data, partial(ppo_loss, config=actor))
    found = {
        plain_name(name): full(p.grad).float() for name, p in engine.module.named_parameters() if p.grad is not None
    }
    return found, output["metrics"]


def difference(found: dict, expected: dict) -> tuple[float, float]:
    """Largest absolute difference relative to the largest gradient, and the cosine of the two."""
    assert set(found) == set(expected), set(found) ^ set(expected)
    one, two = (torch.cat([grads[name].flatten() for name in expected]) for grads in (found, expected))
    return ((one - two).abs().max() / two.abs().max()).item(), torch.cosine_similarity(one, two, dim=0).item()


def compare(engine, reference, rows, setup: Setup, mode: str, temperature: float, minis: int):
    """Largest relative error, smallest cosine and metrics over the mini-batches, with an optimiser step after each."""
    per_mini = len(rows) // minis
    actor = actor_config(mode, setup.strategy)
    worst, cosine = 0.0, 1.0
    metrics = []
    for number in range(minis):
        part = rows[number * per_mini : (number + 1) * per_mini]
        reference.zero_grad()
        reference_loss(reference, part, mode, temperature, COEF, setup.mass).backward()
        expected = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
        with engine.train_mode(zero_grad_on_exit=False):
            found, said = gradients(engine, part, setup, actor, temperature)
            error, direction = difference(found, expected)
            worst, cosine = max(worst, error), min(cosine, direction)
            metrics.append(said)
            engine.optimizer_step()
            weights = {plain_name(name): full(p).detach().clone() for name, p in engine.module.named_parameters()}
        reference.load_state_dict(weights, strict=False)
    return worst, cosine, metrics


def write_model(folder: str, tied: bool = True, **fields) -> str:
    """A Qwen2 of a few thousand random weights, written by rank 0; its folder."""
    if not tied:
        folder += "-untied"
    if dist.get_rank() == 0 and not os.path.exists(folder):
        torch.manual_seed(0)
        config = tiny_qwen2(tied, **fields)
        Qwen2ForCausalLM(config).save_pretrained(folder)
    dist.barrier()
    return folder
