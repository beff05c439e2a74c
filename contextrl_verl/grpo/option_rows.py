"""Next-token logits at the few positions that are read, out of a forward pass. Plain torch and transformers.

A forward pass gives too little or too much for pairs: with verl's fused kernels log-probabilities and no logits at all,
else logits of every position, of which a pair needs one row (32,768 tokens times 151,936 entries are 9.3 GiB in bf16,
three times over with gradients). :class:`OptionRows` stands behind the decoder of a model and before its output head.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

# The last prompt token and the label: what of a pair the output head and the scoring passes see. The first of the two
# predicts the label; verl scores rows of two tokens and more.
KEPT = 2


class OptionRows:
    """What the output head of one model sees and gives, set before each forward pass by its owner.

    Attributes:
        read: index (rows, positions) into the decoder's output (batch, tokens, hidden). Rows of hidden states there go
            through the output head besides what the model does by itself, and stand in the output's field ``logits``:
            (len(positions), vocabulary). For models whose forward leaves that field empty, as verl's fused ones do.
        keep: positions of the decoder's output (1, tokens, hidden) that go on to the head: all others are left out.
    """

    def __init__(self) -> None:
        self.read: tuple[torch.Tensor, torch.Tensor] | None = None
        self.keep: torch.Tensor | None = None
        self.attached = False
        self._hidden: torch.Tensor | None = None

    def clear(self) -> None:
        """Let the next forward pass be the model's own."""
        self.read = self.keep = self._hidden = None

    def attach(self, model: Any) -> None:
        """Hook into a causal language model of transformers, before adapters and FSDP wrap it.

        Without a decoder of its own (``base_model`` is the model) nothing is hooked and :attr:`attached` stays False.
        """
        if model.base_model is model or model.get_output_embeddings() is None:
            return
        model.base_model.register_forward_hook(self._behind_the_decoder)
        forward = model.forward

        @functools.wraps(forward)
        def with_rows(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            hidden, self._hidden = self._hidden, None
            if hidden is not None:
                # Called as a module, which FSDP and peft may have wrapped; a field of the output, which FSDP's
                # backward hooks look for.
                output["logits"] = model.get_output_embeddings()(hidden)
            return output

        # On the instance, and not on the class as verl's own patches: other models in the process stay as they are.
        model.forward = with_rows
        self.attached = True

    def _behind_the_decoder(self, decoder: Any, args: Any, output: Any) -> Any:
        hidden = output[0]
        if self.read is not None:
            self._hidden = hidden[self.read]
        if self.keep is not None:
            output["last_hidden_state"] = hidden[:, self.keep]
        return output


def option_positions(offsets: torch.Tensor, pairs: torch.Tensor, packed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the label of each pair is predicted: an index (rows, positions) into a batch of (rows, tokens, ...).

    Args:
        offsets: (rows + 1,) of the jagged input ids; the label is the last token of a row.
        pairs: (pairs,) indices of rows.
        packed: whether the model sees all rows in one, else padded on the right.
    """
    if packed:
        positions = offsets[1:][pairs] - KEPT
        return torch.zeros_like(positions), positions
    return pairs, offsets.diff()[pairs] - KEPT


def on_rank(positions: torch.Tensor, tokens: int, ranks: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Under Ulysses each of ``ranks`` holds an equal share of ``tokens`` packed ones: who holds a position, and where.

    Returns:
        (owner, here): the rank that holds each position; its place in that rank's share, on the others any valid one.
    """
    share = tokens // ranks
    return positions // share, (positions - rank * share).clamp(0, share - 1)


def kept_positions(offsets: torch.Tensor, pairs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of a packed row without those of pairs that nobody reads, and how many of each row are left.

    Returns:
        (positions, lengths): (kept,) int64, ascending; (rows,) int64, which sum up to as many. Of a pair the last
        :data:`KEPT` are left, of other rows all.
    """
    lengths = offsets.diff()
    left = lengths.clone()
    left[pairs] = KEPT
    starts = torch.repeat_interleave(offsets[1:] - left, left)
    within = torch.arange(int(left.sum()), device=offsets.device) - torch.repeat_interleave(left.cumsum(0) - left, left)
    return starts + within, left


def last_tokens(ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The last tokens of jagged rows, as many as ``lengths`` tells of each; jagged."""
    rows = [row[len(row) - length :] for row, length in zip(ids.unbind(), lengths.tolist(), strict=True)]
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def with_lengths(output: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Jagged rows of some last positions, as long as ``lengths`` again; what was not computed is 0.

    Args:
        output: jagged (rows, *).
        lengths: (rows,).
    """
    rows = [
        torch.nn.functional.pad(row, (length - len(row), 0))
        for row, length in zip(output.unbind(), lengths.tolist(), strict=True)
    ]
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def label_mismatch(
    rows: torch.Tensor, labels: torch.Tensor, temperature: float | torch.Tensor, scored: torch.Tensor
) -> str | None:
    """Whether log-probabilities of labels are those of the rows of logits that the loss was made of.

    The two come from the same hidden state through the same head, at times by different kernels. In bf16 each logit
    may be rounded once more, hence a tolerance of four units in the last place of the largest logit.

    Args:
        rows: (pairs, vocabulary) raw logits.
        labels: (pairs,) token ids.
        temperature: what the scores were divided by; a number or (pairs,).
        scored: (pairs,) log-probabilities as the trainer has them.

    Returns:
        None if they agree, else what differs, as part of a sentence.
    """
    with torch.no_grad():
        logits = rows.detach().float()
        divisor = torch.as_tensor(temperature, device=logits.device, dtype=torch.float32).reshape(-1, 1)
        ours = torch.log_softmax(logits / divisor, dim=-1).gather(1, labels[:, None])[:, 0]
        unit = torch.finfo(rows.dtype).eps * logits.abs().amax(dim=1) / divisor[:, 0]
        off = (ours - scored.detach().float()).abs()
        wrong = ~(off <= 4 * unit + 1e-4)  # NaN is wrong
        if not wrong.any():
            return None
        worst = int(torch.where(wrong, off.nan_to_num(torch.inf), torch.zeros_like(off)).argmax())
        return (
            f"the log-probability of a pair's label is {scored[worst].item():.4f} as the trainer scores it and "
            f"{ours[worst].item():.4f} by the logits that the pair's loss reads"
        )
