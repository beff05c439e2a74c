"""An episode as a file: mini-swe-agent's trajectory format 1.1, and under ``contextrl`` what we know beyond it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from contextrl_verl.agents.ending import Episode
from contextrl_verl.agents.task import SweTask
from contextrl_verl.pairs.redact import redact
from contextrl_verl.pairs.whole_file import write_whole


def write_record(path: Path, task: SweTask, episode: Episode) -> None:
    """Write the episode's record whole, or not at all; raises OSError."""
    text = json.dumps(redacted(record_of(task, episode)), ensure_ascii=False, indent=1)
    write_whole(path, text.encode("utf-8", "backslashreplace"))


def record_of(task: SweTask, episode: Episode) -> dict[str, Any]:
    """The record as ``contextrl pairs trajectories`` reads it; ``resolved`` is there where there is a verdict."""
    ending, verdict = episode.ending, episode.verdict
    status = {"exit_status": "Submitted" if verdict else ending.value, "submission": episode.patch}
    stats = {"instance_cost": 0.0, "api_calls": int(episode.metrics["turns"])}
    judged = None
    if verdict is not None:
        judged = {
            "resolved": verdict.resolved,
            "reason": verdict.reason.value,
            "detail": verdict.detail,
            "seconds": round(verdict.seconds, 3),
            "dropped": dict(verdict.dropped),
        }
    return {
        "trajectory_format": "mini-swe-agent-1.1",
        "instance_id": task.instance_id,
        "repo": task.repository,
        # The builder names folders by their content.
        **({"base_commit": Path(task.base.folder).name} if task.base.folder else {}),
        "problem_statement": task.issue,
        **({} if verdict is None else {"resolved": verdict.resolved}),
        "info": {**status, "model_stats": stats},
        "messages": [*episode.messages, {"role": "exit", "content": episode.patch, "extra": status}],
        "contextrl": {
            "ending": ending.value,
            "fault": ending.fault,
            "detail": episode.detail,
            "reward": episode.reward,
            "verdict": judged,
            "metrics": {name: round(value, 3) for name, value in episode.metrics.items()},
        },
    }


def redacted(value: Any) -> Any:
    """The value of JSON without secrets in its texts."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redacted(item) for key, item in value.items()}
    return [redacted(item) for item in value] if isinstance(value, list) else value
