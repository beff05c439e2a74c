"""The second pass: pairs of the runs of each group, masked for all its patches; what fails drops the whole group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contextrl_verl.pairs import ARROW_SCHEMA, Context, ContrastivePair, Message
from contextrl_verl.pairs.redact import redact, redact_messages
from data_prep.common.funnel import Funnel
from data_prep.trajectories import answer, counterfactual
from data_prep.trajectories.elide import TokenCount, elide, evidence_lines, token_counter
from data_prep.trajectories.masking import mask_run
from data_prep.trajectories.passes import stored_run
from data_prep.trajectories.run import PATCH_MASKED, AgentRun
from data_prep.trajectories.show import shown
from data_prep.verify.rules import distinctive_lines

_DIFFERENT = (
    "A coding agent worked on an issue of {repository} and submitted a patch. The contexts are records of such work on "
    "different issues, with the edits hidden. Which record led to the patch below?"
)
QUERIES = {
    "related": _DIFFERENT,
    "any": _DIFFERENT,
    "same": "A coding agent worked several times on one issue of {repository} and submitted different patches. The "
    "contexts are records of that work, with the edits hidden. Which record led to the patch below?",
}
# What a prompt puts around a turn: its role and line breaks.
TURN_TOKENS = 6
# Stages that only count, with their units; the summary has them under these names.
COUNTED = {"leaked_lines_masked": "lines", "drafts_masked": "lines", "hunks_left_out": "hunks"}


def build_part(payload: dict[str, Any], path: Path) -> Funnel:
    """Build the pairs of ``payload["chosen"]`` and write them as Parquet, in order.

    A group is ``{"kind", "stored": [places of runs], "left_out": [keys of hunks, of each run], "places": [[file,
    symbol]], "split", "shared"}``; of the kind ``counterfactual`` it has one run, and only the split besides.
    """
    funnel = Funnel()
    count = token_counter(payload["tokenizer"])
    with pq.ParquetWriter(path, ARROW_SCHEMA, compression="zstd") as writer:
        for group in payload["chosen"]:
            altered = group["kind"] == "counterfactual"
            if rows := (_altered if altered else _built)(group, count, payload, funnel):
                writer.write_table(pa.Table.from_pylist(rows, schema=ARROW_SCHEMA))
    return funnel


def _altered(group: dict[str, Any], count: TokenCount, payload: dict[str, Any], funnel: Funnel) -> list[dict[str, Any]]:
    """Rows of the pairs of one run and itself with something exchanged."""

    def fit(run: AgentRun, messages: Sequence[Message], lines: frozenset[str]) -> tuple[Message, ...] | None:
        turns, issue, _ = shown(run, messages, "all", payload["hide_issue"], payload["hide_summary"])
        split = enumerate(turn.content.split("\n") for turn in turns)
        evidence = [(index, number) for index, held in split for number, line in enumerate(held) if line in lines]
        first = evidence[0][0] if evidence else None
        room = {"per_message": TURN_TOKENS, "issue": issue, "edit": first}
        return elide(turns, payload["max_tokens"], evidence, count, **room)

    (stored,) = group["stored"]
    run = stored_run(*stored)
    options = {"most": payload["counterfactuals"], "seed": payload["seed"], "funnel": funnel}
    return [pair.to_row() for pair in counterfactual.pairs_of_run(run, fit, split=group["split"], **options)]


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
        for run, (messages, _) in zip(runs, hidden, strict=True):
            turns = _context(run, messages, group["places"], patches, count, payload)
            if not turns:
                return drop("nothing of a run shows" if turns == () else "issue and evidence exceed the token budget")
            contexts.append(Context(kind="messages", messages=list(turns)))
        budget.keep()
        stage = length
        sizes = [sum(len(turn.content) for turn in context.messages or ()) for context in contexts]
        if max(sizes) > payload["length_ratio"] * min(sizes):
            return drop(f"longest over shortest context above {payload['length_ratio']:g}")
        texts = [
            redact(answer.shown(answer.cleaned(run.patch, run.repository, keys)))
            for run, keys in zip(runs, group["left_out"], strict=True)
        ]
        rows = [_pair(group, runs, contexts, texts, index).to_row() for index in range(len(runs))]
    except Exception as error:
        stage.fail(error, {"runs": [run.run_id for run in runs]})
        return []
    length.keep()
    counts = (
        sum(found.leaked_lines_masked for found in masked) + sum(gone for _, gone in hidden),
        sum(found.drafts for found in masked),
        sum(map(len, group["left_out"])),
    )
    for (name, unit), number in zip(COUNTED.items(), counts, strict=True):
        funnel.stage(name, unit).keep(number)
    return rows


def _context(
    run: AgentRun,
    messages: Sequence[Message],
    places: Iterable[tuple[str, str]],
    patches: Sequence[str],
    count: TokenCount,
    payload: dict[str, Any],
) -> tuple[Message, ...] | None:
    """What shows of a masked run within the budget; None if nothing fits."""
    turns, issue, edit = shown(run, messages, payload["show"], payload["hide_issue"], payload["hide_summary"])
    # Secrets first: a mark must not be cut in two, and the evidence's line numbers are those of the text cut.
    turns = redact_messages(turns)
    evidence = evidence_lines(turns, places, patches, issue)
    room = {"per_message": TURN_TOKENS, "issue": issue, "edit": edit}
    return elide(turns, payload["max_tokens"], evidence, count, **room)


def _hide(messages: Sequence[Message], patches: Sequence[str]) -> tuple[list[Message], int]:
    """The turns without any distinctive added line, also where it is older than the patch, and how many went.

    Such a line stood in the issue or in other code the run saw. It is no leak, but it matches the answer word for word,
    so it goes in all contexts of the group alike.
    """
    lines = sorted({line for patch in patches for line in distinctive_lines(patch)}, key=len, reverse=True)
    count, turns = 0, []
    for message in messages:
        text = message.content
        for line in lines:
            count += text.count(line)
            text = text.replace(line, PATCH_MASKED)
        turns.append(Message(role=message.role, content=text))
    return turns, count


def _pair(
    group: dict[str, Any], runs: list[AgentRun], contexts: list[Context], answers: list[str], index: int
) -> ContrastivePair:
    """The direction in which run ``index`` supports its own patch."""
    order = [index, *(other for other in range(len(runs)) if other != index)]
    facts = [{"run_id": runs[i].run_id, **runs[i].model_dump(exclude={"issue", "messages", "patch"})} for i in order]
    supporting, *confounders = (contexts[i] for i in order)
    return ContrastivePair(
        pair_id="+".join(runs[i].run_id for i in order),
        domain="trajectory",
        query=QUERIES[group["kind"]].format(repository=runs[index].repository),
        answer=answers[index],
        supporting=supporting,
        confounders=confounders,
        provenance={
            "kind": group["kind"],
            "supporting": facts[0],
            "confounders": facts[1:],
            "shared": group["shared"],
        },
        split=group["split"],
    )
