#!/usr/bin/env bash
# Qwen3-8B on software issues, with pairs of agent runs: the paper's second agentic model. FSDP2 + vLLM, 4 GPUs.
#
#   ROWS=issues.parquet VAL_ROWS=issues.validation.parquet PAIRS=pairs.parquet recipes/agentic/run_qwen3_8b_fsdp.sh
#   ARM=da_rl ... the same command ...; SMOKE=1 recipes/agentic/run_qwen3_8b_fsdp.sh
#   TASK=swe: agents repair repositories in a sandbox instead, with rows of contextrl tasks swe (docs/agents.md).
set -euo pipefail

NAME=qwen3_8b KIND=agentic SMOKE_FAMILY=qwen3
MODEL=${MODEL:-Qwen/Qwen3-8B}
COEF=${COEF:-0.001} # lambda: P, R
# shellcheck source=recipes/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
