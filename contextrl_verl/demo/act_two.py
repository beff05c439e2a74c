"""Pairs for the second act: real runs of an agent through the preparation, cut short for a tiny model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from contextrl_verl.demo.evidence_pairs import text_pair
from contextrl_verl.demo.progress import StageProgress
from contextrl_verl.errors import UserError
from contextrl_verl.pairs import Context, ContrastivePair
from contextrl_verl.pairs.files import PairFile

# What so small a model sees of each context and of the patch; whole runs are for models that can read.
CONTEXT_CHARS, ANSWER_CHARS = 400, 200
FORGED_RUNS = 80


def real_pairs(
    folder: Path, trajectories: Path | None, seed: int, progress: StageProgress
) -> tuple[list[ContrastivePair], str]:
    """Pairs from the given runs, or from runs that the forge makes, and where they come from.

    Calls ``contextrl forge`` and ``contextrl pairs trajectories`` as a user would; pairs, report and forged runs lie
    under ``folder``.

    Raises:
        UserError: the runs cannot be read.
    """
    task = progress.add_task("act 2: pairs from real agent runs", total=None)
    source, origin, commit = trajectories, trajectories.name if trajectories else "", "any"
    if source is None:
        progress.update(task, note=f"the forge makes {FORGED_RUNS} runs (about a minute)")
        source, origin, commit = folder / "forged.jsonl", f"{FORGED_RUNS} runs of the forge", "same"
        _contextrl("forge", "--out", source, "--runs", FORGED_RUNS, "--seed", seed)
    progress.update(task, note="from runs to pairs")
    prepared = folder / "prepared.parquet"
    into = ("--input", source, "--out", prepared, "--report", folder / "report")
    _contextrl("pairs", "trajectories", *into, "--seed", seed, "--set", f"cascade.commit={commit}")
    whole = PairFile(prepared)
    begun = [(pair, _begin(pair.supporting), _begin(pair.confounders[0])) for pair in whole]
    # Two runs may begin alike; such a pair cannot be shown by its beginnings.
    pairs = [
        text_pair(pair.pair_id, "which led to the patch?", pair.answer[:ANSWER_CHARS], right, wrong, domain=pair.domain)
        for pair, right, wrong in begun
        if right != wrong
    ]
    alike = f", {len(whole) - len(pairs)} that begin alike left out" if len(pairs) < len(whole) else ""
    progress.update(task, total=1, completed=1, note=f"{len(pairs)} pairs{alike}")
    return pairs, origin


def _contextrl(*arguments: Any) -> None:
    command = [sys.executable, "-m", "contextrl_verl.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise UserError((done.stderr.strip() or done.stdout.strip())[-2000:])


def _begin(context: Context) -> str:
    """Little of a run: its issue, and how the agent's work begins."""
    issue, *work = [turn.content for turn in context.messages or () if turn.role != "system"]
    title = issue.replace("<pr_description>", "").strip()[: CONTEXT_CHARS // 2]
    return (title + "\n" + "\n".join(work))[:CONTEXT_CHARS]
