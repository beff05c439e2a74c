"""Episodes without a model, a GPU or a container: a policy that follows a script, tokens of a small tokenizer, boxes in
temporary folders."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from tokenizer_families import FAMILIES

from contextrl_verl.agents.ending import Episode
from contextrl_verl.agents.episode import run_episode
from contextrl_verl.agents.protocol import SUBMIT
from contextrl_verl.agents.settings import AgentSettings
from contextrl_verl.agents.task import SweTask
from contextrl_verl.sandbox.box import Base, Finished, Limits

FIX = "sed -i 's/a - b/a + b/' calc.py"
DONE = f"echo {SUBMIT}"


def says(command: str, thought: str = "THOUGHT: I go on.", fence: str = "bash") -> str:
    return f"{thought}\n\n```{fence}\n{command}\n```"


def make_task(folder: Path) -> SweTask:
    """``calc.add`` subtracts."""
    repository = folder / "repository"
    repository.mkdir(parents=True, exist_ok=True)
    (repository / "calc.py").write_text("def add(a, b):\n    return a - b\n")
    question = {
        "call": {"imports": ["import calc"], "text": "calc.add(1, 2)"},
        "expected": {"kind": "value", "text": "3"},
    }
    return SweTask.model_validate(
        {
            "instance_id": "owner__name-7",
            "repository": "owner/name",
            "base": {"folder": str(repository)},
            "issue": "calc.add subtracts.",
            "checks": {"kind": "forge", "module": "calc", "questions": [question]},
            "reference": "",
        }
    )


class ChatTokens:
    """A chat template by its own tokenizer; a turn of the user is what a template adds behind another one."""

    def __init__(self, family: str) -> None:
        self.tokenizer = tokenizer_of(family)
        self.end_of_turn = self.tokenizer.eos_token_id
        ended = self._rendered([{"role": "user", "content": "x"}], False)
        self._behind = ended[len(ended) - ended[::-1].index(self.end_of_turn) :]  # Qwen's newline

    def _rendered(self, messages: list[dict[str, Any]], prompted: bool) -> list[int]:
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompted)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    async def prompt(self, messages: list[dict[str, Any]]) -> list[int]:
        return self._rendered(messages, True)

    async def user_turn(self, messages: list[dict[str, Any]], ids: list[int], text: str) -> list[int]:
        before = [{"role": "system", "content": "x"}, {"role": "user", "content": "x"}]
        whole = self._rendered([*before, {"role": "user", "content": text}], True)
        return [*self._behind, *whole[len(self._rendered(before, False)) :]]

    def text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def ids(self, text: str) -> list[int]:
        """A reply of a model that ends its turn."""
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.end_of_turn]


@lru_cache
def tokenizer_of(family: str) -> Any:
    return FAMILIES[family]()


@dataclass
class Scripted:
    """Says one thing after the other: a text, ids, or what a function does; cuts as a server does. Keeps what it saw,
    what it said, and how many tokens it was allowed."""

    tokens: ChatTokens
    script: Sequence[str | list[int] | Callable[[], Any]]
    seen: list[list[int]] = field(default_factory=list)
    said: list[tuple[list[int], list[float]]] = field(default_factory=list)
    most: list[int] = field(default_factory=list)

    async def generate(self, ids: list[int], max_tokens: int) -> tuple[list[int], list[float]]:
        self.seen.append(list(ids))
        self.most.append(max_tokens)
        reply = self.script[len(self.seen) - 1]
        if callable(reply):
            return await reply()
        reply = (self.tokens.ids(reply) if isinstance(reply, str) else reply)[:max_tokens]
        self.said.append((reply, [-0.25 - index for index in range(len(reply))]))
        return self.said[-1]


class FolderBox:
    """Contains nothing: a copy of the repository and the machine's own shell."""

    def __init__(self, base: Base, folder: Path) -> None:
        self.base, self.folder, self.closed, self.threads = base, folder, 0, set()
        shutil.copytree(base.folder, folder)

    def run(self, command: str, *, stdin: str = "", seconds: float | None = None) -> Finished:
        self.threads.add(threading.current_thread().name)
        began = time.monotonic()
        try:
            done = subprocess.run(
                ["bash", "-c", command], cwd=self.folder, input=stdin, text=True, timeout=seconds,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Finished(137, "", "timeout", time.monotonic() - began)
        return Finished(done.returncode, done.stdout, "", time.monotonic() - began)

    def diff(self) -> str:
        self.threads.add(threading.current_thread().name)
        pair = [str(self.base.folder), str(self.folder)]
        text = subprocess.run(["git", "diff", "--no-index", *pair], stdout=subprocess.PIPE, text=True).stdout
        for name in pair:
            text = text.replace(name + "/", "/")
        return text

    def close(self) -> None:
        self.closed += 1


class FolderSandbox:
    def __init__(self, folder: Path, make: Callable[..., Any] = FolderBox) -> None:
        self.limits, self.folder, self.make, self.boxes = Limits(), folder, make, []

    def start(self, base: Base) -> Any:
        self.boxes.append(self.make(base, self.folder / f"box-{uuid4().hex}"))
        return self.boxes[-1]


def episode_of(
    task: SweTask,
    policy: Any,
    sandbox: Any,
    settings: AgentSettings | None = None,
    *,
    tokens: Any = None,
    prompt_length: int = 10_000,
    response_length: int = 20_000,
    name: str | None = "one",
) -> Episode:
    """Run one episode to its end."""

    async def run() -> Episode:
        with ThreadPoolExecutor(2, "episode") as executor:
            return await run_episode(
                task, policy, tokens or policy.tokens, settings or AgentSettings(), sandbox, executor,
                prompt_length=prompt_length, response_length=response_length, name=name,
            )  # fmt: skip

    return asyncio.run(run())
