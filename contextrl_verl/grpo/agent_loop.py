"""What the rollout side does with a pair: no generation in training, one token in validation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopOutput, register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

from contextrl_verl.grpo.batch_column import ANSWER, CARRIER, COLUMN, OTHER_ORDERS, PARTS, REPLY
from contextrl_verl.pairs.prompting import encode_prompt, images_of
from contextrl_verl.settings import parse_settings


class _PairLoop(AgentLoopBase):
    """Shared: the prompt's token ids, exactly as the length filter counted them.

    Images of pairs are processed with the processor's own defaults, here and in the length filter. So an output says
    ``mm_processor_kwargs={}``: with ``data.mm_processor_kwargs`` verl would compute other pixels than the prompt has
    image tokens for.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prompt = parse_settings(self.data_config.get("contextrl")).prompt_config
        self._longest = int(self.rollout_config.prompt_length)

    async def _encode(self, messages: list[dict[str, Any]]) -> tuple[list[int], list[Any]]:
        images = images_of(messages)
        ids = await self.loop.run_in_executor(
            None, lambda: encode_prompt(messages, self.tokenizer, self._prompt, self.processor)
        )
        if len(ids) > self._longest:
            raise ValueError(
                f"a pair's prompt has {len(ids)} tokens, over rollout.prompt_length={self._longest}, although the data "
                "set filtered long pairs. Is actor_rollout_ref.rollout.prompt_length still data.max_prompt_length?"
            )
        return ids, images

    @staticmethod
    def _output(images: list[Any], **fields: Any) -> AgentLoopOutput:
        # Every field that an ordinary row has: verl drops fields that some rows of a batch lack.
        return AgentLoopOutput(
            routed_experts=None,
            multi_modal_data={"images": images} if images else {},
            mm_processor_kwargs={},
            mm_processor_output=None,
            num_turns=2,
            **fields,
        )


@register(CARRIER)
class PairCarrierLoop(_PairLoop):
    """Turns a pair into one training row: its prompt, the supporting option as response, mask 0.

    With ``contextrl.loss.margin=averaged`` the row is the pair in all rotations of its contexts, one after another,
    each a prompt and its label; the last label is the response. The engine takes them apart again.
    """

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput:
        options = row[COLUMN].flatten().tolist()
        count, supporting, labels = options[0], options[1], options[2:]
        ids, shown, parts = [], [], []
        asked = [row["raw_prompt"], *row["extra_info"].get(OTHER_ORDERS, ())]
        for turn, messages in enumerate(asked):
            if ids:
                # A rotation later, the supporting context stands one place earlier; the column tells the last place.
                ids.append(labels[(supporting + len(asked) - turn) % count])
            more, images = await self._encode(list(messages))
            ids += more
            shown += images
            parts.append(len(more) + 1)
        step = int(row["global_steps"])
        return self._output(
            shown,
            prompt_ids=ids,
            response_ids=[labels[supporting]],
            response_mask=[0],
            response_logprobs=[0.0] if sampling_params.get("logprobs") else None,
            metrics={"num_preempted": -1},
            reward_score=0.0,
            extra_fields={
                # In synchronous training the servers hold the weights of the step before.
                "min_global_steps": step - 1,
                "max_global_steps": step - 1,
                "turn_scores": [],
                "tool_rewards": [],
                "reward_extra_info": {"acc": 0.0},
                **({PARTS: parts} if len(parts) > 1 else {}),
            },
        )


def one_of(ids: list[int], server: str) -> dict[str, Any]:
    """Sampling parameters under which a server chooses among some tokens, by their own logits.

    SGLang has no list of allowed tokens; a bias that no logit reaches, the same for all of them, does the same. It is
    small enough that a difference of 1e-4 between two logits survives it in fp32.
    """
    if server == "sglang":
        return {"logit_bias": {str(token): 1000.0 for token in ids}}
    return {"allowed_token_ids": ids}


@register(ANSWER)
class PairAnswerLoop(_PairLoop):
    """Asks the model a held-out pair through the rollout server: one token, chosen among the pair's labels.

    The selection reward scores it. Selection accuracy is thus that of the options' logits, as in training; how much
    probability the labels have at all is ``actor/contextrl/option_mass``.
    """

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput:
        ids, images = await self._encode(list(row["raw_prompt"]))
        options = row[COLUMN].flatten().tolist()
        output = await self.server_manager.generate(
            request_id=uuid4().hex,
            prompt_ids=ids,
            sampling_params={
                **sampling_params,
                "max_tokens": 1,
                **one_of(options[2 : 2 + options[0]], self.rollout_config.name),
            },
            image_data=images or None,
        )
        preempted = output.num_preempted if output.num_preempted is not None else -1
        return self._output(
            images,
            prompt_ids=ids,
            response_ids=output.token_ids[:1],
            response_mask=[1] * len(output.token_ids[:1]),
            response_logprobs=output.log_probs[:1] if output.log_probs else None,
            metrics={"num_preempted": preempted},
            extra_fields={**output.extra_fields, "turn_scores": [], "tool_rewards": []},
        )


@register(REPLY)
class PairReplyLoop(_PairLoop, SingleTurnAgentLoop):
    """verl's single turn for a pair that the model answers in words, where verl would read its text with other tokens.

    That is so with ``contextrl.prompt.special_tokens_in_text=split``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prompt = replace(self._prompt, prefill="")

    async def ct_build_initial_tokens(self, messages: list[dict[str, Any]], *args: Any, **media: Any) -> list[int]:
        return (await self._encode(messages))[0]

    def _get_mm_processor_kwargs(self, audio_data: Any = None) -> dict[str, Any]:
        return {}
