"""``python -m bench.replication``: all arms and seeds of a plan; see docs/replication.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.replication.plan import PLAN_FILE, Plan, read_plan, with_first_habit, with_paper_ratio
from contextrl_verl.errors import ConfigError
from contextrl_verl.launch import JobError


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    console = Console()
    try:
        if given.page:
            from bench.replication.page import write_page
            from bench.replication.run import read_results

            other = read_results(given.other_start) if given.other_start else None
            console.print(f"{write_page(read_results(given.page), given.docs, other)}")
            return 0
        plan = _plan(given)
        if given.dry_run:
            console.print(_cells_table(plan, given.out))
            return 0
        from bench.replication.run import run_plan

        results = run_plan(plan, given.out, given.gemma, console)
    except (ConfigError, JobError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    console.print(results["claim"]["told"])
    console.print(f"{given.out / 'results.md'}")
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
    parser.add_argument("--page", type=Path, metavar="RESULTS.json", help="only write docs/replication.md from a run")
    parser.add_argument("--other-start", type=Path, metavar="RESULTS.json", help="a run with --first-habit beside it")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the page")
    return parser


def _plan(given: argparse.Namespace) -> Plan:
    changes: dict[str, object] = {}
    if given.seeds:
        changes["seeds"] = _seeds(given.seeds)
    if given.arms:
        changes["arms"] = tuple(given.arms.split(","))
    if given.model:
        changes["model"] = given.model
    plan = read_plan(given.plan, given.plan_file, **changes)
    if given.first_habit is not None:
        plan = with_first_habit(plan, given.first_habit)
    if given.paper_ratio:
        plan = with_paper_ratio(plan)
    given.out = given.out or Path("outputs/replication") / given.plan
    return plan


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--seeds is {text!r}. Fix: whole numbers with commas, e.g. 1,2,3.") from None


def _cells_table(plan: Plan, out: Path) -> Table:
    from bench.replication.cell import finished
    from bench.replication.times import cell_seconds, plan_seconds

    table = Table(title=f"plan {plan.name}: about {plan_seconds(plan) / 60:.0f} minutes on two quiet cores")
    for name in ("seed", "arm", "minutes", "state"):
        table.add_column(name, justify="right" if name == "minutes" else "left")
    for cell in plan.cells():
        state = "to run" if finished(out, plan, cell) is None else "finished"
        table.add_row(str(cell.seed), cell.arm, f"{cell_seconds(plan, cell.arm) / 60:.0f}", state)
    return table


if __name__ == "__main__":
    sys.exit(main())
