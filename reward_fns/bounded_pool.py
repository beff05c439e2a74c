"""Calls that end in time whatever they compute: each runs in a worker process, killed when it is over its limit.

Workers are started when they are first needed, kept warm, and replaced when they end. No signal, timer or fork of the
caller is used, so calls may come from threads, asyncio's executors, Ray actors and daemonic processes. A worker ends
when its caller does: its pipe closes, or its CPU-time limit is reached.
"""

from __future__ import annotations

import atexit
import importlib
import json
import math
import os
import select
import subprocess
import sys
import threading
import time
from typing import Any

_START_SECONDS = 120.0
_MEMORY_BYTES = 2 << 30
# argv: the function, the caller's sys.path. Not -m, which would put the working folder before it.
_CODE = "import sys; sys.path[:] = sys.argv[2:]; from reward_fns.bounded_pool import serve; serve(sys.argv[1])"


class CallTimeout(Exception):
    """The call was over its limit of wall-clock time."""


class CallFailed(Exception):
    """The function raised, ran out of memory, or took its worker process down."""


class BoundedPool:
    """Calls ``function`` ("package.module:name"; arguments and result are JSON) in up to ``workers`` processes."""

    def __init__(self, function: str, workers: int = 4, memory_bytes: int = _MEMORY_BYTES) -> None:
        self._function, self._memory, self._count = function, memory_bytes, workers
        self._forget()
        atexit.register(self.close)
        # A forked child must not write into its parent's pipes, nor hold them open.
        os.register_at_fork(after_in_child=self._forget)

    def call(self, seconds: float, *arguments: Any) -> Any:
        """The function's result. ``seconds`` of wall-clock time count once a started worker is free.

        Raises CallTimeout, CallFailed, ImportError when a worker lacks a package, and RuntimeError when none can start.
        """
        with self._free:
            worker = self._take() or self._start()
            try:
                reply = worker.ask({"seconds": seconds, "arguments": arguments}, time.monotonic() + seconds)
            except BaseException:
                self._drop(worker)
                raise
            if reply.get("ended"):
                self._drop(worker)
            else:
                with self._lock:
                    self._idle.append(worker)
        if "error" in reply:
            raise CallFailed(reply["error"])
        return reply["result"]

    def close(self) -> None:
        """Kill every worker; a call after it starts new ones."""
        for worker in list(self._all):
            self._drop(worker)

    def _take(self) -> _Worker | None:
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None or worker.is_alive():
                return worker
            self._drop(worker)

    def _start(self) -> _Worker:
        worker = _Worker(self._function)
        with self._lock:
            self._all.add(worker)
        try:
            started = worker.ask({"memory_bytes": self._memory}, time.monotonic() + _START_SECONDS)
        except CallTimeout:
            started = {"error": f"it was not ready within {_START_SECONDS:g} s"}
        # Loud, unlike a call that fails: without workers every answer would be wrong.
        if "error" in started:
            self._drop(worker)
            is_missing = started["error"].startswith(("ImportError", "ModuleNotFoundError"))
            message = f"A worker for {self._function} cannot start: {started['error']}"
            raise (ImportError if is_missing else RuntimeError)(message)
        return worker

    def _drop(self, worker: _Worker) -> None:
        with self._lock:
            self._all.discard(worker)
            if worker in self._idle:
                self._idle.remove(worker)
        worker.kill()

    def _forget(self) -> None:
        for worker in getattr(self, "_all", ()):
            worker.close_pipes()
        self._all: set[_Worker] = set()
        self._idle: list[_Worker] = []
        self._lock, self._free = threading.Lock(), threading.BoundedSemaphore(self._count)


class _Worker:
    """One process, which answers a line of JSON with another."""

    def __init__(self, function: str) -> None:
        command = [sys.executable, "-c", _CODE, function, *sys.path]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def ask(self, request: dict[str, Any], deadline: float) -> dict[str, Any]:
        """Its reply; ``ended`` stands in it when the process has to be dropped. Raises CallTimeout."""
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            line = self._line(deadline)
        except (OSError, ValueError):
            line = b""
        if line:
            return json.loads(line)
        return {"error": f"the worker process ended (exit status {self._process.wait()})", "ended": True}

    def _line(self, deadline: float) -> bytes:
        # Not select.select, which takes no descriptor above 1023.
        ready = select.poll()
        ready.register(self._process.stdout, select.POLLIN)
        line = b""
        while not line.endswith(b"\n"):
            if not ready.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise CallTimeout
            part = self._process.stdout.read(1 << 16)
            if not part:
                return b""
            line += part
        return line

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.close_pipes()

    def close_pipes(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()


def serve(function: str) -> None:
    """A worker's whole life: requests from standard input, a line each, until it closes."""
    import resource
    import signal

    # Ctrl-C is the caller's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    # What a library prints must not get between replies.
    os.dup2(2, 1)

    def reply(**content: Any) -> None:
        replies.write(json.dumps(content).encode() + b"\n")

    limits = json.loads(sys.stdin.buffer.readline() or "{}")
    module, _, name = function.partition(":")
    try:
        called = getattr(importlib.import_module(module), name)
        # Not before the imports, which may reserve more than they use.
        given = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = limits["memory_bytes"] if given < 0 else min(given, limits["memory_bytes"])
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except Exception as error:
        return reply(error=f"{type(error).__name__}: {error}", ended=True)
    reply(result=None)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    for line in sys.stdin.buffer:
        request = json.loads(line)
        # The caller's clock kills first; this one is for a caller that is gone.
        usage = resource.getrusage(resource.RUSAGE_SELF)
        soft = math.ceil(usage.ru_utime + usage.ru_stime + request["seconds"]) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (soft if hard < 0 else min(soft, hard), hard))
        try:
            result = called(*request["arguments"])
        except MemoryError:
            return reply(error="MemoryError", ended=True)
        except Exception as error:
            reply(error=f"{type(error).__name__}: {error}"[:500])
        else:
            # What caches hold counts against the next call's memory.
            reply(result=result, ended=_resident() > limits["memory_bytes"] // 4)


def _resident() -> int:
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
