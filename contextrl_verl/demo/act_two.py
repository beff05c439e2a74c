"""Pairs for the second act: real runs of an agent through the preparation, cut short for a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.progress import Progress

from contextrl_verl.errors import UserError
from contextrl_verl.pairs import Context, ContrastivePair

# What so small a model sees of each context and of the patch; whole runs are for models that can read.
CONTEXT_CHARS, ANSWER_CHARS = 400, 200
FORGED_RUNS = 80


class DemoError(UserError, RuntimeError):
    """The demonstration could not run; the message says why."""


def real_pairs(
    folder: Path, trajectories: Path | None, seed: int, progress: Progress
) -> tuple[list[dict[str, Any]], str]:
    """Rows of pairs from the given runs, or from runs that the forge makes, and where they come from.

    Writes the prepared pairs, their report and, if they were forged, the runs under ``folder``.

    Raises:
        DemoError: the runs cannot be read or give no pair.
    """
    from contextrl_verl.pairs.files import PairFile
    from data_prep.common.pipeline import PipelineError
    from data_prep.forge.forge import forge
    from data_prep.forge.library import ForgeError
    from data_prep.trajectories.candidates import CascadeSettings
    from data_prep.trajectories.prepare import PrepareSettings, prepare
    from data_prep.trajectories.run import TrajectoryError

    task = progress.add_task("act 2: pairs from real agent runs", total=None, note="")
    try:
        source, origin, commit = trajectories, trajectories.name if trajectories else "", "any"
        if source is None:
            progress.update(task, note=f"the forge makes {FORGED_RUNS} runs (about a minute)")
            source, origin, commit = folder / "forged.jsonl", f"{FORGED_RUNS} runs of the forge", "same"
            forge("rich", FORGED_RUNS, source, seed, progress=False)
        progress.update(task, note="from runs to pairs")
        settings = PrepareSettings(cascade=CascadeSettings(commit=commit, seed=seed), seed=seed)
        prepared = folder / "prepared.parquet"
        prepare(source, prepared, settings, report=folder / "report", progress=False)
    except (TrajectoryError, PipelineError, ForgeError) as error:
        raise DemoError(str(error)) from None
    whole = [_glimpse(pair) for pair in PairFile(prepared)]
    # Two runs may begin alike; such a pair cannot be shown by its beginnings.
    rows = [row for row in whole if row["supporting"] not in row["confounders"]]
    alike = f", {len(whole) - len(rows)} that begin alike left out" if len(rows) < len(whole) else ""
    progress.update(task, total=1, completed=1, note=f"{len(rows)} pairs{alike}")
    return rows, origin


def _glimpse(pair: ContrastivePair) -> dict[str, Any]:
    """The pair with little of its contexts: how the agent's work begins."""
    row = pair.model_dump(exclude={"split"})
    row["query"], row["answer"] = "which led to the patch?", pair.answer[:ANSWER_CHARS]
    row["supporting"] = {"kind": "text", "text": _begin(pair.supporting)}
    row["confounders"] = [{"kind": "text", "text": _begin(context)} for context in pair.confounders]
    return row


def _begin(context: Context) -> str:
    issue, *work = [turn.content for turn in context.messages or () if turn.role != "system"]
    title = issue.replace("<pr_description>", "").strip()[: CONTEXT_CHARS // 2]
    return (title + "\n" + "\n".join(work))[:CONTEXT_CHARS]
