"""Ways to damage a record: each takes a JSON value and gives bytes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

LIMIT = 60_000
JUNK: list[Any] = [None, True, 0, -1, 1e308, "", "\0", "x" * 300, [], {}, [[]], {"a": {}}, ["x"], "\u2028", 10**30, "{"]


def a_path(value: Any, rng: Random) -> list[Any]:
    """The keys to some place inside a JSON value."""
    path: list[Any] = []
    while isinstance(value, (dict, list)) and value and (not path or rng.random() < 0.8):
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        path.append(key)
        value = value[key]
    return path


def change_value(record: Any, rng: Random) -> bytes:
    """Another type, a missing field, a huge field, at any depth."""
    record = copy.deepcopy(record)
    for _ in range(rng.choice([1, 1, 2, 4])):
        path = a_path(record, rng)
        if not path:
            break
        place = record
        for key in path[:-1]:
            place = place[key]
        what = rng.random()
        if what < 0.2:
            del place[path[-1]]
        elif what < 0.25:
            place[path[-1]] = "y" * rng.choice([LIMIT // 2, LIMIT * 2])
        else:
            place[path[-1]] = rng.choice(JUNK)
    return json.dumps(record, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def cut(record: Any, rng: Random) -> bytes:
    data = json.dumps(record).encode()
    return data[: rng.randrange(len(data))]


def other_encoding(record: Any, rng: Random) -> bytes:
    text = json.dumps(record, ensure_ascii=False)
    return text.encode(rng.choice(["utf-16", "latin-1", "utf-32", "cp1252", "utf-8-sig"]), "replace")


def flipped(record: Any, rng: Random) -> bytes:
    data = bytearray(json.dumps(record).encode())
    for _ in range(rng.choice([1, 3, 50])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def junk(record: Any, rng: Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 2000))


def shuffled(record: Any, rng: Random) -> bytes:
    data = json.dumps(record).encode()
    one, two = sorted(rng.randrange(len(data)) for _ in range(2))
    return data[:one] + data[two:] + data[one:two]


MUTATIONS: list[Callable[[Any, Random], bytes]] = [change_value] * 4 + [cut, other_encoding, flipped, junk, shuffled]
