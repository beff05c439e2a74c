"""Rows for verl's trainer: a run's transcript, a question about it, and the exact answer."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

import contextrl_verl
from contextrl_verl.errors import ConfigError
from data_prep.common.funnel import Funnel
from data_prep.common.pipeline import describe_inputs, fingerprint, remove, run_parts, total
from data_prep.common.splits import draw
from data_prep.tasks import rows
from data_prep.tasks.item import NO_WORD
from data_prep.tasks.questions import KINDS, Question
from data_prep.tasks.transcript import Step, renderings, steps_of
from data_prep.trajectories.passes import PART_BYTES, plan_scan
from data_prep.trajectories.readers import Rejected, parse_record
from data_prep.trajectories.readers.files import Span, list_files, span_records
from data_prep.trajectories.readers.records import MAX_RECORD_BYTES
from data_prep.trajectories.run import AgentRun
from reward_fns.short_answer import normalise

DATA_SOURCE = "contextrl/exact_match/trace_qa"
_INSTRUCTION = (
    "You are given the record of an agent that worked on a software issue through a shell, step by step. Long parts "
    "are left out where a mark says so. Answer the question about it.\n\n{transcript}\n\nQuestion: {question}\n"
    "Your answer is {form}. End with it, and nothing else, inside <answer></answer>."
)


# A packed file cannot be cut: several workers read it, and each asks about its share of the runs.
_SHARES, _SHARE_BYTES = 8, 1 << 20
_SCHEMA = pa.schema(rows.COLUMNS)


class TraceSettings(rows.RowSettings):
    """What rows to make; ``per_run``: at most so many questions over one run."""

    per_run: int = Field(4, ge=1)


def trace_rows(source: Path, out: Path, settings: TraceSettings, **run: Any) -> dict[str, Any]:
    """Write the rows of all runs of ``source`` to ``out`` (Parquet) and a summary beside it; the summary is returned.

    A killed job goes on where it was. ``run`` is what :func:`data_prep.common.pipeline.run_parts` takes.

    Raises ConfigError when no question can be asked, or for a bad ``out``, and what the readers raise when there is
    nothing to read; nothing is left under the name of ``out`` then.
    """
    rows.check_out(out)
    parts = []
    for part in plan_scan(source, {"format": "auto", "settings": settings.model_dump()}):
        size = sum(min(Path(file).stat().st_size, PART_BYTES) for file, _ in part["spans"])
        shares = min(_SHARES, 1 + size // _SHARE_BYTES)
        parts += [{**part, "share": [share, shares]} for share in range(shares)]
    files = describe_inputs([path for path, _ in list_files(source)])
    folder = out.with_name(f".{out.name}.work") / fingerprint([contextrl_verl.__version__, files, parts])
    done = run_parts(folder, parts, _part, title="Asking questions", **run)
    funnel, splits, kinds = total(done), [], Counter()
    distinct = funnel.stage("distinct", "questions")

    def made() -> Iterator[dict[str, Any]]:
        part_of: dict[str, int] = {}
        for number, part in enumerate(done):
            for batch in pq.ParquetFile(part.path).iter_batches(batch_size=rows.ROWS_PER_GROUP):
                for row in batch.to_pylist():
                    known = row["extra_info"]
                    if part_of.setdefault(known["run_id"], number) != number:
                        distinct.drop("the same run again", {"run": known["run_id"]})
                        continue
                    distinct.keep()
                    known["index"] = len(splits)
                    splits.append(known["split"])
                    kinds[known["kind"]] += 1
                    yield row

    if funnel.stage("rows", "questions").left:
        rows.write_row_files({out: made()}, _SCHEMA)
    remove(folder.parent)
    funnel.check()
    if not splits:
        said = f"{source}: no question could be asked; {rows.reasons(funnel)}."
        raise ConfigError(f"{said} Fix: give other runs, or more --max-tokens.")
    return rows.write_summary(out, funnel, splits, kinds=dict(sorted(kinds.items())))


def _part(payload: dict[str, Any], path: Path) -> Funnel:
    """Write the rows of a share of the runs of the payload's spans."""
    maker = _Maker(TraceSettings(**payload["settings"]))
    raw = (
        record for file, span in payload["spans"] for record in span_records(Path(file), Span(*span), MAX_RECORD_BYTES)
    )
    runs = (parse_record(record) for record in islice(raw, payload["share"][0], None, payload["share"][1]))
    rows.write_row_files({path: (row for run in runs for row in maker.rows_of(run))}, _SCHEMA)
    return maker.funnel


