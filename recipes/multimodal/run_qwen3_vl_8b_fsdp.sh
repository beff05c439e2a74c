#!/usr/bin/env bash
# Qwen3-VL-8B-Instruct on visual questions, with pairs of images: the paper's second multimodal model. FSDP2 + vLLM.
#
#   ROWS=vqa.parquet VAL_ROWS=vqa.validation.parquet PAIRS=pairs.parquet recipes/multimodal/run_qwen3_vl_8b_fsdp.sh
#   ARM=grpo ... the same command ...; SMOKE=1 recipes/multimodal/run_qwen3_vl_8b_fsdp.sh
#
# Anything after the script's name goes to verl. P: the paper; R: the scripts released with it. There, rows are rendered
# with the Thinking model's template and pairs with the Instruct model's; here both with the checkpoint's own.
set -euo pipefail

# ---- user-adjustable ------------------------------------------------------------------------------------------------
NAME=qwen3_vl_8b
CONFIG=${CONFIG:-multimodal}                # contextrl_verl/config/multimodal.yaml: everything else, with sources
SMOKE_FAMILY=qwen3_vl
MODEL=${MODEL:-Qwen/Qwen3-VL-8B-Instruct}
COEF=${COEF:-0.001}                         # lambda: P, R; an older script: 0.005
LR=${LR:-1e-6}                              # P, R
ITEMS=${ITEMS:-256}                         # P, R: rollout batch; pairs are part of it
RATIO=${RATIO:-0.15}                        # P: the best of 5 to 50 %; R draws 32 pairs beside 256 rows, used 4 times
ROLLOUTS=${ROLLOUTS:-8}                     # P, R: n
UPDATES=${UPDATES:-4}                       # R: mini-batches of 64
EPOCHS=${EPOCHS:-3}                         # P, R
PREFILL=${PREFILL-}                         # R: none
CHAT_TEMPLATE_KWARGS=${CHAT_TEMPLATE_KWARGS:-'{}'}
MAX_PAIR_TOKENS=${MAX_PAIR_TOKENS:-16384}   # R
GPUS_PER_NODE=${GPUS_PER_NODE:-4}           # P: 4 H200
# ---------------------------------------------------------------------------------------------------------------------

# shellcheck source=recipes/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
