"""Tokens that a step samples, forwards and backwards: ordinary rows, pairs, filler, and the paper's released code.

Pure sums. A token is one position of one sequence in one pass; where code pads, the padding counts, because it is
computed. Tokens are summed over all ranks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# verl fills a step up to a multiple of its mini-batch with rows of this many tokens.
FILLER = 128
# Tokens of a pair's row in a scoring pass: contextrl_verl.grpo.log_prob_batch leaves its contexts out.
SCORED = 2
# A backward pass computes two matrix products for each one of the forward pass.
BACKWARD_COST = 2


@dataclass(frozen=True)
class Tokens:
    """Tokens sampled by the rollout, and positions forwarded and backwarded by the trainer."""

    sampled: int = 0
    forward: int = 0
    backward: int = 0

    @property
    def work(self) -> int:
        """The trainer's work in forward passes of one token; sampling is not in it."""
        return self.forward + BACKWARD_COST * self.backward


@dataclass(frozen=True)
class Passes:
    """What verl does with every row of a step.

    Attributes:
        old_log_prob: the pass that scores the rows under the policy that sampled them
            (False with ``algorithm.rollout_correction.bypass_mode``).
        reference: the same under the reference policy (True with a KL term).
        epochs: forward and backward passes of the update (``ppo_epochs``).
    """

    old_log_prob: bool = True
    reference: bool = True
    epochs: int = 1

    @property
    def scoring(self) -> int:
        """Passes before the update."""
        return int(self.old_log_prob) + int(self.reference)

    def of(self, positions: int, sampled: int = 0) -> Tokens:
        """Tokens of rows with this many positions together."""
        return Tokens(sampled, positions * (self.scoring + self.epochs), positions * self.epochs)


ALL = Passes()
UPDATE = Passes(old_log_prob=False, reference=False)


def ordinary(rows: int, rollouts: int, prompt: int, response: int, passes: Passes = ALL) -> Tokens:
    """Ordinary rows, each sampled ``rollouts`` times; lengths are means."""
    sequences = rows * rollouts
    return passes.of(sequences * (prompt + response), sequences * response)


def carrier(pairs: int, prompt: int, passes: Passes = ALL) -> Tokens:
    """Pairs as this project trains on them: one row each, a prompt and one label; nothing is sampled."""
    update = pairs * (prompt + 1) * passes.epochs
    return Tokens(0, update + pairs * SCORED * passes.scoring, update)


def filler_rows(rows: int, mini_batch: int) -> int:
    """Rows that verl adds so that a step is a multiple of ``ppo_mini_batch_size * n``."""
    return -rows % mini_batch


def filler(rows: int, mini_batch: int, passes: Passes = ALL) -> Tokens:
    """Tokens of those rows."""
    return passes.of(filler_rows(rows, mini_batch) * FILLER)


@dataclass(frozen=True)
class ReleasedSchedule:
    """How the code released with the paper runs its pairs: a separate forward and backward per optimizer update.

    Attributes:
        name: of the trainer.
        drawn: different pairs of a step.
        uses: updates that a drawn pair takes part in.
        copies: ranks that run the same pair, each a whole forward and backward.
        positions: of a pair in one pass, padding included; where none is published, the longest that is allowed.
    """

    name: str
    drawn: int
    uses: int
    copies: int
    positions: int

    def tokens(self) -> Tokens:
        """Of a step, over all ranks."""
        positions = self.drawn * self.uses * self.copies * self.positions
        return Tokens(0, positions, positions)


# Paper, sections 3.2 and 4.2 of our notes: batch of 256 items in mini-batches of 64, four GPUs, one batch of 32 pairs
# a step for all four updates, on every rank, padded to the longest prompt allowed.
EASYR1 = ReleasedSchedule("EasyR1 (images)", drawn=32, uses=4, copies=4, positions=16384)
# Sections 3.1 and 4.1: batch of 16 in mini-batches of 8, four GPUs, 8 new pairs an update, shared among the ranks,
# padded to the longest of the 8; the longest allowed is 32768, and no length of a pair is published.
SKYRL = ReleasedSchedule("SkyRL (agents)", drawn=8 * 2, uses=1, copies=1, positions=32768)
# One step of the released Qwen3-8B settings on four GPUs, as its reproduction logged it: 16 tasks sampled 8 times,
# 30,910 tokens a response on average, 304 s of policy training in a batch of 56 min 59 s.
AGENT_ROWS = (16, 8, 0, 30_910)
POLICY_TRAINING_SECONDS, BATCH_SECONDS = 304, 56 * 60 + 59
# The image settings: 256 items sampled 8 times; no mean length is published.
IMAGE_SEQUENCES = 256 * 8


def released() -> dict[str, Any]:
    """The released schedules next to this project's carrier rows, ready for JSON.

    Returns:
        ``lines``: each schedule, then its pairs as carrier rows, and as many new pairs as it has uses if that differs
        (packed rows have no padding: an upper bound unless every pair is as long as allowed);
        ``break_even_length``: mean tokens of an ordinary image row at which EasyR1's pairs cost as much as all rows;
        ``agent_shares``: what the pairs of an agent step add at most to the work on its rows, counted as responses;
        ``agent_seconds``: the same in seconds of the logged step, if the 304 s hold the pairs and time follows tokens:
        the update makes one forward and one backward pass of rows and pairs, and what verl's scoring passes read of a
        carrier row comes on top.
    """
    lines = []
    for one in (EASYR1, SKYRL):
        lines.append((one.name, one.drawn, one.uses, one.tokens()))
        lines.append(("the same pairs as carrier rows", one.drawn, 1, carrier(one.drawn, one.positions)))
        if one.uses > 1:
            many = one.drawn * one.uses
            lines.append(("as many new pairs as it has uses", many, 1, carrier(many, one.positions)))
    theirs, ours = SKYRL.tokens().work, carrier(SKYRL.drawn, SKYRL.positions).work
    rows, updated = ordinary(*AGENT_ROWS).work, ordinary(*AGENT_ROWS, UPDATE).work
    seconds = POLICY_TRAINING_SECONDS * theirs / (updated + theirs)
    return {
        "lines": [
            {"name": name, "pairs": pairs, "uses": uses, **asdict(tokens), "work": tokens.work}
            | {"forward_per_pair": tokens.forward // pairs, "backward_per_pair": tokens.backward // pairs}
            for name, pairs, uses, tokens in lines
        ],
        "break_even_length": EASYR1.tokens().work / ALL.of(IMAGE_SEQUENCES).work,
        "agent_shares": {"released": theirs / rows, "carrier": ours / rows},
        "agent_seconds": {"released": seconds, "carrier": seconds * ours / theirs},
        "agent_batch_seconds": BATCH_SECONDS,
    }
