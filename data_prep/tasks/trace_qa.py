"""Rows for verl's trainer: a run's transcript, a question about it, and the exact answer."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from tqdm import tqdm

from data_prep.common.funnel import Funnel
from data_prep.tasks.questions import KINDS, Question, Unasked
from data_prep.tasks.rows import COLUMNS, check_out, estimated_tokens, reasons, write_row_files, write_summary
from data_prep.tasks.trace import Step, render, steps_of
from data_prep.trajectories.readers import Rejected, open_source
from data_prep.trajectories.run import AgentRun, TrajectoryError
from reward_fns.exact_match import normalise

DATA_SOURCE = "contextrl/exact_match/trace_qa"
_INSTRUCTION = (
    "You are given the record of an agent that worked on a software issue through a shell, step by step. Long parts "
    "are left out where a mark says so. Answer the question about it.\n\n{transcript}\n\nQuestion: {question}\n"
    "Your answer is {form}. End with it, and nothing else, inside <answer></answer>."
)
SCHEMA = pa.schema(COLUMNS)
_STAGES = (("runs",), ("questions", "questions"), ("rows", "questions"))


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


def trace_qa(
    source: Path,
    out: Path,
    options: Options,
    tokens: Callable[[str], int] = estimated_tokens,
    progress: bool = True,
) -> dict[str, Any]:
    """Write the rows of all runs of ``source`` to ``out`` (Parquet) and a summary beside it; the summary is returned.

    Raises TrajectoryError when there is nothing to read or no question can be asked, ConfigError for a bad ``out``;
    nothing is left under the name of ``out`` then.
    """
    check_out(out)
    funnel = Funnel()
    kinds: Counter[str] = Counter()
    splits: list[str] = []

    def rows() -> Iterator[dict[str, Any]]:
        for index, row in enumerate(_rows(source, options, tokens, funnel, kinds, progress)):
            row["extra_info"]["index"] = index
            splits.append(row["extra_info"]["split"])
            yield row
        funnel.check()
        if not splits:
            raise TrajectoryError(f"{source}: no question could be asked; {reasons(funnel)}")

    write_row_files({out: rows()}, SCHEMA)
    return write_summary(out, funnel, splits, kinds=kinds)


def _rows(
    source: Path,
    options: Options,
    tokens: Callable[[str], int],
    funnel: Funnel,
    kinds: Counter[str],
    progress: bool,
) -> Iterator[dict[str, Any]]:
    read, asked, fitted = (funnel.stage(*names) for names in _STAGES)
    seen: set[str] = set()
    for located in tqdm(open_source(source), unit="run", disable=not progress):
        run = located.run
        if isinstance(run, Rejected):
            read.drop(run.reason, {**run.location._asdict(), "detail": run.detail})
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
                elif not normalise(question.answer):
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


def _chosen(made: list[Question], most: int, kinds: Counter[str], draw: random.Random) -> list[Question]:
    """At most ``most``, first of the kinds that are rarest so far, one of a kind before a second one."""
    rank: Counter[str] = Counter()
    keyed = []
    for question in draw.sample(made, len(made)):
        keyed.append((rank[question.kind], kinds[question.kind], question))
        rank[question.kind] += 1
    return [question for *_, question in sorted(keyed, key=lambda key: key[:2])[:most]]


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
