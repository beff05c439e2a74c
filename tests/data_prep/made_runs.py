"""Small runs in mini-swe-agent's format: each changes another line of one of a few functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SUBJECTS = "cache lookup widget session token template form index filter resolver".split()


def module(name: str) -> list[str]:
    lines = [f'"""Helpers of {name}."""', ""]
    for function in ("load", "store"):
        lines += [f"def {function}(key, table, limit=10):"]
        lines += [f"    step_{number} = prepare_{name}_{function}(key, {number})" for number in range(12)]
        lines += ["    return step_11", "", ""]
    return lines


def made_run(number: int, name: str = "alpha", repository: str = "acme__tools") -> dict[str, Any]:
    """Run ``number``: its patch replaces line ``number % 12`` of ``load`` or ``store`` of ``lib/NAME.py``."""
    function = ("load", "store")[number // 12 % 2]
    text = module(name)
    start = text.index(f"def {function}(key, table, limit=10):")
    at = start + 1 + number % 12
    new = f"    step_{number % 12} = repaired_{name}_{function}_{number}(table, key, limit + {number})"
    hunk = [
        f"@@ -{at},3 +{at},3 @@ def {function}(key, table, limit=10):",
        " " + text[at - 1],
        "-" + text[at],
        "+" + new,
    ]
    hunk.append(" " + text[at + 1])
    patch = "\n".join(
        [f"diff --git a/lib/{name}.py b/lib/{name}.py", f"--- a/lib/{name}.py", f"+++ b/lib/{name}.py", *hunk, ""]
    )
    subject = SUBJECTS[number % len(SUBJECTS)]
    issue = f"Wrong {subject} in {name}: {function} breaks for {subject} number {number} when the table is large"

    def turn(thought: str, command: str) -> dict[str, str]:
        return {"role": "assistant", "content": f"THOUGHT: {thought}\n\n```bash\n{command}\n```"}

    def printed(output: str) -> dict[str, str]:
        return {"role": "user", "content": f"<returncode>0</returncode>\n<output>\n{output}\n</output>"}

    shown = "\n".join(text)
    after = "\n".join([*text[:at], new, *text[at + 1 :]])
    messages = [
        {"role": "system", "content": "You fix issues."},
        {"role": "user", "content": f"<pr_description>\n{issue}\n</pr_description>"},
        turn(f"I look at {function} first.", f"cat lib/{name}.py"),
        printed(shown),
        turn(
            f"The {subject} goes wrong at step {number % 12}.",
            f"python -c 'import {name}; print({name}.{function}({number}))'",
        ),
        printed(
            f"ValueError: {subject} {number}\n" + "\n".join(f"  at line {line}" for line in range(20 + number % 7))
        ),
        turn("I replace the line.", f"cat > lib/{name}.py <<'EOF'\n{after}\nEOF"),
        printed(""),
        turn("I look at the result.", f"sed -n '{at},{at + 3}p' lib/{name}.py"),
        printed(new),
        turn("Done.", "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && git add -A && git diff --cached"),
        {"role": "user", "content": patch},
    ]
    return {
        "instance_id": f"{repository}-{1000 + number}",
        "trajectory_format": "mini-swe-agent-1",
        "resolved": True,
        "info": {"exit_status": "Submitted", "submission": patch},
        "messages": messages,
    }


def write_runs(path: Path, records: list[Any]) -> Path:
    """One JSON object a line; a record that is a string is written as it is."""
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n")
    return path
