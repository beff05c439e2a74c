"""Rows for verl's trainer: a run's transcript, a question about it, and the exact answer."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from contextrl_verl.pairs.whole_file import write_whole
from data_prep.common.funnel import Funnel
from data_prep.tasks.questions import KINDS, Question, Unasked
from data_prep.tasks.rows import COLUMNS
from data_prep.tasks.trace import Step, render, steps_of
from data_prep.trajectories.readers import open_source
from data_prep.trajectories.readers.types import Rejected
from data_prep.trajectories.run import AgentRun, TrajectoryError

DATA_SOURCE = "contextrl/exact_match/trace_qa"
_INSTRUCTION = (
    "You are given the record of an agent that worked on a software issue through a shell, step by step. Long parts "
    "are left out where a mark says so. Answer the question about it.\n\n{transcript}\n\nQuestion: {question}\n"
    "Your answer is {form}. End with it, and nothing else, inside <answer></answer>."
)
SCHEMA = pa.schema(COLUMNS)
_ROWS_PER_GROUP = 200


@dataclass(frozen=True)
class Options:
    """What rows to make.

    Attributes:
        max_tokens: of a prompt.
        per_run: at most so many questions over one run.
        validation: share of instances, or repositories, whose rows are for validation.
        split_by: what no two splits share.
        seed: of every choice.
    """

    max_tokens: int = 8000
    per_run: int = 4
    validation: float = 0.1
    split_by: Literal["instance", "repository"] = "instance"
    seed: int = 1


def estimated_tokens(text: str) -> int:
    """Words, and every other character by itself: more than what tokenizers of current models make of code."""
    return sum(1 + len(word) // 8 for word in re.findall(r"\w+|[^\w\s]|\n", text))


def trace_qa(
    source: Path,
    out: Path,
    options: Options,
    tokens: Callable[[str], int] = estimated_tokens,
    progress: bool = True,
) -> dict[str, Any]:
    """Write the rows of all runs of ``source`` to ``out`` (Parquet) and a summary beside it; the summary is returned.

    Raises TrajectoryError when there is nothing to read, when no question can be asked, or for a bad ``out``; nothing
    is left under the name of ``out`` then.
    """
    if out.suffix != ".parquet":
        raise TrajectoryError(f"--out {out}: the rows are Parquet; name a file that ends in .parquet")
    funnel = Funnel()
    kinds: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    out.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent)
    os.close(descriptor)
    try:
        with pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
            waiting: list[dict[str, Any]] = []
            for index, row in enumerate(_rows(source, options, tokens, funnel, kinds, progress)):
                row["extra_info"]["index"] = index
                splits[row["extra_info"]["split"]] += 1
                waiting.append(row)
                if len(waiting) == _ROWS_PER_GROUP:
                    writer.write_table(pa.Table.from_pylist(waiting, SCHEMA))
                    waiting.clear()
            if waiting:
                writer.write_table(pa.Table.from_pylist(waiting, SCHEMA))
        funnel.check()
        if not splits:
            raise TrajectoryError(f"{source}: no question could be asked; {_reasons(funnel)}")
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, out)
    finally:
        Path(temporary).unlink(missing_ok=True)
    summary = {
        "rows": sum(splits.values()),
        "splits": dict(sorted(splits.items())),
        "kinds": dict(sorted(kinds.items())),
        "stages": [stage.summary() for stage in funnel],
    }
    write_whole(out.with_suffix(".summary.json"), json.dumps(summary, indent=2) + "\n")
    return summary


def _reasons(funnel: Funnel) -> str:
    worst = [f"{stage.name}: {reason} ({n})" for stage in funnel for reason, n in stage.dropped.most_common(3)]
    return "; ".join(worst) or "it holds no runs"


def _rows(
    source: Path,
    options: Options,
    tokens: Callable[[str], int],
    funnel: Funnel,
    kinds: Counter[str],
    progress: bool,
) -> Iterator[dict[str, Any]]:
    read, asked, fitted = (
        funnel.stage("runs"),
        funnel.stage("questions", "questions"),
        funnel.stage("rows", "questions"),
    )
    seen: set[str] = set()
    for located in tqdm(open_source(source), unit="run", disable=not progress):
        run = located.run
        if isinstance(run, Rejected):
            read.drop(run.reason, {"file": run.location.file, "record": run.location.record, "detail": run.detail})
            continue
        if run.run_id in seen:
            read.drop("the same run again", {"run": run.run_id})
            continue
        seen.add(run.run_id)
        steps = steps_of(run)
        if len(steps) < 3:
            read.drop("fewer than three commands with an exit code", {"run": run.run_id})
            continue
        read.keep()
        draw = random.Random(f"{options.seed}/{run.run_id}")
        made: list[Question] = []
        for kind in KINDS.values():
            for question in kind(steps, draw):
                if isinstance(question, Unasked):
                    asked.drop(f"{question.kind}: {question.reason}")
                elif not _exact(question.answer):
                    asked.drop(f"{question.kind}: the answer has no letter or digit that a comparison would see")
                else:
                    asked.keep()
                    made.append(question)
        chosen = _chosen(made, options.per_run, kinds, draw)
        if len(made) > len(chosen):
            fitted.drop("more than are taken of one run", count=len(made) - len(chosen))
        for question in chosen:
            row = _row(run, steps, question, options, tokens)
            if row is None:
                fitted.drop("the transcript does not fit the budget", {"run": run.run_id, "kind": question.kind})
                continue
            fitted.keep()
            kinds[question.kind] += 1
            yield row


def _exact(answer: str) -> bool:
    from reward_fns.exact_match import normalise

    return bool(normalise(answer))


def _chosen(made: list[Question], most: int, kinds: Counter[str], draw: random.Random) -> list[Question]:
    """At most ``most``, first of the kinds that are rarest so far, one of a kind before a second one."""
    order = draw.sample(made, len(made))
    rank: Counter[str] = Counter()
    keyed = []
    for question in order:
        keyed.append(((rank[question.kind], kinds[question.kind]), question))
        rank[question.kind] += 1
    return [question for _, question in sorted(keyed, key=lambda pair: pair[0])][:most]


def _row(
    run: AgentRun, steps: list[Step], question: Question, options: Options, tokens: Callable[[str], int]
) -> dict[str, Any] | None:
    def prompt(transcript: str) -> str:
        return _INSTRUCTION.format(transcript=transcript, question=question.text, form=question.form)

    transcript = render(steps, run.issue, question.evidence, lambda text: tokens(prompt(text)) <= options.max_tokens)
    if transcript is None:
        return None
    return {
        "data_source": DATA_SOURCE,
        "prompt": [{"role": "user", "content": prompt(transcript)}],
        "ability": "long_context",
        "reward_model": {"style": "rule", "ground_truth": question.answer},
        "extra_info": {
            "index": 0,
            "run_id": run.run_id,
            "kind": question.kind,
            "split": split_of(run, options),
            "question": question.text,
        },
    }


def split_of(run: AgentRun, options: Options) -> str:
    """``validation`` or ``train``: the same for all runs of an instance (or repository)."""
    unit = run.instance_id if options.split_by == "instance" else run.repository
    digest = hashlib.blake2b(f"{options.seed}/{unit}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return "validation" if int.from_bytes(digest, "big") / 2**64 < options.validation else "train"
