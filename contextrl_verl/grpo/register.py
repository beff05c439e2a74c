"""Registers the engine and the agent loops with verl. Named as ``actor_rollout_ref.model.external_lib``.

verl imports that module in every process that builds the model's config and lets errors through, so a
broken install stops the job; errors in entry points it swallows.
"""

from contextrl_verl.grpo import agent_loop, engine, swe_agent_loop
from contextrl_verl.patches.qwen2_vl_text_only import allow_text_only_batches

__all__ = ["agent_loop", "engine", "swe_agent_loop"]

allow_text_only_batches()
