"""Couples that the cascade dropped, to be looked at side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from contextrl_verl.pairs import Context, Message
from data_prep.common.funnel import Funnel
from data_prep.common.redact import redact, redact_messages
from data_prep.report.page import Example
from data_prep.report.text import shortened
from data_prep.trajectories.run import AgentRun

# Of a run on the page; the whole of it is in the input.
_SHOWN = 20_000


def dropped_examples(funnel: Funnel, read: Callable[[str], AgentRun]) -> Iterator[Example]:
    """A dropped couple of every stage and reason that has a sample; secrets are redacted, patches are not masked.

    Args:
        funnel: with samples ``{"runs": [run ids]}``.
        read: gives the run of an id.
    """
    for stage, reason, sample in funnel.sampled("runs", at_least=2):
        runs = [read(name) for name in sample["runs"][:2]]
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
