"""verl's side of a coding agent's episode: its server as the policy, its token builder, and rows as verl wants them."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import transfer_queue as tq
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopOutput, register
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from contextrl_verl.agents.ending import Ending, Episode
from contextrl_verl.agents.episode import run_episode
from contextrl_verl.agents.settings import AgentSettings
from contextrl_verl.agents.task import AGENT_NAME, SweTask, read_task
from contextrl_verl.errors import told_by
from contextrl_verl.grpo.episode_notes import NOTES, note_of
from contextrl_verl.pairs.special_tokens import PlainReader, plain_reader
from contextrl_verl.sandbox import InfrastructureError, open_sandbox
from contextrl_verl.settings import listed, parse_settings

logger = logging.getLogger(__name__)
_CHAT = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]


class _PlainChat:
    """A tokenizer for verl's builder, whose special tokens are those of the chat template alone.

    What an agent prints may spell ``<|im_end|>``, which ends no turn, or a vision model's placeholder.
    """

    def __init__(self, reader: PlainReader) -> None:
        self._reader = reader

    def apply_chat_template(self, messages: list[dict[str, Any]], tokenize: bool = True, **how: Any) -> Any:
        how.pop("return_dict", None)
        text = self._reader.apply_chat_template(messages, tokenize=False, **how)
        return self._reader(text)["input_ids"] if tokenize else text

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


class ChatTokens:
    """:class:`contextrl_verl.agents.episode.Tokens` by verl's ContinuousToken builder of the model's family."""

    def __init__(self, tokenizer: Any, model_type: str | None, template: dict[str, Any], processor: Any = None) -> None:
        self._tokenizer = tokenizer
        # Slow tokenizers cannot be told to read special tokens as text.
        self._reader = plain_reader(tokenizer) if getattr(tokenizer, "is_fast", False) else None
        if self._reader is not None:
            processor = processor and self._reader.within(processor)
        self._builder = create_continuous_token_builder(
            _PlainChat(self._reader) if self._reader is not None else tokenizer,
            hf_model_type=model_type,
            chat_template_kwargs=template,
            processor=processor,
        )
        self.end_of_turn = self._end_of_turn()

    async def prompt(self, messages: list[dict[str, Any]]) -> list[int]:
        return await asyncio.to_thread(self.prompt_now, messages)

    def prompt_now(self, messages: list[dict[str, Any]]) -> list[int]:
        """The first messages as ids, with the generation prompt."""
        return list(self._builder.build_initial_tokens(self._said(messages)))

    async def user_turn(self, messages: list[dict[str, Any]], ids: list[int], text: str) -> list[int]:
        said = self._said([*messages, {"role": "user", "content": text}])
        merged = await asyncio.to_thread(self._builder.merge_context_tokens, said[:-1], said, ids)
        # A builder that takes back the end of a turn begins the next message with it: here nothing is taken back.
        taken = merged.removed_prefix_token_count
        more = merged.token_ids[len(ids) - taken :]
        return more[taken:] if taken and more[:taken] == ids[-taken:] else more

    def text(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    def _said(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        plain = [{"role": message["role"], "content": message["content"]} for message in messages]
        return self._reader.marked(plain) if self._reader is not None else plain

    def _end_of_turn(self) -> int | None:
        """The special token behind a reply, the last of a rendered chat; None where nothing closes a turn."""
        ids = self._builder._render_tokens(_CHAT, add_generation_prompt=False)
        added = self._tokenizer.added_tokens_decoder.items()
        special = {*self._tokenizer.all_special_ids, *(token for token, of in added if of.special)}
        behind = next((at for at in reversed(range(len(ids))) if ids[at] in special), None)
        if behind is None or "x" in self._tokenizer.decode(ids[behind + 1 :]):
            return None
        return ids[behind]


@lru_cache(maxsize=4)
def chat_tokens(tokenizer: Any, model_type: str | None, template: str, processor: Any = None) -> ChatTokens:
    """Made once a process; ``template`` holds the chat template's arguments as JSON."""
    return ChatTokens(tokenizer, model_type, json.loads(template), processor)


class _ServerPolicy:
    """A model behind verl's rollout servers; turns of an episode go to one server, which remembers the prefix."""

    def __init__(self, server: Any, sampling: dict[str, Any]) -> None:
        self._server, self._sampling, self._episode = server, sampling, uuid4().hex
        self.steps: list[int] = []  # the weights' versions, turn by turn
        self.preempted: int | None = None

    async def generate(self, ids: list[int], max_tokens: int) -> tuple[list[int], list[float]]:
        # A copy: verl's server takes entries out, and the dict belongs to all samples of the prompt.
        asked = {**self._sampling, "max_tokens": max_tokens}
        output = await self._server.generate(request_id=self._episode, prompt_ids=list(ids), sampling_params=asked)
        if not output.token_ids:
            raise InfrastructureError("server", f"no token (stop reason {output.stop_reason})")
        steps = (output.extra_fields.get(name) for name in ("min_global_steps", "max_global_steps"))
        self.steps += [step for step in steps if step is not None]
        if output.num_preempted is not None:
            self.preempted = (self.preempted or 0) + output.num_preempted
        return list(output.token_ids), list(output.log_probs or [0.0] * len(output.token_ids))


