"""Episodes without a model: a scripted policy repairs tasks of the forge, through the loop and sandbox of training."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from contextrl_verl.agents.ending import Episode
from contextrl_verl.agents.episode import run_episode
from contextrl_verl.agents.protocol import SUBMIT
from contextrl_verl.agents.settings import AgentSettings
from contextrl_verl.agents.task import ForgeChecks, SweTask, read_task
from contextrl_verl.demo.run import contextrl
from contextrl_verl.errors import UserError, printable
from contextrl_verl.sandbox import open_sandbox

_START, _END = 256, 257
_SHOWN_LINES = 12


class ByteTokens:
    """Chat turns as bytes, with one id more where a turn begins and where it ends."""

    end_of_turn = _END

    async def prompt(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """All messages, and the beginning of a reply."""
        turns = (_turn(message["role"], message["content"]) for message in messages)
        return [*(one for turn in turns for one in turn), _START, *b"assistant\n"]

    async def user_turn(self, messages: Sequence[dict[str, Any]], ids: Sequence[int], text: str) -> list[int]:
        """The line end behind the last turn, a turn of the user, and the beginning of a reply."""
        return [*b"\n", *_turn("user", text), _START, *b"assistant\n"]

    def text(self, ids: Sequence[int]) -> str:
        """What the bytes say."""
        return bytes(one for one in ids if one < _START).decode("utf-8", "replace")


def _turn(role: str, content: str) -> list[int]:
    return [_START, *f"{role}\n{content}".encode("utf-8", "replace"), _END, *b"\n"]


class Script:
    """A policy that says what it was given, one reply after the other; what it sees does not matter."""

    def __init__(self, replies: Sequence[str]) -> None:
        self._replies = iter(replies)

    async def generate(self, ids: Sequence[int], max_tokens: int) -> tuple[list[int], list[float]]:
        """The next reply; raises StopAsyncIteration behind the last."""
        reply = [*next(self._replies).encode(), _END][:max_tokens]
        return reply, [0.0] * len(reply)


def replies_for(task: SweTask) -> list[str]:
    """Look, read, see the fault, put the reference in, see it gone, submit."""
    path = re.search(r"^--- a/(.+)$", task.reference, re.M)
    line = re.search(r"^@@ -(\d+)", task.reference, re.M)
    if path is None or line is None:
        raise ValueError(f"{task.instance_id}: the script mends one file that is there")
    first = max(1, int(line[1]) - 10)
    if isinstance(task.checks, ForgeChecks):
        call = task.checks.questions[0].call
        told = "print(repr(list(result) if hasattr(result, '__next__') else result))"
        script = "\n".join([*call.imports, f"result = {call.text}", told])
        see = f"python - <<'EOF'\n{script}\nEOF"
    else:
        see = f"{task.checks.test_command} 2>&1 | tail -n 20"
    said = [
        ("I look at what is here.", "ls && git log --oneline"),
        (f"The report leads to {path[1]}; I read around line {line[1]}.", f"sed -n '{first},{first + 40}p' {path[1]}"),
        ("I want to see what the report says.", see),
        ("I change the lines that are wrong.", f"cat <<'PATCH' | git apply -v -\n{task.reference}PATCH"),
        ("The same again.", see),
        ("It gives what the report asks for. I am done.", f"echo {SUBMIT}"),
    ]
    return [f"THOUGHT: {thought}\n\n```bash\n{command}\n```" for thought, command in said]


def repair(tasks: Sequence[SweTask], records: Path | None = None, at_once: int = 4) -> list[Episode]:
    """The episodes of scripted repairs, in the order of the tasks."""
    # A reply is as long as its patch, and a byte is a token here.
    settings = AgentSettings(turn_tokens=1 << 16, records=records and str(records))
    sandbox, gate = open_sandbox(settings.sandbox, settings.limits), asyncio.Semaphore(at_once)

    async def one(task: SweTask) -> Episode:
        async with gate:
            given = (task, Script(replies_for(task)), ByteTokens(), settings, sandbox, executor)
            lengths = {"prompt_length": 1 << 18, "response_length": 1 << 20}
            return await run_episode(*given, **lengths, name=task.instance_id)

    async def every() -> list[Episode]:
        return await asyncio.gather(*map(one, tasks))

    with ThreadPoolExecutor(at_once) as executor:
        return asyncio.run(every())


def tasks_in(rows: Path) -> list[SweTask]:
    """The tasks of a file that contextrl tasks swe wrote."""
    import pyarrow.parquet as pq

    known = pq.read_table(rows, columns=["extra_info"]).column("extra_info").to_pylist()
    return [read_task(one["task"], rows.parent) for one in known]


def run_agent_demo(out: Path, count: int, seed: int) -> dict[str, Any]:
    """Make tasks, repair them, print one episode and write a page about all under ``out``; returns the summary.

    Raises UserError when there is no sandbox, or an episode was not resolved.
    """
    console, rows, records = Console(), out / "tasks.parquet", out / "episodes"
    console.print(f"Making {count} tasks: small bugs in an installed library, each tried with and without its repair")
    made = ("--source", "forge", "--limit", count, "--validation", 0, "--seed", seed)
    contextrl("tasks", "swe", *made, "--out", rows)
    tasks = tasks_in(rows)
    episodes = repair(tasks, records)
    _print(console, episodes[0])
    table = Table("task", "ending", "verdict", "turns", "sandbox", "verifier", "reward", caption="Times are seconds.")
    table.columns[0].no_wrap = True
    for task, episode in zip(tasks, episodes, strict=True):
        seconds = (f"{episode.metrics[f'seconds_{name}']:.2f}" for name in ("sandbox", "verifying"))
        verdict = episode.verdict.reason.value if episode.verdict else ""
        turns = f"{episode.metrics['turns']:.0f}"
        table.add_row(task.instance_id, episode.ending.value, verdict, turns, *seconds, f"{episode.reward:g}")
    console.print(table)
    contextrl("show", records, "--out", out / "page", "-n", count)
    summary = {"tasks": len(tasks), "resolved": sum(episode.reward for episode in episodes), "seed": seed}
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    console.print(f"Every turn of every episode: {out / 'page' / 'index.html'}")
    if failed := [episode for episode in episodes if not episode.reward]:
        raise UserError(f"{len(failed)} of {len(tasks)} repairs were not resolved; the first: {failed[0].detail}")
    return summary


def _print(console: Console, episode: Episode) -> None:
    """An episode as the terminal shows it, long outputs shortened."""
    for message in episode.messages:
        if message["role"] == "system":
            continue
        lines = printable(message["content"]).splitlines()
        if message["role"] == "user" and len(lines) > _SHOWN_LINES:
            lines = [*lines[:_SHOWN_LINES], f"[... {len(lines) - _SHOWN_LINES} more lines]"]
        style = "cyan" if message["role"] == "assistant" else "dim"
        console.print(f"[bold]{message['role']}[/bold]\n[{style}]{escape(chr(10).join(lines))}[/{style}]\n")
    console.print(f"[bold green]reward {episode.reward:g}[/bold green]: {escape(episode.detail)}\n")
