"""One episode of a coding agent: a model and a sandbox in turns, until the work is submitted or a budget is used up.

Tokens are exact in both directions. What the policy returned is kept to the id, with its log-probabilities and mask 1;
what is said to the model is appended, with mask 0, and no text is ever tokenised twice. Nothing but a cancellation is
raised: an error ends the episode as the fault of the infrastructure, and such an episode is not for training.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from contextrl_verl.agents.ending import Ending, Episode
from contextrl_verl.agents.protocol import commands_in, is_submission, wording_of
from contextrl_verl.agents.record import write_record
from contextrl_verl.agents.settings import AgentSettings
from contextrl_verl.agents.task import SweTask
from contextrl_verl.agents.verify import verify
from contextrl_verl.errors import UserError
from contextrl_verl.sandbox.box import Box, Finished, InfrastructureError, Sandbox

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
Message = dict[str, Any]


class Policy(Protocol):
    """The model that acts."""

    async def generate(self, ids: list[int], max_tokens: int) -> tuple[list[int], list[float]]:
        """The reply to a prompt, at most ``max_tokens`` ids, and the log-probability of each."""


class Tokens(Protocol):
    """The model's chat template, one turn at a time."""

    end_of_turn: int | None  # what the model ends a turn with

    async def prompt(self, messages: list[Message]) -> list[int]:
        """The first messages as ids, up to where the reply begins."""

    async def user_turn(self, messages: list[Message], ids: list[int], text: str) -> list[int]:
        """What to append to ``ids``, the conversation so far, for a turn of the user, up to where the reply begins."""

    def text(self, ids: list[int]) -> str:
        """A reply as text, without special tokens."""


async def run_episode(
    task: SweTask,
    policy: Policy,
    tokens: Tokens,
    settings: AgentSettings,
    sandbox: Sandbox,
    executor: Executor,
    *,
    prompt_length: int,
    response_length: int,
    name: str | None = None,
) -> Episode:
    """Let the policy work on a task.

    Args:
        executor: where calls that block run; an episode needs one thread at a time.
        prompt_length: most tokens of the first messages.
        response_length: most tokens behind them, of the model and of observations together.
        name: of the record in ``settings.records``; without both there is none.
    """
    run = _Run(task, policy, tokens, settings, sandbox, executor, prompt_length, response_length)
    path = Path(settings.records, f"{name}.traj.json") if settings.records and name else None
    try:
        await run.to_its_end()
        await run.blocking("", run.write, path)
    except asyncio.CancelledError:
        # The loop may be closing: nothing is awaited any more.
        run.cancel()
        run.write(path)
        raise
    if run.episode.ending.fault == "infrastructure":
        logger.warning("%s: dropped (%s): %s", task.instance_id, run.episode.ending.value, run.episode.detail)
    return run.episode


class _Over(Exception):
    """Ends the episode: an ending and its detail."""


@contextmanager
def _blaming(ending: Ending) -> Iterator[None]:
    """Whatever goes wrong in the block ends the episode so."""
    try:
        yield
    except _Over:
        raise
    except (InfrastructureError, UserError) as error:
        raise _Over(ending, str(error)) from error
    except Exception as error:
        raise _Over(ending, traceback.format_exc()) from error


