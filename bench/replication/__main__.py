"""``python -m bench.replication``: all arms and seeds of a plan, cell by cell; see docs/replication.md."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.common import write_into
from bench.replication.base_model import make_base
from bench.replication.cell import SELECTION, finished, run_cell
from bench.replication.evaluate import evaluate, gemma_checkpoint, probe_gemma
from bench.replication.material import write_data
from bench.replication.plan import PLAN_FILE, Cell, Plan, read_plan, with_first_habit, with_paper_ratio
from bench.replication.report import draw, markdown
from bench.replication.results import results_of
from contextrl_verl.errors import ConfigError, UserError
from contextrl_verl.pairs.whole_file import write_whole

BASE = "base"
PAGE, PICTURE = "replication.md", "images/replication.png"


def main(arguments: list[str] | None = None) -> int:
    given, console = _parser().parse_args(arguments), Console()
    try:
        if given.page:
            other = read_results(given.other_start) if given.other_start else None
            console.print(f"{write_page(read_results(given.page), given.docs, other)}")
            return 0
        plan = _plan(given)
        out = given.out or Path("outputs/replication") / given.plan
        if given.dry_run:
            console.print(_cells_table(plan, out))
            return 0
        results = run_plan(plan, out, given.gemma, console)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    console.print(f"{results['claim']['told']}\n{out / 'results.md'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.replication", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_const", dest="plan", const="quick", help="two seeds, about an hour")
    size.add_argument("--gpu", action="store_const", dest="plan", const="gpu", help="larger, for a machine with a GPU")
    parser.set_defaults(plan="overnight")
    parser.add_argument("--plan-file", type=Path, default=PLAN_FILE, help="seeds and sizes (default: the project's)")
    parser.add_argument("--model", help="a chat model to train instead of the tiny one (with --gpu)")
    parser.add_argument("--seeds", help="instead of the plan's, e.g. 1,2,3")
    parser.add_argument("--arms", help="instead of all, e.g. grpo,contextrl")
    parser.add_argument("--first-habit", type=float, help="teach the base to reply with a label; see seeds.yaml")
    parser.add_argument("--paper-ratio", action="store_true", help="15 %% of the items are pairs, as in the paper")
    parser.add_argument("--gemma", type=Path, metavar="PACKAGES", help="probe Gemma 3 270M from these packages too")
    parser.add_argument("--out", type=Path, help="default: outputs/replication/PLAN")
    parser.add_argument("--dry-run", action="store_true", help="list cells and their times")
    parser.add_argument("--page", type=Path, metavar="RESULTS.json", help="only put a run into docs/replication.md")
    parser.add_argument("--other-start", type=Path, metavar="RESULTS.json", help="a run with --first-habit beside it")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the page")
    return parser


def _plan(given: argparse.Namespace) -> Plan:
    changes: dict[str, Any] = {"model": given.model} if given.model else {}
    if given.arms:
        changes["arms"] = tuple(given.arms.split(","))
    if given.seeds:
        try:
            changes["seeds"] = tuple(map(int, given.seeds.split(",")))
        except ValueError:
            raise ConfigError(f"--seeds is {given.seeds!r}. Fix: whole numbers with commas, e.g. 1,2,3.") from None
    plan = read_plan(given.plan, given.plan_file, **changes)
    if given.first_habit is not None:
        plan = with_first_habit(plan, given.first_habit)
    return with_paper_ratio(plan) if given.paper_ratio else plan


def _cells_table(plan: Plan, out: Path) -> Table:
    table = Table(title=f"plan {plan.name}: about {plan.seconds() / 60:.0f} minutes on two quiet cores")
    for name in ("seed", "arm", "minutes", "state"):
        table.add_column(name, justify="right" if name == "minutes" else "left")
    for cell in plan.cells():
        state = "to run" if finished(out, plan, cell) is None else "finished"
        table.add_row(str(cell.seed), cell.arm, f"{plan.cell_seconds(cell.arm) / 60:.0f}", state)
    return table


def run_plan(plan: Plan, out: Path, gemma: Path | None, console: Console) -> dict[str, Any]:
    """Run what is not finished and return the results, which are also written to ``out`` after every cell.

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
    known = {cell: finished(out, plan, cell) for cell in plan.cells()}
    done = [found for found in known.values() if found is not None]
    bases: dict[int, dict[str, Any]] = {}
    took: list[float] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("cells", total=len(known), completed=len(done), note="")
        todo = len(known) - len(done)
        for seed in plan.seeds:
            base = _base(plan, out, seed, progress)
            bases[seed] = base["evaluation"]
            for cell in [cell for cell, found in known.items() if cell.seed == seed and found is None]:
                started = time.monotonic()
                done.append(_cell(plan, out, cell, base["model"], progress))
                took.append(time.monotonic() - started)
                left = (todo - len(took)) * sum(took) / len(took)
                progress.update(bar, advance=1, note=f"about {left / 60:.0f} min left")
                results = write_results(plan, out, bases, done, probed)
    return results if took else write_results(plan, out, bases, done, probed)


