#!/usr/bin/env bash
# Qwen2.5-VL-7B-Instruct on visual questions, with pairs of images: the paper's first multimodal model. FSDP2 + vLLM.
#
#   ROWS=vqa.parquet VAL_ROWS=vqa.validation.parquet PAIRS=pairs.parquet recipes/multimodal/run_qwen2_5_vl_7b_fsdp.sh
#   ARM=grpo ... the same command ...; SMOKE=1 recipes/multimodal/run_qwen2_5_vl_7b_fsdp.sh
# Packed rows need flash-attn for this model; without it: actor_rollout_ref.model.use_remove_padding=false.
set -euo pipefail

NAME=qwen2_5_vl_7b KIND=multimodal SMOKE_FAMILY=qwen2_5_vl
MODEL=${MODEL:-Qwen/Qwen2.5-VL-7B-Instruct}
COEF=${COEF:-0.005} # lambda: P, R; an older script: 0.01
# shellcheck source=recipes/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