class _Maker:
    """Makes rows run by run, so that all kinds of questions become about as frequent."""

    def __init__(self, settings: TraceSettings) -> None:
        self.settings, self.tokens = settings, rows.token_counter(settings.tokenizer)
        self.funnel, self.kinds, self.offered, self.seen = Funnel(), Counter(), Counter(), set()
        self.read = self.funnel.stage("runs", "runs")
        self.asked, self.fitted = (self.funnel.stage(name, "questions") for name in ("questions", "rows"))

    def rows_of(self, run: AgentRun | Rejected) -> Iterator[dict[str, Any]]:
        """The rows of a run; what is left out is counted."""
        if isinstance(run, Rejected):
            self.read.drop(run.reason, {**run.location._asdict(), "detail": run.detail})
            return
        steps, again = steps_of(run), run.run_id in self.seen
        if again or len(steps) < 3:
            reason = "the same run again" if again else "fewer than three commands with an exit code"
            self.read.drop(reason, {"run": run.run_id})
            return
        self.seen.add(run.run_id)
        self.read.keep()
        chance = random.Random(f"{self.settings.seed}/{run.run_id}")
        for kind, question in self._chosen(list(self._questions(steps, chance)), chance):
            prompt = self._prompt(run, steps, question)
            if prompt is None:
                self.fitted.drop("the transcript does not fit the budget", {"run": run.run_id, "kind": kind})
                continue
            self.fitted.keep()
            self.kinds[kind] += 1
            yield rows.make_row(
                DATA_SOURCE, prompt, "long_context", question.answer, run_id=run.run_id, kind=kind,
                split=split_of(run, self.settings), question=question.text,
            )  # fmt: skip

    def _questions(self, steps: list[Step], chance: random.Random) -> Iterator[tuple[str, Question]]:
        for kind, ask in KINDS.items():
            for question in ask(steps, chance):
                if isinstance(question, str) or not normalise(question.answer):
                    self.asked.drop(f"{kind}: {question if isinstance(question, str) else NO_WORD}")
                else:
                    self.asked.keep()
                    yield kind, question

    def _chosen(self, made: list[tuple[str, Question]], chance: random.Random) -> list[tuple[str, Question]]:
        """At most ``per_run``, first of the kinds that are rarest so far, one of a kind before a second one."""
        rank: Counter[str] = Counter()
        self.offered.update({kind for kind, _ in made})
        keyed = []
        for kind, question in chance.sample(made, len(made)):
            keyed.append((rank[kind], self.kinds[kind], self.offered[kind], kind, question))
            rank[kind] += 1
        chosen = sorted(keyed, key=lambda key: key[:3])[: self.settings.per_run]
        if len(made) > len(chosen):
            self.fitted.drop("more than are taken of one run", count=len(made) - len(chosen))
        return [(kind, question) for *_, kind, question in chosen]

    def _prompt(self, run: AgentRun, steps: list[Step], question: Question) -> str | None:
        """The longest prompt within the budget; None if there is none."""
        texts = renderings(steps, run.issue, question.evidence)
        prompts = (_INSTRUCTION.format(transcript=text, question=question.text, form=question.form) for text in texts)
        return next((prompt for prompt in prompts if self.tokens(prompt) <= self.settings.max_tokens), None)


def split_of(run: AgentRun, settings: TraceSettings) -> str:
    """``validation`` or ``train``: the same for all runs of an instance (or repository)."""
    unit = run.instance_id if settings.split_by == "instance" else run.repository
    share = int.from_bytes(draw(settings.seed, "split", unit), "big") / 2**64
    return "validation" if share < settings.validation else "train"
