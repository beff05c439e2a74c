"""The context-awareness loss L_CA, its clip modes, its schedule and its metrics. Pure tensor maths.

For a pair with option logits l_j at the answer position, l_+ that of the supporting context:

    two options (paper, eq. 3)   m = l_+ - l_-;   L_CA = -log sigmoid(clip(m))
    more options                 m_j = l_+ - l_j; L_CA = log(1 + sum_j exp(-clip(m_j)))

which is softmax cross-entropy over option logits clipped relative to the supporting one; with one
confounder the second line is the first. ``two_sided`` clips to [-c, c] as the paper does, so a pair
that is wrong by more than c gets no gradient. ``one_sided`` clips to (-inf, c]: confidently wrong
pairs keep their gradient, confidently right ones stop pushing.

A pair may be shown in all rotations of its contexts, R = K of them. ``averaged`` then takes each
margin's mean over the rotations r, and the loss above once for the pair:

    m_j = (1/R) sum_r (l^r_+ - l^r_j)

In the rotations every context stands once in every place, so whatever a model adds to the logit of
a place leaves m_j, and the gradient, as they are (not in the paper).
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
    return loss_of_margins(confounder_margins(option_logits, supporting), clip, mode)


def loss_of_margins(margins: torch.Tensor, clip: float = 5.0, mode: ClipMode = "two_sided") -> torch.Tensor:
    """L_CA of every pair from its margins (pairs, confounders), +inf where absent: (pairs,)."""
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


def averaged_margins(option_logits: torch.Tensor, supporting: torch.Tensor) -> torch.Tensor:
    """Margins of pairs that were shown in all rotations of their contexts, averaged over them.

    Args:
        option_logits: (pairs, rotations, labels) in shown order; the first ``rotations`` labels are the options.
        supporting: (pairs, rotations) int64, position of the supporting context in each rotation.

    Returns:
        (pairs, rotations - 1), by how far behind the supporting context a confounder is shown, which rotations leave
        as it is: the same confounder in all of them.
    """
    rotations = option_logits.shape[1]
    behind = torch.arange(1, rotations, device=option_logits.device)
    places = (supporting[..., None] + behind) % rotations
    margins = option_logits.gather(2, supporting[..., None]) - option_logits.gather(2, places)
    return margins.mean(dim=1)


def mass_loss(full_logits: torch.Tensor, option_logits: torch.Tensor) -> torch.Tensor:
    """-log of the probability that all options have together: (pairs,), at least 0.

    Args:
        full_logits: (pairs, vocabulary) next-token logits.
        option_logits: (pairs, options) of them; ``-inf`` where a pair has fewer.
    """
    return full_logits.logsumexp(1) - option_logits.logsumexp(1)


@dataclass(frozen=True)
class PairSums:
    """Sums over pairs, so that micro-batches and ranks add up exactly. All are 0-dim float tensors."""

    loss: torch.Tensor
    accuracy: torch.Tensor
    order_free_accuracy: torch.Tensor
    margin_mean: torch.Tensor
    clipped_fraction: torch.Tensor
    stuck_fraction: torch.Tensor
    option_mass: torch.Tensor
    position_bias: torch.Tensor
    position_logit: torch.Tensor


def pair_sums(
    losses: torch.Tensor,
    full_logits: torch.Tensor,
    option_logits: torch.Tensor,
    supporting: torch.Tensor,
    clip: float,
    mode: ClipMode = "two_sided",
    rotations: int = 1,
) -> PairSums:
    """What the metrics need, summed over the pairs given.

    Args:
        losses: (pairs,) from :func:`context_awareness_loss` or :func:`loss_of_margins`.
        full_logits: (pairs * rotations, vocabulary) next-token logits, for the probability mass on the options.
        option_logits, supporting: (pairs * rotations, ...), the rotations of a pair one after another.
        clip, mode: as for the loss.
        rotations: 1, or those over which margins were averaged; what is said of rows is then their mean.

    ``margin_mean`` is the margin to the strongest confounder. ``accuracy`` counts a tie as wrong, in every order by
    itself; ``order_free_accuracy`` by the margins that the loss saw. ``clipped_fraction`` counts pairs whose strongest
    confounder's margin lies outside [-c, c], ``stuck_fraction`` those that are wrong and have no gradient.
    ``position_bias`` is (chosen first) - (supporting shown first): 0 for an unbiased model, +1/2 for one that always
    names the first of two options in random order. ``position_logit`` is the first option's logit minus the mean of
    the others', in which contexts in random or all orders cancel.
    """
    with torch.no_grad():
        option_logits, full_logits = option_logits.detach().float(), full_logits.detach().float()
        each = confounder_margins(option_logits, supporting)
        margins = each
        if rotations > 1:
            shape = (-1, rotations, option_logits.shape[1])
            margins = averaged_margins(option_logits.view(shape), supporting.view(-1, rotations))
        margin = margins.amin(dim=1)
        present = torch.isfinite(margins)
        open_ = ((margins.abs() <= clip) & present).any(dim=1)
        stuck = (margin < -clip) & ~open_ if mode == "two_sided" else torch.zeros_like(margin, dtype=torch.bool)
        mass = torch.exp(-mass_loss(full_logits, option_logits))
        first = (option_logits.argmax(dim=1) == 0).float() - (supporting == 0).float()
        others = option_logits[:, 1:].masked_fill(torch.isinf(option_logits[:, 1:]), torch.nan).nanmean(dim=1)
        return PairSums(
            loss=losses.detach().float().sum(),
            accuracy=(each.amin(dim=1) > 0).float().sum() / rotations,
            order_free_accuracy=(margin > 0).float().sum(),
            margin_mean=margin.sum(),
            clipped_fraction=(margin.abs() > clip).float().sum(),
            stuck_fraction=stuck.float().sum(),
            option_mass=mass.sum() / rotations,
            position_bias=first.sum() / rotations,
            position_logit=(option_logits[:, 0] - others).sum() / rotations,
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
