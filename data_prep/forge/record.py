"""A run in the format that mini-swe-agent writes, and the file of runs."""

from __future__ import annotations

import contextlib
import gzip
import json
import lzma
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from contextrl_verl.pairs.whole_file import whole_file
from data_prep.forge.library import ForgeError
from data_prep.forge.sandbox import WORKPLACE, Finished

FORMAT = "mini-swe-agent-1"
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && git add -A && git diff --cached"
LONGEST_OUTPUT = 10_000

SYSTEM = """You work on software through a shell. Each of your answers holds your reasoning and one shell command.

Write them like this:

<format_example>
THOUGHT: what you know, and why the next command is worth running

```bash
the command
```
</format_example>

An answer with no command, or with more than one block, is not carried out."""

_TASK = """<pr_description>
Consider the following PR description:
{issue}
</pr_description>

<instructions>
# Task

Change the source files under {workplace} so that what the description reports no longer happens. {workplace} is the
working directory of every command.

1. Find the code that the description is about and read it.
2. Write a script that shows the problem, and run it.
3. Edit the source.
4. Run the script again, and try other inputs as well.

Every command runs in a shell of its own: variables and the current directory do not last from one to the next.
Commands must not wait for input.

When you are done, send exactly this command, after which nothing more can be changed:

```bash
{submit}
```
</instructions>"""

_TOO_LONG = """<warning>
This output is too long to be shown whole; its middle is left out.
Ask for less: a range of lines with sed, a narrower grep, or the first lines with head.
</warning>"""


def task(issue: str) -> str:
    """The first user turn."""
    return _TASK.format(issue=issue, workplace=WORKPLACE, submit=SUBMIT)


def answer(thought: str, command: str) -> str:
    """An assistant turn."""
    return f"THOUGHT: {thought}\n\n```bash\n{command}\n```"


def observation(done: Finished) -> str:
    """The user turn that reports a command; as mini-swe-agent does it, long output keeps its two ends."""
    head = f"<returncode>{done.returncode}</returncode>\n"
    output = done.output
    if len(output) < LONGEST_OUTPUT:
        end = "" if output.endswith("\n") or not output else "\n"
        return f"{head}<output>\n{output}{end}</output>"
    half = LONGEST_OUTPUT // 2
    return (
        f"{head}{_TOO_LONG}<output_head>\n{output[:half]}\n</output_head>\n"
        f"<elided_chars>\n{len(output) - LONGEST_OUTPUT} characters elided\n</elided_chars>\n"
        f"<output_tail>\n{output[-half:]}\n</output_tail>"
    )


def record(
    messages: list[dict[str, str]], patch: str, resolved: bool, commit: str, library: str, version: str
) -> dict[str, Any]:
    """The run without its ``instance_id``, which is given when its number is known."""
    return {
        "trajectory_format": FORMAT,
        "resolved": resolved,
        "base_commit": commit,
        "forge": {"library": library, "version": version},
        "info": {
            "exit_status": "Submitted",
            "submission": patch,
            "model_stats": {"instance_cost": 0.0, "api_calls": sum(m["role"] == "assistant" for m in messages)},
        },
        "messages": messages,
    }


def write_runs(out: Path, records: Iterable[dict[str, Any]]) -> list[bool]:
    """Write the records as JSON lines, compressed by the file's ending; whether each is resolved is returned.

    The same records give the same bytes. Whatever goes wrong, no part of the file stays.
    """
    if not out.name.endswith((".jsonl", ".jsonl.gz", ".jsonl.xz", ".jsonl.zst")):
        raise ForgeError(f"--out {out}: write to a name that ends in .jsonl, .jsonl.gz, .jsonl.xz or .jsonl.zst")
    compressed = _compressor(out.suffix)
    resolved = []
    with whole_file(out) as scratch, open(scratch, "wb") as raw, compressed(raw) as file:
        for item in records:
            resolved.append(item["resolved"])
            file.write(json.dumps(item, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
    return resolved


def _compressor(suffix: str) -> Callable[[Any], Any]:
    if suffix == ".gz":
        # No time of writing in the header.
        return lambda raw: gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
    if suffix == ".xz":
        return partial(lzma.LZMAFile, mode="wb")
    if suffix == ".zst":
        import zstandard

        return partial(zstandard.ZstdCompressor(level=10).stream_writer, closefd=False)
    return contextlib.nullcontext
