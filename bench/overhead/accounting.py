"""Tokens that a step samples, forwards and backwards: ordinary rows, pairs, filler, and the paper's released code.

Pure sums. A token is one position of one sequence in one pass; where code pads, the padding counts, because it is
computed. Tokens are summed over all ranks. verl scores every row before the update, under the policy that sampled it
and under the reference (``scoring`` passes), and runs it ``epochs`` times forward and backward in the update.
"""

from __future__ import annotations

from typing import Any, NamedTuple

# verl fills a step up to a multiple of its mini-batch with rows of this many tokens.
FILLER = 128
# Tokens of a pair's row in a scoring pass: contextrl_verl.grpo.log_prob_batch leaves its contexts out.
SCORED = 2


class Tokens(NamedTuple):
    """Tokens sampled by the rollout, and positions forwarded and backwarded by the trainer."""

    sampled: int = 0
    forward: int = 0
    backward: int = 0

    @property
    def work(self) -> int:
        """The trainer's work in forward passes of one token, of which a backward pass costs two; without sampling."""
        return self.forward + 2 * self.backward


def ordinary(rows: int, rollouts: int, prompt: int, response: int, scoring: int = 2, epochs: int = 1) -> Tokens:
    """Ordinary rows, each sampled ``rollouts`` times; lengths are means."""
    sequences = rows * rollouts
    positions = sequences * (prompt + response)
    return Tokens(sequences * response, positions * (scoring + epochs), positions * epochs)


def carrier(pairs: int, prompt: int, scoring: int = 2, epochs: int = 1) -> Tokens:
    """Pairs as this project trains on them: one row each, a prompt and one label; nothing is sampled."""
    update = pairs * (prompt + 1) * epochs
    return Tokens(0, update + pairs * SCORED * scoring, update)


def filler_rows(rows: int, mini_batch: int) -> int:
    """Rows that verl adds so that a step is a multiple of ``ppo_mini_batch_size * n``."""
    return -rows % mini_batch


def filler(rows: int, mini_batch: int, scoring: int = 2) -> Tokens:
    """Tokens of those rows."""
    return ordinary(filler_rows(rows, mini_batch), 1, FILLER, 0, scoring)


# The code released with the paper runs its pairs in a separate forward and backward for each optimizer update. Of each
# trainer: different pairs of a step, updates that a pair takes part in, ranks that run the same pair, and positions of
# a pair in one pass, padding included (where none is published, the longest that is allowed).
SCHEDULES = {
    # Paper, sections 3.2 and 4.2 of our notes: batch of 256 items in mini-batches of 64, four GPUs, one batch of 32
    # pairs a step for all four updates, on every rank, padded to the longest prompt allowed.
    "EasyR1 (images)": (32, 4, 4, 16384),
    # Sections 3.1 and 4.1: batch of 16 in mini-batches of 8, four GPUs, 8 new pairs an update, shared among the ranks,
    # padded to the longest of the 8; the longest allowed is 32768, and no length of a pair is published.
    "SkyRL (agents)": (16, 1, 1, 32768),
}
# One step of the released Qwen3-8B settings on four GPUs, as its reproduction logged it: 16 tasks sampled 8 times,
# 30,910 tokens a response on average, 304 s of policy training in a batch of 56 min 59 s.
AGENT_ROWS, POLICY_TRAINING_SECONDS = (16, 8, 0, 30_910), 304
# The image settings: 256 items sampled 8 times; no mean length is published.
IMAGE_ROWS = (256, 8, 1, 0)


def released() -> dict[str, Any]:
    """The released schedules next to this project's carrier rows, ready for JSON.

    Returns:
        ``lines``: each schedule, then its pairs as carrier rows, and as many new pairs as it has uses if that differs
        (packed rows have no padding: an upper bound unless every pair is as long as allowed);
        ``break_even_length``: mean tokens of an ordinary image row at which EasyR1's pairs cost as much as all rows;
        ``agent_seconds``: what the pairs of an agent step take of the logged 304 s, if these hold them and time follows
        tokens (the update makes one forward and one backward pass), and what carrier rows take.
    """
    lines = []
    for name, (drawn, uses, copies, positions) in SCHEDULES.items():
        passes = drawn * uses * copies * positions
        lines.append((name, drawn, uses, Tokens(0, passes, passes)))
        lines.append(("the same pairs as carrier rows", drawn, 1, carrier(drawn, positions)))
        if uses > 1:
            lines.append(("as many new pairs as it has uses", drawn * uses, 1, carrier(drawn * uses, positions)))
    easyr1, _, _, skyrl, ours = (tokens.work for *_, tokens in lines)
    seconds = POLICY_TRAINING_SECONDS * skyrl / (ordinary(*AGENT_ROWS, scoring=0).work + skyrl)
    return {
        "lines": [
            {"name": name, "pairs": pairs, "uses": uses, "work": tokens.work}
            | {"forward_per_pair": tokens.forward // pairs, "backward_per_pair": tokens.backward // pairs}
            for name, pairs, uses, tokens in lines
        ],
        "break_even_length": easyr1 / ordinary(*IMAGE_ROWS).work,
        "agent_seconds": {"released": seconds, "carrier": seconds * ours / skyrl},
    }
