#!/usr/bin/env bash
# Qwen3-VL-8B-Instruct on visual questions, with pairs of images: the paper's second multimodal model. FSDP2 + vLLM.
#
#   ROWS=vqa.parquet VAL_ROWS=vqa.validation.parquet PAIRS=pairs.parquet recipes/multimodal/run_qwen3_vl_8b_fsdp.sh
#   ARM=grpo ... the same command ...; SMOKE=1 recipes/multimodal/run_qwen3_vl_8b_fsdp.sh
#
# R renders rows with the Thinking model's template and pairs with the Instruct model's; here both with the checkpoint's.
set -euo pipefail

NAME=qwen3_vl_8b KIND=multimodal SMOKE_FAMILY=qwen3_vl
MODEL=${MODEL:-Qwen/Qwen3-VL-8B-Instruct}
COEF=${COEF:-0.001} # lambda: P, R; an older script: 0.005
# shellcheck source=recipes/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
