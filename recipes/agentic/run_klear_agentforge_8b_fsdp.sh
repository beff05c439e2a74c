#!/usr/bin/env bash
# Klear-AgentForge-8B-SFT on software issues, with pairs of agent runs: the paper's first agentic model. FSDP2 + vLLM.
#
#   ROWS=issues.parquet VAL_ROWS=issues.validation.parquet PAIRS=pairs.parquet \
#     recipes/agentic/run_klear_agentforge_8b_fsdp.sh
#   ARM=da_rl ... the same command ...; SMOKE=1 recipes/agentic/run_klear_agentforge_8b_fsdp.sh
#
# Anything after the script's name goes to verl. P: the paper; R: the scripts released with it.
set -euo pipefail

# ---- user-adjustable ------------------------------------------------------------------------------------------------
NAME=klear_agentforge_8b
CONFIG=${CONFIG:-agentic}                   # contextrl_verl/config/agentic.yaml: everything else, with sources
SMOKE_FAMILY=qwen3                          # its architecture is Qwen3-8B's
MODEL=${MODEL:-Kwai-Klear/Klear-AgentForge-8B-SFT}
COEF=${COEF:-0.005}                         # lambda: P; R: 0.01, which the paper's own table 10 finds worse
LR=${LR:-2e-6}                              # P, R
ITEMS=${ITEMS:-16}                          # P, R: rollout batch; pairs are part of it
RATIO=${RATIO:-0.125}                       # P: 1,000 pairs of 8,000 items; R draws 16 pairs beside 16 rows
ROLLOUTS=${ROLLOUTS:-8}                     # P, R: n
UPDATES=${UPDATES:-2}                       # R: mini-batches of 8
EPOCHS=${EPOCHS:-3}                         # P; R: 2
PREFILL=${PREFILL-The correct option is}    # R
CHAT_TEMPLATE_KWARGS=${CHAT_TEMPLATE_KWARGS:-'{enable_thinking: false}'} # R: of the pairs
MAX_PAIR_TOKENS=${MAX_PAIR_TOKENS:-32768}   # R
GPUS_PER_NODE=${GPUS_PER_NODE:-4}           # P: 4 H200
TP=${TP:-2}                                 # R
# ---------------------------------------------------------------------------------------------------------------------

# shellcheck source=recipes/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
