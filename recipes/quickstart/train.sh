#!/usr/bin/env bash
# GRPO + context awareness on your own rows and pairs, through verl's own trainer.
#
#   MODEL=/models/Qwen3-4B ROWS=train.parquet VAL_ROWS=val.parquet PAIRS=pairs.parquet recipes/quickstart/train.sh
#
# Anything after the script's name goes to verl, e.g. trainer.n_gpus_per_node=4 trainer.logger=[console,wandb].
set -euo pipefail
: "${MODEL:?a checkpoint}" "${ROWS:?verl rows for training}" "${VAL_ROWS:?verl rows for validation}" "${PAIRS:?contrastive pairs}"

python -m verl.trainer.main_ppo \
  --config-path=pkg://contextrl_verl.config --config-name="${CONFIG:-contextrl_trainer}" \
  data.train_files="[$ROWS]" data.val_files="[$VAL_ROWS]" \
  data.train_batch_size=144 data.max_prompt_length=8192 data.max_response_length=2048 \
  contextrl.pairs.train_files="[$PAIRS]" contextrl.pairs.val_files="[${VAL_PAIRS:-}]" contextrl.pairs.per_batch=16 \
  actor_rollout_ref.model.path="$MODEL" \
  actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.n=8 \
  actor_rollout_ref.actor.strategy=fsdp2 \
  actor_rollout_ref.actor.ppo_mini_batch_size=130 actor_rollout_ref.actor.use_dynamic_bsz=true \
  actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=true \
  trainer.experiment_name=quickstart \
  "$@"
# ppo_mini_batch_size: (128 rows * 8 rollouts + 16 pairs) / 8, one update a step and nothing to pad.
