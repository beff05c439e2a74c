"""The context-awareness loss L_CA, its clip modes, its schedule and its metrics. Pure tensor maths.

For a pair with option logits l_j at the answer position, l_+ that of the supporting context:

    two options (paper, eq. 3)   m = l_+ - l_-;   L_CA = -log sigmoid(clip(m))
    more options                 m_j = l_+ - l_j; L_CA = log(1 + sum_j exp(-clip(m_j)))

which is softmax cross-entropy over option logits clipped relative to the supporting one; with one
confounder the second line is the first. ``two_sided`` clips to [-c, c] as the paper does, so a pair
that is wrong by more than c gets no gradient. ``one_sided`` clips to (-inf, c]: confidently wrong
pairs keep their gradient, confidently right ones stop pushing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

ClipMode = Literal["two_sided", "one_sided"]
CLIP_MODES: tuple[ClipMode, ...] = ("two_sided", "one_sided")
SCHEDULES = ("constant", "linear_warmup")


def clipped_margins(margins: torch.Tensor, clip: float, mode: ClipMode) -> torch.Tensor:
    """Clip margins; any shape in, the same shape out."""
    if mode == "two_sided":
        return margins.clamp(-clip, clip)
    if mode == "one_sided":
        return margins.clamp(max=clip)
    raise ValueError(f"clip_mode {mode!r} is none of {CLIP_MODES}")


def context_awareness_loss(
    option_logits: torch.Tensor, supporting: torch.Tensor, clip: float = 5.0, mode: ClipMode = "two_sided"
) -> torch.Tensor:
    """L_CA of every pair.

    Args:
        option_logits: (pairs, options) raw next-token logits of the option labels in shown order;
            ``-inf`` marks an option a pair does not have.
        supporting: (pairs,) int64, position of the supporting context among the options.
        clip: c, in logits.
        mode: see the module's docstring.

    Returns:
        (pairs,) losses, same dtype as the logits.
    """
    margins = confounder_margins(option_logits, supporting)
    # An absent option has margin +inf: clipping would give it weight exp(-c), so it is put back to +inf.
    absent = torch.isinf(margins) & (margins > 0)
    terms = -clipped_margins(margins.masked_fill(absent, 0.0), clip, mode)
    terms = terms.masked_fill(absent, -torch.inf)
    zero = torch.zeros_like(terms[:, :1])
    return torch.logsumexp(torch.cat([zero, terms], dim=1), dim=1)


def confounder_margins(option_logits: torch.Tensor, supporting: torch.Tensor) -> torch.Tensor:
    """m_j = l_+ - l_j for every confounder j, in shown order: (pairs, options - 1); +inf where absent."""
    pairs, options = option_logits.shape
    chosen = torch.zeros(pairs, options, dtype=torch.bool, device=option_logits.device)
    chosen.scatter_(1, supporting[:, None], True)
    own = option_logits.gather(1, supporting[:, None])
    others = option_logits[~chosen].view(pairs, options - 1)
    return own - others


@dataclass(frozen=True)
class PairSums:
    """Sums over pairs, so that micro-batches and ranks add up exactly. All are 0-dim float tensors."""

    loss: torch.Tensor
    accuracy: torch.Tensor
    margin_mean: torch.Tensor
    clipped_fraction: torch.Tensor
    option_mass: torch.Tensor
    position_bias: torch.Tensor


def pair_sums(
    losses: torch.Tensor, full_logits: torch.Tensor, option_logits: torch.Tensor, supporting: torch.Tensor, clip: float
) -> PairSums:
    """What the metrics need, summed over the pairs given.

    Args:
        losses: (pairs,) from :func:`context_awareness_loss`.
        full_logits: (pairs, vocabulary) next-token logits, for the probability mass on the options.
        option_logits, supporting, clip: as for the loss.

    ``margin_mean`` is the margin to the strongest confounder. ``accuracy`` counts a tie as wrong.
    ``clipped_fraction`` counts pairs whose strongest confounder's margin lies outside [-c, c].
    ``position_bias`` is (chosen first) - (supporting shown first): 0 for an unbiased model,
    +1/2 for one that always names the first of two options in random order.
    """
    with torch.no_grad():
        option_logits, full_logits = option_logits.detach().float(), full_logits.detach().float()
        margin = confounder_margins(option_logits, supporting).amin(dim=1)
        mass = torch.exp(option_logits.logsumexp(1) - full_logits.logsumexp(1))
        first = (option_logits.argmax(dim=1) == 0).float() - (supporting == 0).float()
        return PairSums(
            loss=losses.detach().float().sum(),
            accuracy=(margin > 0).float().sum(),
            margin_mean=margin.sum(),
            clipped_fraction=(margin.abs() > clip).float().sum(),
            option_mass=mass.sum(),
            position_bias=first.sum(),
        )


def coefficient(coef: float, step: int, schedule: str = "constant", warmup_steps: int = 0) -> float:
    """Lambda at a trainer step (1 is the first). A function of the step alone, so a resumed run agrees.

    ``linear_warmup`` rises from coef / warmup_steps at step 1 to coef at step warmup_steps.
    """
    if schedule == "constant":
        return coef
    if schedule == "linear_warmup":
        return coef * min(1.0, step / max(1, warmup_steps))
    raise ValueError(f"schedule {schedule!r} is none of {SCHEDULES}")
