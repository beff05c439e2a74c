"""Runs a plan cell by cell, keeps what is finished, and writes the report after every cell."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.replication.base_model import make_base
from bench.replication.cell import SELECTION, finished, run_cell
from bench.replication.data import write_data
from bench.replication.evaluate import evaluate
from bench.replication.gemma import checkpoint, probe_gemma
from bench.replication.picture import draw
from bench.replication.plan import Cell, Plan
from bench.replication.report import markdown
from bench.replication.results import results_of
from contextrl_verl.errors import ConfigError
from contextrl_verl.pairs.whole_file import write_whole

BASE = "base"


def run_plan(plan: Plan, out: Path, gemma: Path | None, console: Console) -> dict[str, Any]:
    """Run what is not finished and return the results, which are also written to ``out``.

    Args:
        out: gets ``seed_N/ARM/cell.json``, ``results.json``, ``results.md`` and ``curves.png``.
        gemma: folder of Gemma's packages, or None.

    Raises:
        ConfigError: Gemma's packages are wrong.
        JobError: a trainer stopped; what was finished stays.
    """
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    probed = _gemma(plan, out, gemma, console) if gemma is not None else None
    cells, todo = plan.cells(), [cell for cell in plan.cells() if finished(out, plan, cell) is None]
    bases: dict[int, dict[str, Any]] = {}
    done = [found for cell in cells if (found := finished(out, plan, cell)) is not None]
    took: list[float] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("cells", total=len(cells), completed=len(done), note="")
        for seed in plan.seeds:
            bases[seed] = _base(plan, out, seed, progress)
            for cell in [cell for cell in todo if cell.seed == seed]:
                started = time.monotonic()
                done.append(_cell(plan, out, cell, progress))
                took.append(time.monotonic() - started)
                left = (len(todo) - len(took)) * sum(took) / len(took)
                progress.update(bar, advance=1, note=f"about {left / 60:.0f} min left")
                results = write_results(plan, out, bases, done, probed)
    return results if took else write_results(plan, out, bases, done, probed)


def write_results(
    plan: Plan, out: Path, bases: dict[int, dict[str, Any]], cells: list[dict[str, Any]], gemma: dict[str, Any] | None
) -> dict[str, Any]:
    """Write ``results.json``, ``results.md`` and ``curves.png`` and return the results."""
    # Through JSON, so that the report of a file and of a run are the same.
    text = json.dumps(results_of(plan, bases, cells, gemma), indent=1)
    results = json.loads(text)
    write_whole(out / "results.json", text + "\n")
    if results["arms"]:
        draw(results, out / "curves.png")
    write_whole(out / "results.md", "# Replication\n\n" + markdown(results, "curves.png"))
    return results


def base_folder(plan: Plan, out: Path, seed: int) -> Path:
    """Where a seed's base model and files lie."""
    return out / f"seed_{seed}" / BASE


def _base(plan: Plan, out: Path, seed: int, progress: Progress) -> dict[str, Any]:
    """Make a seed's base model and files, unless they are there, and return the base's evaluation."""
    folder = base_folder(plan, out, seed)
    path, fingerprint = folder / "base.json", plan.fingerprint(Cell(BASE, seed))
    if path.is_file() and (found := json.loads(path.read_text()))["fingerprint"] == fingerprint:
        return found["evaluation"]
    shutil.rmtree(folder, ignore_errors=True)
    write_data(folder / "data", plan.data, seed)
    started = time.monotonic()
    if isinstance(plan.model, str):
        model = plan.model
    else:
        model = str(folder / "model")
        bar = progress.add_task(f"seed {seed}: base model", total=plan.base.steps, note="")

        def log(step: int, accuracies: dict[str, float]) -> None:
            mean = sum(accuracies.values()) / len(accuracies)
            progress.update(bar, completed=step, note=f"mean accuracy {mean:.0%}")

        make_base(folder / "model", plan.model, plan.base, seed, log)
        progress.remove_task(bar)
    seconds = time.monotonic() - started
    found = {
        "fingerprint": fingerprint,
        "model": model,
        "seconds": seconds,
        "evaluation": evaluate(model, plan.evaluation, seed),
    }
    write_whole(path, json.dumps(found, indent=1) + "\n")
    return found["evaluation"]


def _cell(plan: Plan, out: Path, cell: Cell, progress: Progress) -> dict[str, Any]:
    bar = progress.add_task(cell.folder, total=plan.training.steps, note="starting the trainer")

    def on_step(step: int, metrics: dict[str, Any]) -> None:
        note = f"held-out selection {metrics[SELECTION]:.0%}" if SELECTION in metrics else None
        progress.update(bar, completed=step, **({"note": note} if note else {}))

    folder = base_folder(plan, out, cell.seed)
    model = json.loads((folder / "base.json").read_text())["model"]
    try:
        return run_cell(out, plan, cell, base=model, data=folder / "data", on_step=on_step)
    finally:
        progress.remove_task(bar)


def _gemma(plan: Plan, out: Path, packages: Path, console: Console) -> dict[str, Any]:
    path = out / "gemma.json"
    if path.is_file() and (found := json.loads(path.read_text()))["asked"] == [plan.gemma_pairs, plan.seeds[0]]:
        return found
    with console.status("Gemma 3 270M: asking pairs"):
        found = probe_gemma(checkpoint(packages, out / "gemma"), plan.gemma_pairs, plan.seeds[0])
    found["asked"] = [plan.gemma_pairs, plan.seeds[0]]
    write_whole(path, json.dumps(found, indent=1) + "\n")
    return found


def read_results(path: Path) -> dict[str, Any]:
    """``results.json`` of a run. Raises ConfigError if it is not there."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Fix: name the results.json of a run.") from None
