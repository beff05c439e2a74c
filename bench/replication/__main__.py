"""``python -m bench.replication``: all arms and seeds of a plan, cell by cell; see docs/replication.md."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, TimeRemainingColumn

from bench.common import ROOT, write_into
from bench.replication.base_model import make_base
from bench.replication.cell import RESULT, evaluate, finished, read_json, run_cell, write_json
from bench.replication.material import write_material
from bench.replication.plan import PLAN_FILE, Cell, Plan, read_plan
from bench.replication.report import draw, markdown, results_of
from contextrl_verl.demo.picture import HELD_OUT
from contextrl_verl.demo.progress import StageProgress
from contextrl_verl.errors import ConfigError, UserError
from contextrl_verl.pairs.whole_file import write_whole

BASE = "base"
PAGE, PICTURE = "replication.md", "images/replication.png"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.replication", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_const", dest="plan", const="quick", help="two seeds, about an hour")
    size.add_argument("--gpu", action="store_const", dest="plan", const="gpu", help="larger, for a machine with a GPU")
    parser.set_defaults(plan="overnight")
    parser.add_argument("--plan-file", type=Path, default=PLAN_FILE, help="seeds and sizes (default: the project's)")
    parser.add_argument("--model", help="a chat model to train instead of the tiny one (with --gpu)")
    listed = {"type": lambda text: text.split(",")}
    parser.add_argument("--seeds", **listed, help="instead of the plan's, e.g. 1,2,3")
    parser.add_argument("--arms", **listed, help="instead of all, e.g. grpo,contextrl")
    parser.add_argument("--first-habit", type=float, help="teach the base to reply with a label; see Base in plan.py")
    parser.add_argument("--paper-ratio", action="store_true", help="15 %% of the items are pairs, as in the paper")
    parser.add_argument("--out", type=Path, help="default: outputs/replication/PLAN")
    parser.add_argument("--dry-run", action="store_true", help="list cells, and whether they are finished")
    page = "only put a run into docs/replication.md, and in short one with --first-habit beside it"
    parser.add_argument("--page", type=Path, nargs="+", metavar="RESULTS.json", help=page)
    given = parser.parse_args(arguments)
    try:
        if given.page:
            print(write_page(given.page, ROOT / "docs"))
            return 0
        changes = {name: value for name in ("model", "arms", "seeds") if (value := getattr(given, name))}
        changes |= {"first_habit": given.first_habit, "paper_ratio": given.paper_ratio}
        plan = read_plan(given.plan, given.plan_file, **changes)
        out = (given.out or Path("outputs/replication") / given.plan).resolve()
        if given.dry_run:
            for cell in plan.cells():
                print(f"{cell.folder}: {'finished' if finished(out, plan, cell) else 'to run'}")
            return 0
        results = run_plan(plan, out)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    print(f"{results['claim']}\n{out / 'results.md'}")
    return 0


def run_plan(plan: Plan, out: Path) -> dict[str, Any]:
    """Run what is not finished and return the results, which are also written to ``out`` after every cell.

    Raises:
        JobError: a trainer stopped; what was finished stays.
    """
    known = {cell: finished(out, plan, cell) for cell in plan.cells()}
    done, bases = [found for found in known.values() if found], {}
    with StageProgress(Console(), MofNCompleteColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task("cells", total=len(known), completed=len(done))
        for cell, found in known.items():
            if cell.seed not in bases:
                base = _base(plan, out, cell.seed, progress)
                bases[cell.seed] = base["evaluation"]
            if found is None:
                done.append(_cell(plan, out, cell, base["model"], progress))
                progress.update(bar, advance=1)
                write_results(plan, out, bases, done)
    return write_results(plan, out, bases, done)


def _base(plan: Plan, out: Path, seed: int, progress: StageProgress) -> dict[str, Any]:
    """Make a seed's base ``model`` and files, unless they are there; with the base's ``evaluation``."""
    cell = Cell(BASE, seed)
    if found := finished(out, plan, cell):
        return found
    folder = out / cell.folder
    shutil.rmtree(folder, ignore_errors=True)
    write_material(folder / "data", plan.data, seed)
    if plan.model is None:
        bar = progress.add_task(f"seed {seed}: base model", total=plan.base.steps)

        def log(step: int, accuracies: dict[str, float]) -> None:
            progress.update(bar, completed=step, note=f"mean accuracy {mean(accuracies.values()):.0%}")

        make_base(folder / "model", plan.base, seed, log)
        progress.remove_task(bar)
    found = {"fingerprint": plan.fingerprint(cell), "model": plan.model or str(folder / "model")}
    found["evaluation"] = evaluate(found["model"], plan.data, seed)
    write_json(folder / RESULT, found)
    return found


def _cell(plan: Plan, out: Path, cell: Cell, model: str, progress: StageProgress) -> dict[str, Any]:
    bar = progress.add_task(cell.folder, total=plan.training.steps, note="starting the trainer")

    def on_step(step: int, metrics: dict[str, Any]) -> None:
        note = {"note": f"held-out selection {metrics[HELD_OUT]:.0%}"} if HELD_OUT in metrics else {}
        progress.update(bar, completed=step, **note)

    data = out / Cell(BASE, cell.seed).folder / "data"
    result = run_cell(out, plan, cell, base=model, data=data, on_step=on_step)
    progress.remove_task(bar)
    return result


def write_results(plan: Plan, out: Path, bases: dict[int, Any], cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Write ``results.json``, ``results.md`` and ``curves.png`` and return the results."""
    write_json(out / "results.json", results_of(plan, bases, cells))
    results = read_json(out / "results.json")  # so that the page of a file and of a run are the same
    draw(results, out / "curves.png")
    write_whole(out / "results.md", "# Replication\n\n" + markdown(results, "curves.png"))
    return results


def write_page(files: list[Path], docs: Path) -> Path:
    """Put ``results.json`` of a run, and maybe of one from another start, into docs/replication.md; the page."""
    for file in files:
        if not file.is_file():
            raise ConfigError(f"--page names {file}, and there is no such file. Fix: name the results.json of a run.")
    results, *other = map(read_json, files)
    page = docs / PAGE
    text = write_into(page, markdown(results, PICTURE, *other[:1]))
    draw(results, docs / PICTURE)
    write_whole(page, text)
    return page


if __name__ == "__main__":
    sys.exit(main())
