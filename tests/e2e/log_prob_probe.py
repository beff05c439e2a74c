"""In ``actor_rollout_ref.model.external_lib`` of the own job: compares log-probabilities of rollout and trainer.

In every training mini-batch, the rollout server's log-probabilities of the sampled tokens and the trainer's, over rows
with images and rows without; one JSON line a mini-batch is appended to the file that CONTEXTRL_TEST_PROBE names.
"""

from __future__ import annotations

import json
import os

import torch
from verl.utils.experimental.torch_functional import FusedLinearForPPO

import contextrl_verl.grpo.register  # noqa: F401
from contextrl_verl.grpo.engine import ContextRLEngine

_train = ContextRLEngine.forward_backward_batch
_fused_head = FusedLinearForPPO.forward
# The tiny models' last tokens: <|image_pad|> and <|video_pad|>.
_BANNED = [-2, -1]


def _probed(self, data, loss_function, forward_only=False):
    if not forward_only and "rollout_log_probs" in data.keys():
        found: dict[str, list[float]] = {"image": [], "text": []}
        columns = (data[name].unbind() for name in ("rollout_log_probs", "old_log_probs", "response_mask"))
        for row, (rollout, trainer, mask) in enumerate(zip(*columns, strict=True)):
            if mask.any():
                images = data["multi_modal_inputs"][row]
                kind = "image" if "pixel_values" in getattr(images, "data", images) else "text"
                found[kind].append(((rollout - trainer).abs() * mask).max().item())
        with open(os.environ["CONTEXTRL_TEST_PROBE"], "a") as stream:
            stream.write(json.dumps(found) + "\n")
    return _train(self, data, loss_function, forward_only)


ContextRLEngine.forward_backward_batch = _probed


def _as_the_server_samples(self, hidden_states, vocab_weights, input_ids, temperature=1.0):
    # The server never samples the placeholder tokens: their bias makes them impossible here, too. It is the weight of
    # one feature more, which is 1 everywhere.
    if not torch.is_grad_enabled():
        banned = torch.zeros_like(vocab_weights[:, :1])
        banned[_BANNED] = -1e9
        vocab_weights = torch.cat([vocab_weights, banned], -1)
        hidden_states = torch.cat([hidden_states, torch.ones_like(hidden_states[..., :1])], -1)
    return _fused_head(self, hidden_states, vocab_weights, input_ids, temperature)


FusedLinearForPPO.forward = _as_the_server_samples