@dataclass
class _Run:
    """An episode on its way; what :func:`run_episode` was given comes first."""

    task: SweTask
    policy: Policy
    tokens: Tokens
    settings: AgentSettings
    sandbox: Sandbox
    executor: Executor
    prompt_length: int
    response_length: int
    episode: Episode = field(default_factory=Episode)
    began: float = field(default_factory=time.monotonic)
    box: Box | None = None

    def __post_init__(self) -> None:
        counts = "turns commands format_errors command_timeouts prompt_tokens model_tokens observation_tokens"
        times = "seconds seconds_sandbox seconds_generating seconds_verifying"
        self.metrics = self.episode.metrics
        self.metrics.update(dict.fromkeys(f"{counts} {times}".split(), 0.0))

    async def to_its_end(self) -> None:
        """Sets the episode's ending; raises nothing but CancelledError."""
        try:
            with _blaming(Ending.ERROR):
                ending, detail = await self._steps()
        except _Over as over:
            ending, detail = over.args
        self.episode.end(ending, detail)
        if self.box is not None:
            with suppress(Exception):  # whatever it left, the next start or the end of this process removes
                await self.blocking("seconds_sandbox", self.box.close)
        self._measure()

    def cancel(self) -> None:
        """Leave nothing behind."""
        self.episode.end(Ending.CANCELLED, "")
        if self.box is not None:
            with suppress(InfrastructureError):
                self.box.close()
        self._measure()

    def write(self, path: Path | None) -> None:
        """Write the record; an episode without its record is not kept."""
        try:
            if path is not None:
                write_record(path, self.task, self.episode)
        except Exception as error:
            self.episode.end(Ending.RECORD, f"{path} cannot be written: {error!r}")

    async def blocking(self, measure: str, call: Callable[..., Result], *given: Any) -> Result:
        """The call's result; its time goes to a metric."""
        began = time.monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(self.executor, call, *given)
        finally:
            if measure:
                self.metrics[measure] += time.monotonic() - began

    async def _steps(self) -> tuple[Ending, str]:
        """Everything up to the verdict; returns or raises the ending."""
        episode = self.episode
        episode.messages = wording_of(self.settings).start(self.task.issue)
        episode.prompt_ids = await self.tokens.prompt(episode.messages)
        if (length := len(episode.prompt_ids)) > self.prompt_length:
            raise _Over(Ending.OVERFLOW, f"the prompt has {length} tokens, over {self.prompt_length}")
        with _blaming(Ending.SANDBOX):
            self.box = box = await self._started()
        try:
            await self._converse(box)
        except _Over as over:
            ending, detail = over.args
            if ending.fault != "model":
                raise
        if ending is not Ending.SUBMITTED:
            with suppress(InfrastructureError):  # for the record alone
                episode.patch = await self.blocking("seconds_sandbox", box.diff)
            return ending, detail
        with _blaming(Ending.SANDBOX):
            episode.patch = await self.blocking("seconds_sandbox", box.diff)
            await self.blocking("seconds_sandbox", box.close)
            self.box = None
        with _blaming(Ending.VERIFIER):
            verdict = await self.blocking("seconds_verifying", verify, self.task, episode.patch, self.sandbox)
        episode.verdict = verdict
        detail = ": ".join(filter(None, (verdict.reason.value, verdict.detail)))
        return Ending.CHEAT if verdict.reason.cheat else ending, detail

    async def _started(self) -> Box:
        """A box, also closed if it comes up after a cancellation."""
        starting: Future[Box] = self.executor.submit(lambda: self.sandbox.start(self.task.start_base()))
        try:
            return await asyncio.wrap_future(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(lambda done: done.cancelled() or done.exception() or done.result().close())
            raise

    async def _converse(self, box: Box) -> None:
        """Turn after turn; always ends with _Over."""
        wording, wrong, repeated, before = wording_of(self.settings), 0, 1, None
        for _ in range(self.settings.turns):
            reply, cut = await self._reply()
            commands = commands_in(reply, self.settings.fence)
            if len(commands) != 1:
                wrong += 1
                self.metrics["format_errors"] += 1
                if wrong == self.settings.format_errors:
                    raise _Over(Ending.FORMAT, f"{wrong} replies in a row without exactly one command")
                self._note("user", wording.wrong_format(len(commands), cut))
                continue
            wrong = 0
            done = await self._carried_out(box, commands[0])
            if is_submission(done.output):
                raise _Over(Ending.SUBMITTED, "")
            text = wording.observation(done)
            seen = {"returncode": done.returncode, "ended": done.ended, "seconds": round(done.seconds, 3)}
            self._note("user", text, **seen)
            repeated = repeated + 1 if before == (commands[0], text) else 1
            if repeated == self.settings.repeats:
                raise _Over(Ending.STUCK, f"{repeated} times in a row: {commands[0][:200]}")
            before = commands[0], text
        raise _Over(Ending.TURNS, f"{self.settings.turns} replies and no submission")

    def _note(self, role: str, content: str, **extra: Any) -> None:
        self.episode.messages.append({"role": role, "content": content, "extra": extra})

    async def _reply(self) -> tuple[str, bool]:
        """Tell the model what came back, let it answer; returns the text, and whether it was cut for its length."""
        episode, settings = self.episode, self.settings
        if episode.response_ids:
            await self._say(episode.messages[-1])
        room = self.response_length - len(episode.response_ids)
        began, most = time.monotonic(), min(settings.turn_tokens, room)
        ids, logprobs = await self._generated(episode.prompt_ids + episode.response_ids, most)
        seconds = time.monotonic() - began
        self.metrics["seconds_generating"] += seconds
        episode.append(ids, logprobs)
        self.metrics["turns"] += 1
        cut = len(ids) == most and ids[-1] != self.tokens.end_of_turn
        text = self.tokens.text(ids)
        self._note("assistant", text, tokens=len(ids), seconds=round(seconds, 3), cut=cut)
        return text, cut

    async def _say(self, message: Message) -> None:
        episode, end = self.episode, self.tokens.end_of_turn
        # What was cut, or ended by another token, has no end yet.
        closing = [end] if end is not None and episode.response_ids[-1] != end else []
        ids = episode.prompt_ids + episode.response_ids + closing
        said = closing + await self.tokens.user_turn(episode.messages[:-1], ids, message["content"])
        message["extra"]["tokens"] = len(said)
        if len(episode.response_ids) + len(said) >= self.response_length:
            raise _Over(Ending.TOKENS, f"no room for {len(said)} tokens and a reply in {self.response_length}")
        episode.append(said)

    async def _generated(self, ids: list[int], most: int) -> tuple[list[int], list[float]]:
        left = self._seconds_left()
        asked = asyncio.ensure_future(self.policy.generate(ids, most))
        try:
            await asyncio.wait({asked}, timeout=left)
            if not asked.done():
                raise self._late()
            with _blaming(Ending.SERVER):
                reply, logprobs = asked.result()
                if not 0 < len(reply) <= most or len(logprobs) != len(reply):
                    raise InfrastructureError(
                        "server",
                        f"{len(reply)} tokens with {len(logprobs)} log-probabilities; asked for at most {most}",
                    )
        finally:
            asked.cancel()
        return list(reply), list(logprobs)

    async def _carried_out(self, box: Box, command: str) -> Finished:
        self.episode.messages[-1]["extra"]["actions"] = [{"command": command}]
        seconds = min(self.settings.limits.seconds, self._seconds_left())
        with _blaming(Ending.SANDBOX):
            done = await self.blocking("seconds_sandbox", partial(box.run, command, seconds=seconds))
        self.metrics["commands"] += 1
        self.metrics["command_timeouts"] += done.ended == "timeout"
        return done

    def _seconds_left(self) -> float:
        """Seconds of the wall clock; raises _Over where there are none."""
        left = self.began + self.settings.seconds - time.monotonic()
        if left <= 0:
            raise self._late()
        return left

    def _late(self) -> _Over:
        # Without one token of the model there is nothing to blame it for, and nothing to train on.
        if not self.metrics["turns"]:
            return _Over(Ending.SERVER, f"no reply within the {self.settings.seconds:g} seconds of an episode")
        return _Over(Ending.WALL_CLOCK, f"{self.settings.seconds:g} seconds are over")

    def _measure(self) -> None:
        episode, metrics = self.episode, self.metrics
        metrics["prompt_tokens"] = float(len(episode.prompt_ids))
        metrics["model_tokens"] = float(sum(episode.response_mask))
        metrics["observation_tokens"] = float(len(episode.response_mask) - sum(episode.response_mask))
        metrics["seconds"] = time.monotonic() - self.began
