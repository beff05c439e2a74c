"""What all our rows for verl's trainer have in common: columns, files (all or none), summary, and what a command says.

The trainer joins files of rows into one table, and a struct must then have the same fields in all of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from pydantic import BaseModel, ConfigDict, Field

from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.whole_file import whole_file, write_whole
from data_prep.common.funnel import Funnel
from data_prep.report.text import print_stages
from data_prep.trajectories import elide

ROWS_PER_GROUP = 200
_BYTES_PER_GROUP = 64 << 20
# What does not fit a kind of row is null: run_id for pictures; picture, item and tolerance for runs; the last six for
# everything but issues. JSON: instance, with which an agent loop of the user sets up and tests a repository, and task,
# with which ours does.
EXTRA_INFO = pa.struct(
    [
        ("index", pa.int64()),
        *((name, pa.string()) for name in ("run_id", "kind", "split", "question", "picture", "item")),
        ("tolerance", pa.float64()),
        ("num_options", pa.int64()),
        *((name, pa.string()) for name in ("instance_id", "repo", "base_commit", "image_name", "instance", "task")),
    ]
)
COLUMNS = [
    ("data_source", pa.string()),
    ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
    ("ability", pa.string()),
    ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
    ("extra_info", EXTRA_INFO),
]
AGENT = ("agent_name", pa.string())
IMAGES = ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())])))


class RowSettings(BaseModel):
    """What all commands know.

    Attributes:
        validation: share of pictures, or of what ``split_by`` names, whose rows are for validation.
        max_tokens: of a prompt, pictures not counted, as ``tokenizer`` counts them; ``""``: an estimate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    validation: float = Field(0.1, ge=0, lt=1)
    max_tokens: int = Field(8000, ge=200)
    tokenizer: str = ""
    split_by: Literal["instance", "repository"] = "instance"
    seed: int = 1


def make_row(data_source: str, prompt: str, ability: str, answer: str, **extra_info: Any) -> dict[str, Any]:
    """A row of :data:`COLUMNS`; what ``extra_info`` leaves out is null."""
    return {
        "data_source": data_source,
        "prompt": [{"role": "user", "content": prompt}],
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": extra_info,
    }


def check_out(out: Path, validation: float | None = None) -> None:
    """Raises ConfigError for a name that is no Parquet file's, and for another run's rows beside it that would stay."""
    if out.suffix != ".parquet":
        raise ConfigError(f"--out is {out}. Fix: the rows are Parquet; give a name that ends in .parquet.")
    if validation == 0 and (other := validation_file(out)).exists():
        raise ConfigError(
            f"{other} is there from another run, and what it holds would now be trained on. Fix: move it away."
        )


def validation_file(out: Path) -> Path:
    """Where the rows for validation go: ``rows.validation.parquet`` beside ``rows.parquet``."""
    return out.with_suffix(".validation.parquet")


def write_row_files(files: Mapping[Path, Iterable[dict[str, Any]]], schema: pa.Schema) -> None:
    """Write rows to each of the Parquet files, one after the other; no file takes its name before all are written."""
    with ExitStack() as leaving:
        for path, rows in files.items():
            with pq.ParquetWriter(leaving.enter_context(whole_file(path)), schema, compression="zstd") as writer:
                for batch in _batches(rows):
                    writer.write_table(pa.Table.from_pylist(batch, schema))


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(image["bytes"]) for image in row.get("images") or ())
        if len(batch) == ROWS_PER_GROUP or size >= _BYTES_PER_GROUP:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def reasons(funnel: Funnel) -> str:
    """The most frequent reasons of every stage for leaving things out, in one line."""
    worst = [f"{stage.name}: {reason} ({n})" for stage in funnel for reason, n in stage.dropped.most_common(3)]
    return "; ".join(worst) or "nothing was dropped"


def write_summary(out: Path, funnel: Funnel, splits: Iterable[str], **facts: Any) -> dict[str, Any]:
    """Write ``rows.summary.json`` beside ``rows.parquet`` and return it; ``splits`` are those of every row."""
    counts = Counter(splits)
    stages = [stage.summary() for stage in funnel]
    summary = {"rows": counts.total(), "splits": dict(sorted(counts.items())), **facts, "stages": stages}
    write_whole(out.with_suffix(".summary.json"), json.dumps(summary, indent=2) + "\n")
    return summary


def tell(summary: dict[str, Any], out: Path) -> None:
    """Print the stages of a summary with what each dropped, and the rows of each split."""
    shares = ", ".join(f"{count} {split}" for split, count in summary["splits"].items())
    print_stages(f"{summary['rows']} rows", summary["stages"])
    typer.echo(f"{out}: {summary['rows']} rows ({shares})")


def token_counter(name: str = "") -> Callable[[str], int]:
    """Counts the tokens of a text with the tokenizer of that name or folder, or estimates them; raises ConfigError."""
    count = elide.token_counter(name)
    return lambda text: count([text])[0]
