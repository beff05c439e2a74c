"""Second pass: the runs of each group, masked for all its patches, become pairs; what fails drops the whole group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contextrl_verl.pairs import ARROW_SCHEMA, Context, ContrastivePair, Message
from data_prep.common.funnel import Funnel, Stage
from data_prep.common.redact import redact, redact_messages
from data_prep.trajectories.elide import elide
from data_prep.trajectories.evidence import evidence_lines
from data_prep.trajectories.masking import mask_run
from data_prep.trajectories.placeholders import PATCH_MASKED
from data_prep.trajectories.run import AgentRun
from data_prep.trajectories.run import Message as Turn
from data_prep.trajectories.scan import stored_run
from data_prep.trajectories.tokens import load_tokenizer
from data_prep.verify.rules import RuleSettings, distinctive_lines

QUERY = (
    "A coding agent worked on an issue of {repository} and submitted a patch. The contexts are records of such work on "
    "different issues, with the edits hidden. Which record led to the patch below?"
)
DOMAIN = "trajectory"
# What a prompt puts around a turn: its role and line breaks.
TURN_TOKENS = 6
PATCH_LINE = RuleSettings().patch_line


def build_part(payload: dict[str, Any], path: Path) -> Funnel:
    """Build the pairs of ``payload["groups"]`` and write them as Parquet, in order.

    A group is ``{"runs": [{"stored", "places"}], "split", "shared"}``.
    """
    funnel = Funnel()
    stages = {name: funnel.stage(name, "couples") for name in ("mask", "budget", "length")}
    funnel.stage("masked_lines", "lines")
    tokenizer = load_tokenizer(payload["tokenizer"]) if payload["tokenizer"] else None
    with pq.ParquetWriter(path, ARROW_SCHEMA, compression="zstd") as writer:
        for group in payload["groups"]:
            rows = [pair.to_row() for pair in _build_group(group, tokenizer, payload, funnel, stages)]
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema=ARROW_SCHEMA))
    return funnel


def _build_group(
    group: dict[str, Any],
    tokenizer: Any,
    payload: dict[str, Any],
    funnel: Funnel,
    stages: dict[str, Stage],
) -> list[ContrastivePair]:
    members = [stored_run(*member["stored"]) for member in group["runs"]]
    sample = {"runs": [run.run_id for run in members]}
    patches = [run.patch for run in members]
    contexts, leaked = [], 0
    for run in members:
        masked = mask_run(run, *patches)
        leaked += masked.leaked_lines_masked
        if masked.left:
            stages["mask"].drop("a line of the patch is still there", sample)
            return []
        messages, hidden = _hide(masked.messages, patches)
        leaked += hidden
        contexts.append(messages)
    stages["mask"].keep()
    names = {name for member in group["runs"] for place in member["places"] for name in place if name}
    shortened: list[Context] = []
    for messages in contexts:
        # Secrets first: a mark must not be cut in two, and the evidence's line numbers must be those of the text cut.
        messages, _ = redact_messages(messages)
        evidence = {line for patch in patches for line in evidence_lines(messages, names, patch)}
        fitted = elide(messages, payload["max_tokens"], evidence, tokenizer, per_message=TURN_TOKENS)
        if fitted.reason:
            stages["budget"].drop(fitted.reason, sample)
            return []
        turns = [Message(role=turn.role, content=_clean(turn.content)) for turn in fitted.messages]
        shortened.append(Context(kind="messages", messages=turns))
    stages["budget"].keep()
    sizes = [sum(len(turn.content) for turn in context.messages or ()) for context in shortened]
    if max(sizes) > payload["length_ratio"] * min(sizes):
        stages["length"].drop(f"longest over shortest context above {payload['length_ratio']:g}", sample)
        return []
    stages["length"].keep()
    funnel.stage("masked_lines", "lines").keep(leaked)
    return [_pair(group, members, shortened, index) for index in range(len(members))]


def _hide(messages: Sequence[Turn], patches: Sequence[str]) -> tuple[tuple[Turn, ...], int]:
    """The turns without any distinctive added line, also where it is older than the patch.

    Such a line stood in the issue or in other code the run saw. It is no leak, but it matches the answer word for word,
    so it goes in all contexts of the group alike.
    """
    lines = sorted({line for patch in patches for line in distinctive_lines(patch, PATCH_LINE)}, key=len, reverse=True)
    count = 0
    shown = []
    for message in messages:
        text = message.content
        for line in lines:
            if line in text:
                count += text.count(line)
                text = text.replace(line, PATCH_MASKED)
        shown.append(message if text == message.content else Turn(role=message.role, content=text))
    return tuple(shown), count


def _pair(group: dict[str, Any], members: list[AgentRun], contexts: list[Context], index: int) -> ContrastivePair:
    """The direction in which run ``index`` supports its own patch."""
    run = members[index]
    others = [number for number in range(len(members)) if number != index]
    return ContrastivePair(
        pair_id="+".join([run.run_id, *(members[number].run_id for number in others)]),
        domain=DOMAIN,
        query=QUERY.format(repository=run.repository),
        answer=_clean(redact(run.patch)[0]),
        supporting=contexts[index],
        confounders=[contexts[number] for number in others],
        provenance={
            "supporting": _provenance(run),
            "confounders": [_provenance(members[number]) for number in others],
            "shared": group["shared"],
        },
        split=group["split"],
    )


def _provenance(run: AgentRun) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "instance_id": run.instance_id,
        "repository": run.repository,
        "commit": run.commit,
        "outcome": run.outcome,
        "source": run.source,
        "patch_origin": run.patch_origin,
    }


def _clean(text: str) -> str:
    """Without half surrogate pairs, which no UTF-8 file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
