"""The pool of worker processes: limits hold, the next call is served, and nobody is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from reward_fns.bounded_pool import BoundedPool, CallFailed, CallTimeout

HERE = Path(__file__).parent


def echo(value: Any) -> Any:
    print("what a library prints is no reply")
    return value


def spin() -> None:
    while True:
        pass


def grow() -> int:
    return len(bytearray(1 << 40))


def die() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def fail() -> None:
    raise KeyError("nothing here")


def hoard(kept: list[bytes] = []) -> int:  # noqa: B006
    kept.append(os.urandom(300 << 20))
    return os.getpid()


def of_this_file(name: str, **settings: Any) -> BoundedPool:
    return BoundedPool(f"test_bounded_pool:{name}", **settings)


def workers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        # A child of another test's may have ended.
        with suppress(psutil.NoSuchProcess):
            found += [child] if "bounded_pool" in " ".join(child.cmdline()) else []
    return found


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # A worker gets the caller's sys.path.
    monkeypatch.syspath_prepend(str(HERE))
    known = {process.pid for process in workers()}
    yield
    assert {process.pid for process in workers()} <= known


@pytest.fixture
def pool() -> Iterator[BoundedPool]:
    pool = BoundedPool("test_bounded_pool:echo", workers=2)
    yield pool
    pool.close()


def test_a_call_over_its_limit_is_killed_and_the_next_is_served() -> None:
    pool = of_this_file("spin")
    for _ in range(2):
        with pytest.raises(CallTimeout):
            pool.call(0.2)
        assert not pool._all
    pool.close()


@pytest.mark.parametrize(
    ("name", "message"),
    [("grow", "MemoryError"), ("die", "exit status -11"), ("fail", "KeyError: 'nothing here'")],
)
def test_a_call_that_fails_says_why(name: str, message: str) -> None:
    pool = of_this_file(name)
    for _ in range(2):
        with pytest.raises(CallFailed, match=message):
            pool.call(60)
    pool.close()


def test_a_worker_is_kept_until_it_holds_too_much(pool: BoundedPool) -> None:
    assert [pool.call(60, {"a": [1, "é\n"]}) for _ in range(3)] == [{"a": [1, "é\n"]}] * 3
    assert len(pool._all) == 1
    hoarder = of_this_file("hoard", memory_bytes=1 << 30)
    assert hoarder.call(60) != hoarder.call(60)
    hoarder.close()


def test_a_worker_that_somebody_killed_is_replaced(pool: BoundedPool) -> None:
    pool.call(60, 1)
    (worker,) = pool._all
    worker._process.kill()
    worker._process.wait()
    assert pool.call(60, 2) == 2


def test_threads_share_a_few_workers(pool: BoundedPool) -> None:
    results: list[int] = []
    threads = [threading.Thread(target=lambda n=n: results.append(pool.call(60, n))) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(20))
    assert 1 <= len(pool._all) <= 2


def test_one_that_hangs_does_not_keep_the_others_waiting() -> None:
    pool = BoundedPool("time:sleep", workers=2)

    def hold() -> None:
        with contextlib.suppress(CallTimeout, CallFailed, RuntimeError):
            pool.call(60, 600)

    held = threading.Thread(target=hold)
    held.start()
    for _ in range(3):
        assert pool.call(60, 0) is None
    assert held.is_alive()
    pool.close()
    held.join()


def test_from_asyncio(pool: BoundedPool) -> None:
    async def ask() -> list[int]:
        return await asyncio.gather(*(asyncio.to_thread(pool.call, 60, n) for n in range(8)))

    assert asyncio.run(ask()) == list(range(8))


def _in_daemon(answers: Any, pool: BoundedPool | None) -> None:
    pool = pool or BoundedPool("test_bounded_pool:echo")
    answers.put((os.getpid(), pool.call(60, "from a daemon"), [worker._process.pid for worker in pool._all]))
    pool.close()


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_in_a_daemonic_process(pool: BoundedPool, method: str) -> None:
    # multiprocessing gives such a process no children; a forked one must leave its parent's workers alone.
    pool.call(60, "from the parent")
    theirs = [worker._process.pid for worker in pool._all]
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    process = context.Process(target=_in_daemon, args=(answers, pool if method == "fork" else None), daemon=True)
    process.start()
    _, said, its_workers = answers.get(timeout=120)
    process.join()
    assert said == "from a daemon"
    assert not set(theirs) & set(its_workers)
    assert pool.call(60, "still there") == "still there"


_DIES = """
import os, sys, threading, time
from reward_fns.bounded_pool import BoundedPool
pool = BoundedPool(f"test_bounded_pool:{sys.argv[1]}")
threading.Thread(target=pool.call, args=(2, *sys.argv[2:])).start()
while not pool._all:
    time.sleep(0.01)
time.sleep(2)
print(*(worker._process.pid for worker in pool._all), flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("call", [["echo", "idle"], ["spin"]])
def test_a_worker_ends_with_its_caller(call: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _DIES, *call]
    caller = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    pid = int(caller.stdout.readline())
    caller.wait()
    caller.stdout.close()
    left = [psutil.Process(pid)] if psutil.pid_exists(pid) else []
    assert psutil.wait_procs(left, 60)[1] == []


def test_a_package_that_is_missing_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="no_such_package"):
        BoundedPool("no_such_package:f").call(1)


def test_a_worker_that_cannot_start_is_no_failed_call() -> None:
    with pytest.raises(RuntimeError, match="A worker for json:no_such_function cannot start: AttributeError"):
        BoundedPool("json:no_such_function").call(1)
