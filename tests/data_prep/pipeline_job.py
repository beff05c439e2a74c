"""A job for the tests of the pipeline; ``python pipeline_job.py FOLDER PARTS`` runs it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from data_prep.common.funnel import Funnel
from data_prep.common.pipeline import run_parts


def squares(payload: dict[str, Any], path: Path) -> Funnel:
    """Write the squares of a range in two halves; odd numbers are dropped and counted."""
    funnel = Funnel()
    stage = funnel.stage("even", "numbers")
    numbers = range(payload["start"], payload["stop"])
    with path.open("w") as stream:
        for number in numbers:
            if number % 2:
                stage.drop("odd", {"number": number})
            else:
                stage.keep()
                stream.write(f"{number * number}\n")
                stream.flush()
                time.sleep(payload.get("pause", 0.0))
    if payload.get("fail"):
        raise ValueError("a planted failure")
    return funnel


def parts(count: int, pause: float = 0.0) -> list[dict[str, Any]]:
    return [{"start": 10 * number, "stop": 10 * number + 10, "pause": pause} for number in range(count)]


def text(done: list) -> str:
    return "".join(part.path.read_text() for part in done)


if __name__ == "__main__":
    run_parts(Path(sys.argv[1]), parts(int(sys.argv[2]), 0.02), squares, title="squares", workers=2)
