"""Tokens that a step samples, forwards and backwards: ordinary rows, pairs, filler, and the paper's released code.

Pure sums. A token is one position of one sequence in one pass; where code pads, the padding counts, because it is
computed. Tokens are summed over all ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

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

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.sampled + other.sampled, self.forward + other.forward, self.backward + other.backward)

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


def ordinary(rows: int, rollouts: int, prompt: int, response: int, passes: Passes = Passes()) -> Tokens:
    """Ordinary rows, each sampled ``rollouts`` times; lengths are means."""
    sequences = rows * rollouts
    return passes.of(sequences * (prompt + response), sequences * response)


def carrier(pairs: int, prompt: int, passes: Passes = Passes()) -> Tokens:
    """Pairs as this project trains on them: one row each, a prompt and one label; nothing is sampled."""
    update = pairs * (prompt + 1) * passes.epochs
    return Tokens(0, update + pairs * SCORED * passes.scoring, update)


def filler_rows(rows: int, mini_batch: int) -> int:
    """Rows that verl adds so that a step is a multiple of ``ppo_mini_batch_size * n``."""
    return -rows % mini_batch


def filler(rows: int, mini_batch: int, passes: Passes = Passes()) -> Tokens:
    """Tokens of those rows."""
    return passes.of(filler_rows(rows, mini_batch) * FILLER)


@dataclass(frozen=True)
class ReleasedSchedule:
    """How the code released with the paper runs its pairs: a separate forward and backward per optimizer update.

    Attributes:
        name: of the trainer.
        pairs: in a batch of pairs.
        updates: optimizer updates of a step.
        fresh: a new batch of pairs for every update; else one batch a step, used in every update.
        ranks: data-parallel ranks.
        sharded: every rank runs its share of the pairs; else every rank runs all of them.
        positions: of a pair in one pass, padding included.
    """

    name: str
    pairs: int
    updates: int
    fresh: bool
    ranks: int
    sharded: bool
    positions: int

    @property
    def drawn(self) -> int:
        """Different pairs of a step."""
        return self.pairs * (self.updates if self.fresh else 1)

    @property
    def uses(self) -> int:
        """Updates that a drawn pair takes part in."""
        return 1 if self.fresh else self.updates

    @property
    def runs(self) -> int:
        """Forward and backward passes of single pairs in a step, over all ranks."""
        return self.drawn * self.uses * (1 if self.sharded else self.ranks)

    def tokens(self) -> Tokens:
        """Of a step, over all ranks."""
        return Tokens(0, self.runs * self.positions, self.runs * self.positions)


# Paper, sections 3.2 and 4.2 of our notes: batch of 256 items in mini-batches of 64, four GPUs, one batch of 32 pairs
# a step for all four updates, on every rank, padded to the longest prompt allowed.
EASYR1 = ReleasedSchedule("EasyR1 (images)", 32, 4, fresh=False, ranks=4, sharded=False, positions=16384)
# Sections 3.1 and 4.1: batch of 16 in mini-batches of 8, four GPUs, 8 new pairs an update, shared among the ranks,
# padded to the longest of the 8; the longest allowed is 32768, and no length of a pair is published.
SKYRL = ReleasedSchedule("SkyRL (agents)", 8, 2, fresh=True, ranks=4, sharded=True, positions=32768)
