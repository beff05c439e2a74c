"""``actor_rollout_ref.model.external_lib`` of the image job: registers contextrl_verl and compares log-probabilities.

In every training mini-batch, the rollout server's log-probabilities of the sampled tokens and the trainer's, over rows
with images and rows without; one JSON line a mini-batch is appended to the file that CONTEXTRL_TEST_PROBE names.
"""

from __future__ import annotations

import json
import os

import torch

import contextrl_verl.grpo.register  # noqa: F401
from contextrl_verl.grpo.engine import ContextRLEngine

_train = ContextRLEngine.forward_backward_batch
_outputs = ContextRLEngine.prepare_model_outputs


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


def _as_the_server_samples(self, output, output_args, micro_batch, logits_processor_func):
    if not torch.is_grad_enabled():
        config = self.module.config
        banned = torch.tensor([config.image_token_id, config.video_token_id])
        output.logits = output.logits.index_fill(-1, banned, -1e9)
    return _outputs(self, output, output_args, micro_batch, logits_processor_func)


ContextRLEngine.prepare_model_outputs = _as_the_server_samples
