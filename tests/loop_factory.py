"""Agent loops built the way verl's worker builds them, and rows handed to them the way it hands them over."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import hydra
import torch
from omegaconf import DictConfig
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopOutput,
    DictConfigWrap,
    ToolListWrap,
    _agent_loop_registry,
)
from verl.utils.dataset.rl_dataset import get_dataset_class
from verl.workers.rollout.replica import TokenOutput

import contextrl_verl.grpo.register  # noqa: F401


class OneAnswer:
    """A rollout server that always replies the same and keeps what it was asked."""

    def __init__(self, token_ids: list[int]) -> None:
        self.token_ids = token_ids
        self.asked: list[dict[str, Any]] = []

    async def generate(self, **request: Any) -> TokenOutput:
        self.asked.append(request)
        steps = {"global_steps": 4, "min_global_steps": 4, "max_global_steps": 4}
        return TokenOutput(token_ids=self.token_ids, log_probs=[-0.5] * len(self.token_ids), extra_fields=steps)


def _model_type(processor: Any) -> str:
    if processor is None:
        return "qwen2"
    return "qwen3_vl" if "Qwen3" in type(processor).__name__ else "qwen2_5_vl"


def run_loop(
    config: DictConfig,
    row: dict[str, Any],
    tokenizer: Any,
    processor: Any = None,
    server: Any = None,
    model_type: str | None = None,
    **sampling: Any,
) -> AgentLoopOutput:
    """The output of the loop that the row names, given the row as ``AgentLoopWorkerTQ`` gives it."""

    async def run() -> AgentLoopOutput:
        loop = hydra.utils.instantiate(
            config=_agent_loop_registry[row["agent_name"]],
            trainer_config=DictConfigWrap(config=config),
            server_manager=server,
            tokenizer=tokenizer,
            processor=processor,
            hf_model_type=model_type or _model_type(processor),
            dataset_cls=get_dataset_class(config.data),
            data_config=DictConfigWrap(config.data),
            tools=ToolListWrap([]),
        )
        columns = {name: value for name, value in row.items() if name not in ("agent_name", "__rollout_n__")}
        return await loop.run({"logprobs": True, **sampling}, **columns, uid="u", session_id=0, global_steps=5)

    return asyncio.run(run())


def model_inputs(output: AgentLoopOutput, tokenizer: Any, processor: Any) -> dict[str, torch.Tensor]:
    """What verl's worker makes of the images of an output for the training side."""
    return training_inputs(output, tokenizer, processor)[0]


def training_inputs(output: Any, tokenizer: Any, processor: Any) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The images' tensors, and position ids ((4, tokens) with a processor that has ``get_rope_index``)."""
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker

    worker = SimpleNamespace(tokenizer=tokenizer, processor=processor, mm_processor_kwargs={})
    ids = torch.tensor([output.prompt_ids + output.response_ids])
    images = AgentLoopWorker._compute_multi_modal_inputs(worker, output, ids)
    positions = AgentLoopWorker._compute_position_ids(worker, ids, torch.ones_like(ids), images)
    return images, positions[0]
