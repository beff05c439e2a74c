"""Run on some ranks: our engine trains a tiny model with tokenizer and saves two checkpoints as verl's worker does.

Arguments: folder of the model, folder for the checkpoints. Rank 0 writes the full weights of each step to
``weights_N.safetensors`` next to the checkpoints.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import verl  # noqa: F401  (activates the CPU platform)
from safetensors.torch import save_file
from verl.trainer.config import CheckpointConfig
from verl.workers.config import FSDPActorConfig, FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
from verl.workers.engine import EngineRegistry
from verl.workers.utils.losses import ppo_loss

sys.path.insert(0, str(Path(__file__).parent.parent / "engine"))
from joint_gradient import CLIP, as_batch, full, make_rows

import contextrl_verl.register  # noqa: F401
from contextrl_verl.engine import MODEL_TYPE
from contextrl_verl.engine_config import ContextRLFSDPEngineConfig


def main(model: str, out: str) -> None:
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    engine = EngineRegistry.new(
        model_type=MODEL_TYPE,
        backend="fsdp2",
        model_config=HFModelConfig(
            path=model,
            override_config={"attn_implementation": "sdpa"},
            use_remove_padding=False,
            enable_gradient_checkpointing=False,
            model_type=MODEL_TYPE,
        ),
        engine_config=ContextRLFSDPEngineConfig(
            strategy="fsdp2",
            use_torch_compile=False,
            use_remove_padding=False,
            mixed_precision={"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
            contextrl={"objective": "context_awareness", "loss": {"clip": CLIP}, "prompt": {"labels": ["A", "B", "C"]}},
        ),
        optimizer_config=FSDPOptimizerConfig(lr=1e-2, total_training_steps=10),
        checkpoint_config=CheckpointConfig(),
    )
    engine.initialize()
    actor = FSDPActorConfig(
        strategy="fsdp2", rollout_n=1, ppo_micro_batch_size_per_gpu=2, fsdp_config=FSDPEngineConfig()
    )
    rows = make_rows(seed=1)
    for row in rows:
        row["old"] = torch.full((len(row["ids"]) - row["prompt"],), -4.0)
    mine = rows[rank * len(rows) // ranks : (rank + 1) * len(rows) // ranks]
    for step in (2, 4):
        with engine.train_mode():
            engine.train_batch(
                as_batch(mine, 1.0, False, False, 2, len(rows)), loss_function=partial(ppo_loss, config=actor)
            )
        engine.save_checkpoint(local_path=f"{out}/global_step_{step}/actor", global_step=step)
        weights = {name: full(tensor).clone().contiguous() for name, tensor in engine.module.state_dict().items()}
        if rank == 0:
            save_file(weights, Path(out).parent / f"weights_{step}.safetensors")
            (Path(out) / "latest_checkpointed_iteration.txt").write_text(str(step))
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