def _base(plan: Plan, out: Path, seed: int, progress: Progress) -> dict[str, Any]:
    """Make a seed's base ``model`` and files, unless they are there; with the base's ``evaluation``."""
    folder = out / f"seed_{seed}" / BASE
    fingerprint, model = plan.fingerprint(Cell(BASE, seed)), str(folder / "model")
    if (found := _read(folder / "base.json")).get("fingerprint") == fingerprint:
        return found
    shutil.rmtree(folder, ignore_errors=True)
    write_data(folder / "data", plan.data, seed)
    started = time.monotonic()
    if isinstance(plan.model, str):
        model = plan.model
    else:
        bar = progress.add_task(f"seed {seed}: base model", total=plan.base.steps, note="")

        def log(step: int, accuracies: dict[str, float]) -> None:
            mean = sum(accuracies.values()) / len(accuracies)
            progress.update(bar, completed=step, note=f"mean accuracy {mean:.0%}")

        make_base(folder / "model", plan.model, plan.base, seed, log)
        progress.remove_task(bar)
    found = {"fingerprint": fingerprint, "model": model, "seconds": time.monotonic() - started}
    found["evaluation"] = evaluate(model, plan.evaluation, seed)
    _write(folder / "base.json", found)
    return found


def _cell(plan: Plan, out: Path, cell: Cell, model: str, progress: Progress) -> dict[str, Any]:
    bar = progress.add_task(cell.folder, total=plan.training.steps, note="starting the trainer")

    def on_step(step: int, metrics: dict[str, Any]) -> None:
        note = {"note": f"held-out selection {metrics[SELECTION]:.0%}"} if SELECTION in metrics else {}
        progress.update(bar, completed=step, **note)

    try:
        return run_cell(out, plan, cell, base=model, data=out / f"seed_{cell.seed}" / BASE / "data", on_step=on_step)
    finally:
        progress.remove_task(bar)


def _gemma(plan: Plan, out: Path, packages: Path, console: Console) -> dict[str, Any]:
    asked = [plan.gemma_pairs, plan.seeds[0]]
    if (found := _read(out / "gemma.json")).get("asked") == asked:
        return found
    with console.status("Gemma 3 270M: asking pairs"):
        found = probe_gemma(gemma_checkpoint(packages, out / "gemma"), *asked) | {"asked": asked}
    _write(out / "gemma.json", found)
    return found


def write_results(
    plan: Plan, out: Path, bases: dict[int, dict[str, Any]], cells: list[dict[str, Any]], gemma: dict[str, Any] | None
) -> dict[str, Any]:
    """Write ``results.json``, ``results.md`` and ``curves.png`` and return the results."""
    _write(out / "results.json", results_of(plan, bases, cells, gemma))
    # As read from the file, so that the report of a file and of a run are the same.
    results = read_results(out / "results.json")
    if results["arms"]:
        draw(results, out / "curves.png")
    write_whole(out / "results.md", "# Replication\n\n" + markdown(results, "curves.png"))
    return results


def write_page(results: dict[str, Any], docs: Path, other: dict[str, Any] | None = None) -> Path:
    """Put the figures of a run between the marks of docs/replication.md, with its picture, and return the page.

    Args:
        other: results of a run from another start, told in short.
    """
    page = docs / PAGE
    text = write_into(page, markdown(results, PICTURE, other))
    draw(results, docs / PICTURE)
    write_whole(page, text)
    return page


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def _write(path: Path, value: dict[str, Any]) -> None:
    write_whole(path, json.dumps(value, indent=1) + "\n")


def read_results(path: Path) -> dict[str, Any]:
    """``results.json`` of a run. Raises ConfigError if it is not there."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Fix: name the results.json of a run.") from None


if __name__ == "__main__":
    sys.exit(main())
