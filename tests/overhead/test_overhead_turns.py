"""The two jobs take turns, step by step."""

import threading

import pytest

from bench.overhead.turns import Turns, whose_turn


def test_neither_job_is_always_the_first_of_a_round():
    order = [whose_turn(done) for done in range(8)]
    assert order == [0, 1, 1, 0, 0, 1, 1, 0]


def test_steps_alternate_and_none_overlaps(tmp_path):
    made, working = [], threading.Lock()

    def job(number):
        turns = Turns(tmp_path, number, steps=4, timeout=20)
        turns.next()
        for _ in range(4):
            assert working.acquire(blocking=False), "both jobs work"
            made.append(number)
            working.release()
            turns.next()

    threads = [threading.Thread(target=job, args=(number,)) for number in (1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert made == [0, 1, 1, 0, 0, 1, 1, 0]


def test_a_job_waits_for_the_other_to_be_ready(tmp_path):
    with pytest.raises(RuntimeError, match="waited 0 s"):
        Turns(tmp_path, 0, steps=2, timeout=0).next()


def test_a_job_ends_when_the_other_stopped(tmp_path):
    (tmp_path / "stop").touch()
    with pytest.raises(RuntimeError, match="the other job of the benchmark stopped"):
        Turns(tmp_path, 1, steps=2, timeout=20).next()
