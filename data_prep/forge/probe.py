"""Asks what calls of one function give, with and without changes to it, at the price of a fork per question."""

from __future__ import annotations

import contextlib
import json
import select
import shlex
import textwrap
from dataclasses import dataclass
from typing import Any

from data_prep.forge.mutate import Function, Mutation, apply
from data_prep.forge.sandbox import Sandbox

CALL_SECONDS = 0.1
_FORK_SECONDS = 6


@dataclass(frozen=True)
class Outcome:
    """What a call gave: the text of a value, or an error's name and message; kind ``bad`` when it says nothing."""

    kind: str
    text: str

    @property
    def usable(self) -> bool:
        return self.kind in ("value", "error")


@dataclass(frozen=True)
class Call:
    """One call as Python source."""

    imports: tuple[str, ...]
    text: str

    def request(self) -> dict[str, Any]:
        return {"imports": self.imports, "call": self.text}


def observe(sandbox: Sandbox, calls: list[Call]) -> list[Outcome]:
    """What the calls give in a new process with the working folder's files as they are now."""
    target = sandbox.root / "answer.json"
    target.unlink(missing_ok=True)
    script = sandbox.root / "inside" / "observe.py"
    request = {"calls": [call.request() for call in calls], "seconds": CALL_SECONDS}
    done = sandbox.run(f"python {shlex.quote(str(script))} {shlex.quote(str(target))}", json.dumps(request))
    if done.returncode or not target.is_file():
        return [Outcome("bad", "crash")] * len(calls)
    answer = json.loads(sandbox.renamed(target.read_text(encoding="utf-8")))
    return [Outcome(item["kind"], item["text"]) for item in answer]


class Probe(contextlib.AbstractContextManager["Probe"]):
    """Questions about one function of a file whose text is ``text``; the files themselves are not touched."""

    def __init__(self, sandbox: Sandbox, function: Function, text: str) -> None:
        self.sandbox = sandbox
        self.function = function
        self.text = text
        script = shlex.quote(str(sandbox.root / "inside" / "serve.py"))
        self._process = sandbox.start(f"exec python {script} {shlex.quote(function.module)} {_FORK_SECONDS}")

    def invent(self, seed: str, tries: int, keep: int) -> list[tuple[Call, Outcome]]:
        """Calls with what they gave."""
        answer = self._ask(
            {
                "op": "invent",
                "qualname": self.function.qualname,
                "package": self.function.module.split(".")[0],
                "literals": self.function.literals,
                "seed": seed,
                "tries": tries,
                "keep": keep,
                "seconds": CALL_SECONDS,
            }
        )
        return [
            (Call(tuple(item["imports"]), item["call"]), Outcome(item["outcome"]["kind"], item["outcome"]["text"]))
            for item in answer or []
        ]

    def observe(self, calls: list[Call], mutations: list[Mutation]) -> list[Outcome] | None:
        """What the calls give with the mutations in the function; None when the process was ended or crashed."""
        answer = self._ask(
            {
                "op": "observe",
                "qualname": self.function.qualname,
                "source": self.source(mutations) if mutations else None,
                "calls": [call.request() for call in calls],
                "seconds": CALL_SECONDS,
            }
        )
        return None if answer is None else [Outcome(item["kind"], item["text"]) for item in answer]

    def source(self, mutations: list[Mutation]) -> str:
        """The function alone, in a class of its class's name, with the mutations."""
        changed = apply(self.text, mutations)
        removed = self.text.count("\n") - changed.count("\n")
        lines = changed.split("\n")[self.function.first - 1 : self.function.last - removed]
        body = textwrap.dedent("\n".join(lines)) if lines else ""
        owner, _, _ = self.function.qualname.rpartition(".")
        future = "from __future__ import annotations\n"
        return f"{future}class {owner}:\n{textwrap.indent(body, ' ')}\n" if owner else f"{future}{body}\n"

    def _ask(self, request: dict[str, Any]) -> Any:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return None
        if not select.select([process.stdout], [], [], self.sandbox.limits.seconds)[0]:
            self.sandbox.end(process)
            return None
        line = process.stdout.readline()
        return json.loads(self.sandbox.renamed(line.decode("utf-8"))) if line.strip() else None

    def __exit__(self, *_: object) -> None:
        self.sandbox.end(self._process)
