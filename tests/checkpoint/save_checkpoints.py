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
from safetensors.torch import save_file
from verl.workers.utils.losses import ppo_loss

sys.path.insert(0, str(Path(__file__).parent.parent / "engine"))
from tiny_engine import Setup, actor_config, as_batch, full, make_engine, make_rows, share, start


def main(model: str, out: str) -> None:
    start()
    setup = Setup(packed=False, model={"load_tokenizer": True})
    engine = make_engine(model, setup)
    rows = make_rows(seed=1)
    for row in rows:
        row["old"] = torch.full((len(row["ids"]) - row["prompt"],), -4.0)
    for step in (2, 4):
        with engine.train_mode():
            engine.train_batch(
                as_batch(share(engine, rows), setup, 1.0, len(rows)),
                loss_function=partial(ppo_loss, config=actor_config("token-mean")),
            )
        engine.save_checkpoint(local_path=f"{out}/global_step_{step}/actor", global_step=step)
        weights = {name: full(tensor).clone().contiguous() for name, tensor in engine.module.state_dict().items()}
        if dist.get_rank() == 0:
            save_file(weights, Path(out).parent / f"weights_{step}.safetensors")
            (Path(out) / "latest_checkpointed_iteration.txt").write_text(str(step))
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
