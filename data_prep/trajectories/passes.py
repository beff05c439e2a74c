"""The two passes over runs, each in parts.

The first makes a light record or a counted drop of every record of the source. The runs themselves are stored with
them, compressed, a few to a row group, so that no later step reads, unpacks or replays anything of the source again.
The second makes pairs of the runs of each group, masked for all its patches; what fails drops the whole group.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contextrl_verl.pairs import ARROW_SCHEMA, Context, ContrastivePair, Message
from data_prep.common.funnel import Funnel
from data_prep.common.redact import redact, redact_messages
from data_prep.trajectories.edited_symbols import PatchError, touched
from data_prep.trajectories.elide import TokenCount, elide, evidence_lines, token_counter
from data_prep.trajectories.masking import mask_run
from data_prep.trajectories.readers import check_format, load_task_patches, parse_record
from data_prep.trajectories.readers.files import Span, file_spans, list_files, span_records
from data_prep.trajectories.readers.records import Rejected
from data_prep.trajectories.run import PATCH_MASKED, AgentRun
from data_prep.verify.rules import distinctive_lines

QUERY = (
    "A coding agent worked on an issue of {repository} and submitted a patch. The contexts are records of such work on "
    "different issues, with the edits hidden. Which record led to the patch below?"
)
# What a prompt puts around a turn: its role and line breaks.
TURN_TOKENS = 6
PART_BYTES = 32 << 20
_FILES_PER_PART = 256
# Of the runs that are read together with a wanted one.
_RUNS_PER_GROUP = 16
_NAMES = ("run_id", "instance_id", "repository", "commit")
_LIGHT = {
    **dict.fromkeys(_NAMES, pa.string()),
    "places": pa.list_(pa.list_(pa.string())),
    "word_ids": pa.list_(pa.int64()),
    "word_counts": pa.list_(pa.float32()),
    "added": pa.list_(pa.int64()),
}
SCHEMA = pa.schema({**_LIGHT, "run": pa.large_string()})

_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]{2,}")
_NUMBER = re.compile(r"(\d+)$")
_MOST_WORDS = 400


@dataclass(frozen=True)
class Light:
    """What the cascade needs to know of a run: a few hundred bytes, so that a hundred thousand runs fit in memory.

    ``stored`` is what :func:`stored_run` takes, ``places`` are (file, symbol, kind) as in ``edited_symbols.Place``;
    ``words`` and ``added`` are what :func:`issue_words` and :func:`added_lines` give.
    """

    run_id: str
    instance_id: str
    repository: str
    commit: str
    stored: tuple[str, int]
    places: tuple[tuple[str, str, str], ...]
    words: tuple[np.ndarray, np.ndarray]
    added: frozenset[int]

    @property
    def number(self) -> int | None:
        """The number an instance id ends in: of a pull request, so it grows with time."""
        found = _NUMBER.search(self.instance_id)
        return int(found.group(1)) if found else None

    @property
    def files(self) -> set[str]:
        """The files that the patch edits."""
        return {file for file, *_ in self.places}


def digest32(text: str) -> int:
    """A stable 32-bit digest."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")


