#!/usr/bin/env bash
# Klear-AgentForge-8B-SFT on software issues, with pairs of agent runs: the paper's first agentic model. FSDP2 + vLLM.
#
#   ROWS=issues.parquet VAL_ROWS=issues.validation.parquet PAIRS=pairs.parquet \
#     recipes/agentic/run_klear_agentforge_8b_fsdp.sh
#   ARM=da_rl ... the same command ...; SMOKE=1 recipes/agentic/run_klear_agentforge_8b_fsdp.sh
#   TASK=swe: agents repair repositories in a sandbox instead, with rows of contextrl tasks swe (docs/agents.md).
set -euo pipefail

NAME=klear_agentforge_8b KIND=agentic SMOKE_FAMILY=qwen3 # its architecture is Qwen3-8B's
MODEL=${MODEL:-Kwai-Klear/Klear-AgentForge-8B-SFT}
COEF=${COEF:-0.005}                      # lambda: P; R: 0.01, which the paper's own table 10 finds worse
PREFILL=${PREFILL-The correct option is} # R
# shellcheck source=recipes/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
