#!/usr/bin/env bash
# Qwen2.5-1.5B-Instruct on questions about texts, with pairs of texts, on one GPU of 24 to 80 GB. FSDP2 + vLLM.
#
#   contextrl tasks trace-qa --input runs.jsonl.xz --out rows.parquet --max-tokens 4000
#   ROWS=rows.parquet VAL_ROWS=rows_val.parquet PAIRS=pairs.parquet recipes/text/run_qwen2_5_1_5b_fsdp.sh
#   ARM=da_rl ... the same command ...; SMOKE=1 recipes/text/run_qwen2_5_1_5b_fsdp.sh
#
# With 24 GB: LORA_RANK=32, or OFFLOAD=True.
set -euo pipefail

NAME=qwen2_5_1_5b KIND=text SMOKE_FAMILY=qwen2
MODEL=${MODEL:-Qwen/Qwen2.5-1.5B-Instruct} # any causal language model that verl knows
COEF=${COEF:-0.005}                        # lambda; the paper: 0.001 to 0.005, 0.01 hurts
MARGIN=${MARGIN:-averaged}                 # no bias to a place can touch it; each: the paper's (docs/cost.md)
# shellcheck source=recipes/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
