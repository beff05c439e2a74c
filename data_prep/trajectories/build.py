"""Second pass: the runs of each group, masked for all its patches, become pairs; what fails drops the whole group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contextrl_verl.pairs import ARROW_SCHEMA, Context, ContrastivePair, Message
from data_prep.common.funnel import Funnel
from data_prep.common.redact import redact, redact_messages
from data_prep.trajectories.elide import elide
from data_prep.trajectories.evidence import evidence_lines
from data_prep.trajectories.masking import mask_run
from data_prep.trajectories.placeholders import PATCH_MASKED
from data_prep.trajectories.run import AgentRun
from data_prep.trajectories.scan import stored_run
from data_prep.trajectories.tokens import TokenCount, token_counter
from data_prep.verify.rules import distinctive_lines

QUERY = (
    "A coding agent worked on an issue of {repository} and submitted a patch. The contexts are records of such work on "
    "different issues, with the edits hidden. Which record led to the patch below?"
)
# What a prompt puts around a turn: its role and line breaks.
TURN_TOKENS = 6


def build_part(payload: dict[str, Any], path: Path) -> Funnel:
    """Build the pairs of ``payload["chosen"]`` and write them as Parquet, in order.

    A group is ``{"stored": [places of runs], "places": [[file, symbol]], "split", "shared"}``. The stage
    ``masked_lines`` counts lines of patches that were masked besides the edits.
    """
    funnel = Funnel()
    for name in ("mask", "budget", "length"):
        funnel.stage(name, "couples")
    count = token_counter(payload["tokenizer"])
    with pq.ParquetWriter(path, ARROW_SCHEMA, compression="zstd") as writer:
        for group in payload["chosen"]:
            if rows := [pair.to_row() for pair in _build_group(group, count, payload, funnel)]:
                writer.write_table(pa.Table.from_pylist(rows, schema=ARROW_SCHEMA))
    return funnel


def _build_group(
    group: dict[str, Any], count: TokenCount, payload: dict[str, Any], funnel: Funnel
) -> list[ContrastivePair]:
    runs = [stored_run(*stored) for stored in group["stored"]]
    patches = [run.patch for run in runs]

    def drop(stage: str, reason: str) -> list[ContrastivePair]:
        funnel.stage(stage).drop(reason, {"runs": [run.run_id for run in runs]})
        return []

    masked = [mask_run(run, *patches) for run in runs]
    if any(found.left for found in masked):
        return drop("mask", "a line of the patch is still there")
    funnel.stage("mask").keep()
    hidden = [_hide(found.messages, patches) for found in masked]
    contexts: list[Context] = []
    for messages, _ in hidden:
        # Secrets first: a mark must not be cut in two, and the evidence's line numbers must be those of the text cut.
        messages = redact_messages(messages)
        evidence = evidence_lines(messages, group["places"], patches)
        fitted = elide(messages, payload["max_tokens"], evidence, count, per_message=TURN_TOKENS)
        if fitted is None:
            return drop("budget", "the evidence alone exceeds the token budget")
        contexts.append(Context(kind="messages", messages=list(fitted)))
    funnel.stage("budget").keep()
    sizes = [sum(len(turn.content) for turn in context.messages or ()) for context in contexts]
    if max(sizes) > payload["length_ratio"] * min(sizes):
        return drop("length", f"longest over shortest context above {payload['length_ratio']:g}")
    funnel.stage("length").keep()
    leaked = sum(found.leaked_lines_masked for found in masked) + sum(count for _, count in hidden)
    funnel.stage("masked_lines", "lines").keep(leaked)
    return [_pair(group, runs, contexts, index) for index in range(len(runs))]


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