def issue_words(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids (int64, ascending) and counts (float32) of the most frequent words of an issue, lower case, identifiers whole
    and by their parts."""
    counts: Counter[str] = Counter()
    for word in _WORD.findall(text.lower()):
        parts = [part for part in word.split("_") if len(part) > 2]
        counts.update([word, *(parts if len(parts) > 1 else ())])
    merged: Counter[int] = Counter()
    for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST_WORDS]:
        merged[digest32(word)] += count
    ids = np.array(sorted(merged), dtype=np.int64)
    return ids, np.array([merged[int(word)] for word in ids], dtype=np.float32)


def added_lines(patch: str) -> frozenset[int]:
    """Digests of the added lines, without white space; short ones such as ``else:`` do not count."""
    lines = (re.sub(r"\s", "", line[1:]) for line in patch.splitlines() if line[:1] == "+" and line[:4] != "+++ ")
    return frozenset(digest32(line) for line in lines if len(line) >= 8)


def plan_scan(source: str | Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Payloads for :func:`scan_part`: pieces of large files, several small files together."""
    check_format(settings["format"])
    parts: list[list[tuple[str, Span]]] = [[]]
    held = 0
    for path, name in list_files(source):
        size = min(path.stat().st_size, PART_BYTES)
        for span in file_spans(path, name, PART_BYTES):
            if held + size > PART_BYTES or len(parts[-1]) == _FILES_PER_PART:
                parts.append([])
                held = 0
            parts[-1].append((str(path), span))
            held += size
    return [{"spans": part, **settings} for part in parts]


def scan_part(payload: dict[str, Any], path: Path) -> Funnel:
    """Read the spans of a payload and write light records with their runs as Parquet."""
    funnel = Funnel()
    rows = _light_rows(payload, funnel)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        while held := list(islice(rows, _RUNS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(held, SCHEMA))
    return funnel


def _light_rows(payload: dict[str, Any], funnel: Funnel) -> Iterator[dict[str, Any]]:
    read, patch = funnel.stage("read"), funnel.stage("patch")
    tasks = load_task_patches(payload["tasks"]) if payload["tasks"] else None
    for file, span in payload["spans"]:
        for raw in span_records(Path(file), Span(*span), payload["max_record_bytes"]):
            where, stage = raw.location._asdict(), read
            try:
                run = parse_record(raw, payload["format"], tasks=tasks, replay=payload["replay"])
                if isinstance(run, Rejected):
                    read.drop(run.reason, {**where, "detail": run.detail})
                    continue
                read.keep()
                stage, where = patch, {"run": run.run_id, **where}
                row = _light_row(run, payload["outcome"])
            except PatchError as error:
                patch.drop(error.args[0], where)
            except Exception as error:
                stage.fail(error, where)
            else:
                patch.keep()
                yield row


def _light_row(run: AgentRun, outcome: str) -> dict[str, Any]:
    """Raises PatchError: the run is not wanted."""
    if outcome not in ("any", run.outcome):
        raise PatchError(f"outcome is {run.outcome}")
    if not (places := touched(run.patch, run)):
        raise PatchError("edits no code")
    ids, counts = issue_words(run.issue)
    return {
        **{name: getattr(run, name) for name in _NAMES},
        "places": sorted(places),
        "word_ids": ids,
        "word_counts": counts,
        "added": sorted(added_lines(run.patch)),
        "run": run.model_dump_json(),
    }


def load_lights(paths: list[Path], funnel: Funnel) -> list[Light]:
    """The light records of all parts in order; the same run twice is kept once."""
    stage = funnel.stage("distinct")
    lights: dict[str, Light] = {}
    for path in paths:
        batches = pq.ParquetFile(path).iter_batches(batch_size=2048, columns=list(_LIGHT))
        for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
            if row["run_id"] in lights:
                stage.drop("the same run again", {"run": row["run_id"]})
                continue
            stage.keep()
            words = (np.array(row.pop("word_ids"), np.int64), np.array(row.pop("word_counts"), np.float32))
            places, added = tuple(map(tuple, row.pop("places"))), frozenset(row.pop("added"))
            light = Light(**row, stored=(str(path), number), places=places, words=words, added=added)
            lights[light.run_id] = light
    return list(lights.values())


def stored_run(file: str, row: int) -> AgentRun:
    """The run that :func:`scan_part` stored in a row of a file."""
    group, index = divmod(row, _RUNS_PER_GROUP)
    return AgentRun.model_validate_json(_texts(file, group)[index])


@lru_cache(maxsize=4)
def _texts(file: str, group: int) -> list[str]:
    """The last groups are kept, for neighbours share them."""
    return pq.ParquetFile(file).read_row_group(group, columns=["run"]).column(0).to_pylist()


def build_part(payload: dict[str, Any], path: Path) -> Funnel:
    """Build the pairs of ``payload["chosen"]`` and write them as Parquet, in order. A group is ``{"stored": [places of
    runs], "places": [[file, symbol]], "split", "shared"}``. The stage ``masked_lines`` counts lines of patches that
    were masked besides the edits."""
    funnel = Funnel()
    count = token_counter(payload["tokenizer"])
    with pq.ParquetWriter(path, ARROW_SCHEMA, compression="zstd") as writer:
        for group in payload["chosen"]:
            if rows := _built(group, count, payload, funnel):
                writer.write_table(pa.Table.from_pylist(rows, schema=ARROW_SCHEMA))
    return funnel


def _built(group: dict[str, Any], count: TokenCount, payload: dict[str, Any], funnel: Funnel) -> list[dict[str, Any]]:
    """Rows of pairs, counted."""
    mask, budget, length = (funnel.stage(name, "couples") for name in ("mask", "budget", "length"))
    runs: list[AgentRun] = []
    stage = mask

    def drop(reason: str) -> list[dict[str, Any]]:
        stage.drop(reason, {"runs": [run.run_id for run in runs]})
        return []

    try:
        runs = [stored_run(*stored) for stored in group["stored"]]
        patches = [run.patch for run in runs]
        masked = [mask_run(run, *patches) for run in runs]
        if any(found.left for found in masked):
            return drop("a line of the patch is still there")
        hidden = [_hide(found.messages, patches) for found in masked]
        mask.keep()
        stage = budget
        contexts: list[Context] = []
        for messages, _ in hidden:
            # Secrets first: a mark must not be cut in two, and the evidence's line numbers are those of the text cut.
            messages = redact_messages(messages)
            evidence = evidence_lines(messages, group["places"], patches)
            fitted = elide(messages, payload["max_tokens"], evidence, count, per_message=TURN_TOKENS)
            if fitted is None:
                return drop("the evidence alone exceeds the token budget")
            contexts.append(Context(kind="messages", messages=list(fitted)))
        budget.keep()
        stage = length
        sizes = [sum(len(turn.content) for turn in context.messages or ()) for context in contexts]
        if max(sizes) > payload["length_ratio"] * min(sizes):
            return drop(f"longest over shortest context above {payload['length_ratio']:g}")
        rows = [_pair(group, runs, contexts, index).to_row() for index in range(len(runs))]
    except Exception as error:
        stage.fail(error, {"runs": [run.run_id for run in runs]})
        return []
    length.keep()
    leaked = sum(found.leaked_lines_masked for found in masked) + sum(count for _, count in hidden)
    funnel.stage("masked_lines", "lines").keep(leaked)
    return rows


def _hide(messages: Sequence[Message], patches: Sequence[str]) -> tuple[list[Message], int]:
    """The turns without any distinctive added line, also where it is older than the patch, and how many went.

    Such a line stood in the issue or in other code the run saw. It is no leak, but it matches the answer word for word,
    so it goes in all contexts of the group alike.
    """
    lines = sorted({line for patch in patches for line in distinctive_lines(patch)}, key=len, reverse=True)
    count, shown = 0, []
    for message in messages:
        text = message.content
        for line in lines:
            count += text.count(line)
            text = text.replace(line, PATCH_MASKED)
        shown.append(Message(role=message.role, content=text))
    return shown, count


def _pair(group: dict[str, Any], runs: list[AgentRun], contexts: list[Context], index: int) -> ContrastivePair:
    """The direction in which run ``index`` supports its own patch."""
    order = [index, *(other for other in range(len(runs)) if other != index)]
    facts = [{"run_id": runs[i].run_id, **runs[i].model_dump(exclude={"issue", "messages", "patch"})} for i in order]
    supporting, *confounders = (contexts[i] for i in order)
    return ContrastivePair(
        pair_id="+".join(runs[i].run_id for i in order),
        domain="trajectory",
        query=QUERY.format(repository=runs[index].repository),
        answer=redact(runs[index].patch),
        supporting=supporting,
        confounders=confounders,
        provenance={"supporting": facts[0], "confounders": facts[1:], "shared": group["shared"]},
        split=group["split"],
    )
