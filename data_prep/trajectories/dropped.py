"""Couples that the cascade dropped, to be looked at side by side: one for every stage and reason that has a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from contextrl_verl.pairs import Context, Message
from data_prep.common.funnel import Funnel
from data_prep.common.redact import redact, redact_messages
from data_prep.report.page import Example
from data_prep.report.samples import sampled
from data_prep.report.text import shortened
from data_prep.trajectories.run import AgentRun, TrajectoryError

# Of a run on the page; the whole of it is in the input.
_SHOWN = 20_000


def sampled_couples(funnel: Funnel) -> list[tuple[str, str, dict[str, Any]]]:
    """(stage, reason, sample) of a couple of every reason, in the funnel's order."""
    return sampled(funnel, "runs", at_least=2)


def dropped_examples(funnel: Funnel, read: Callable[[str], AgentRun]) -> Iterator[Example]:
    """The sampled couples as examples; secrets are redacted, patches are not masked.

    Args:
        funnel: with samples ``{"runs": [run ids]}``.
        read: gives the run of an id; one that raises TrajectoryError is shown as its message.
    """
    for stage, reason, sample in sampled_couples(funnel):
        runs = []
        try:
            runs = [read(name) for name in sample["runs"][:2]]
        except TrajectoryError as error:
            reason = f"{reason}; cannot be shown: {error}"
        yield Example(
            title=" and ".join(sample["runs"]),
            contexts=[_shown(run) for run in runs],
            status="dropped",
            reason=f"{stage}: {reason}",
            question="\n".join(f"{run.run_id}: {redact(run.issue)[0][:600]}" for run in runs),
            answer="\n".join(redact(run.patch)[0] for run in runs),
            facts={key: value for key, value in sample.items() if key != "runs"},
            labels=("one run", "the other run"),
        )


def _shown(run: AgentRun) -> Context:
    messages, _ = redact_messages(run.messages)
    room = max(400, _SHOWN // max(1, len(messages)))
    return Context(
        kind="messages",
        messages=[Message(role=turn.role, content=shortened(turn.content, room) or "(empty)") for turn in messages],
    )