class _Shop:
    """What the episodes of one worker share: a sandbox, threads for calls that block, and how many run at a time."""

    def __init__(self, settings: AgentSettings) -> None:
        self.sandbox = open_sandbox(settings.sandbox, settings.limits)
        # An episode needs one, and one more to be closed while that one waits.
        self.threads = ThreadPoolExecutor(2 * settings.concurrent, thread_name_prefix="contextrl-agent")
        self.places = asyncio.Semaphore(settings.concurrent)


@lru_cache(maxsize=2)
def _shop(loop: asyncio.AbstractEventLoop, settings: AgentSettings) -> _Shop:
    return _Shop(settings)


@lru_cache(maxsize=1024)
def task_of(text: str, folders: tuple[str, ...]) -> SweTask:
    """A row's task, its repository in the first of the folders that has it.

    Raises ConfigError for text that is no task.
    """
    tasks = [read_task(text, folder) for folder in folders]
    return next((task for task in tasks if task.base.folder is None or Path(task.base.folder).is_dir()), tasks[0])


def folders_of(*files: Any) -> tuple[str, ...]:
    """Where relative folders of tasks are looked for: beside the data files."""
    return tuple(dict.fromkeys(str(Path(file).parent) for named in files for file in listed(named)))


@register(AGENT_NAME)
class SweAgentLoop(AgentLoopBase):
    """Runs one episode on a row's task; what the infrastructure lost becomes no row, and is counted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = parse_settings(self.data_config.get("contextrl"))
        self._settings, template = settings.agent, json.dumps(settings.run.apply_chat_template_kwargs)
        self._chat = self.tokenizer, kwargs.get("hf_model_type"), template, self.processor

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput | list[AgentLoopOutput]:
        policy = _ServerPolicy(self.server_manager, sampling_params)
        try:
            episode = await self._episode(policy, row)
        except Exception as error:
            # Never a failed group, of which verl would train the rest without a word.
            logger.exception("an episode could not be run")
            ending = Ending.SANDBOX if isinstance(error, InfrastructureError) else Ending.ERROR
            episode = Episode(ending=ending, detail=f"{type(error).__name__}: {told_by(error)}")
        await tq.async_kv_put(key=f"{row['uid']}_{row['session_id']}", partition_id=NOTES, tag=note_of(episode))
        # verl leaves a sample without outputs out of its group.
        return self._output(episode, policy, sampling_params, row) if episode.kept else []

    async def _episode(self, policy: _ServerPolicy, row: dict[str, Any]) -> Episode:
        task = task_of(row["extra_info"]["task"], folders_of(self.data_config.train_files, self.data_config.val_files))
        shop = _shop(asyncio.get_running_loop(), self._settings)
        async with shop.places:
            return await run_episode(
                task,
                policy,
                chat_tokens(*self._chat),
                self._settings,
                shop.sandbox,
                shop.threads,
                prompt_length=int(self.rollout_config.prompt_length),
                response_length=int(self.rollout_config.response_length),
                name=self._name(task, row),
            )

    @staticmethod
    def _name(task: SweTask, row: dict[str, Any]) -> str:
        """Of the record: a folder a step, and a name that no sample shares."""
        instance = re.sub(r"[^\w.-]+", "_", task.instance_id)
        return f"step{int(row['global_steps'])}/{instance}-{row['uid'][:8]}-{row['session_id']}"

    @staticmethod
    def _output(
        episode: Episode, policy: _ServerPolicy, sampling: dict[str, Any], row: dict[str, Any]
    ) -> AgentLoopOutput:
        metrics = episode.metrics
        # In synchronous training the servers hold the weights of the step before.
        steps = policy.steps or [int(row["global_steps"]) - 1]
        # Every field that other rows of the batch have: verl drops fields that some rows lack.
        return AgentLoopOutput(
            prompt_ids=episode.prompt_ids,
            response_ids=episode.response_ids,
            response_mask=episode.response_mask,
            response_logprobs=episode.logprobs if sampling.get("logprobs") else None,
            routed_experts=None,
            multi_modal_data={},
            mm_processor_kwargs={},
            mm_processor_output=None,
            num_turns=2 * int(metrics["turns"]),
            metrics={
                "generate_sequences": metrics["seconds_generating"],
                "tool_calls": metrics["seconds_sandbox"],
                "compute_score": metrics["seconds_verifying"],
                "num_preempted": -1 if policy.preempted is None else policy.preempted,
            },
            reward_score=episode.reward,
            extra_fields={
                "min_global_steps": min(steps),
                "max_global_steps": max(steps),
                "turn_scores": [],
                "tool_rewards": [],
                "reward_extra_info": {"acc": episode.reward, "turns": metrics["turns"]},
            },
        )
