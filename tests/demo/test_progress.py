"""What a stage tells where standard output is a file."""

import io

from rich.console import Console

from contextrl_verl.demo.progress import StageProgress


def test_a_line_for_each_stage_and_every_tenth_step():
    told = io.StringIO()
    with StageProgress(Console(file=told)) as progress:
        task = progress.add_task("learning", total=25, note="starting")
        for step in range(1, 26):
            progress.update(task, completed=step, note=f"loss {step}")
        few = progress.add_task("cells", total=2)
        progress.update(few, advance=1, note="1 min left")
    lines = [" ".join(line.split()[2:]) for line in told.getvalue().splitlines()]
    assert lines == [
        "learning starting",
        "learning 10/25 loss 10",
        "learning 20/25 loss 20",
        "learning 25/25 loss 25",
        "cells",
        "cells 1/2 1 min left",
    ]


def test_a_terminal_gets_bars():
    told = io.StringIO()
    with StageProgress(Console(file=told, force_terminal=True, width=100)) as progress:
        progress.update(progress.add_task("learning", total=10), completed=10, note="done")
    assert "━" in told.getvalue()
