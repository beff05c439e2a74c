"""What a rank of tests/ranks.py would import: loaded once, in the process that the ranks are forked from."""

# ruff: noqa: E402, F401
from contextrl_verl.patches.cpu import torchvision_ops

torchvision_ops.install()

import peft
import torch.distributed.checkpoint.state_dict
import transformers.tokenization_mistral_common
import verl.models.transformers.qwen2_vl
import verl.utils.activation_offload
import verl.workers.engine
import verl.workers.utils.losses

import contextrl_verl.demo.tiny_vision
import contextrl_verl.grpo.register

# As verl asks for it: loads the configurations of all models.
transformers.AutoModelForImageTextToText._model_mapping.keys()
