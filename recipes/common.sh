# What all recipes share; each run_*.sh sets its model's values and sources this file. Not to be run by itself.
# shellcheck shell=bash

# ---- user-adjustable; the recipe's own block wins -------------------------------------------------------------------
ARM=${ARM:-contextrl}                       # contextrl | grpo | da_rl | da_sft | da_qca, see docs/arms.md
SEED=${SEED:-1}                             # order of rows, pairs and options; the same for all arms
STEPS=${STEPS:-}                            # updates of the rollout batch; empty: all of EPOCHS
VAL_PAIRS=${VAL_PAIRS:-}                    # held-out pairs, asked at every validation in every arm
MARGIN=${MARGIN:-each}                      # each order by itself, the paper's; averaged over both, docs/concept.md
NNODES=${NNODES:-1}
TP=${TP:-1}                                 # tensor parallel size of vLLM
OFFLOAD=${OFFLOAD:-False}                   # True: parameters and optimizer in host memory between uses
LORA_RANK=${LORA_RANK:-0}                   # 0: all weights
LORA_ALPHA=${LORA_ALPHA:-32}
SFT_LR=${SFT_LR:-1e-5}                      # the supervised stage of da_sft; the paper tells neither
SFT_EPOCHS=${SFT_EPOCHS:-1}
SFT_BATCH=${SFT_BATCH:-64}
LOGGER=${LOGGER:-[console,file]}            # [console,wandb], ...
# One run each: verl resumes from the checkpoints it finds.
RUN=$NAME-$ARM-ratio$RATIO-lambda$COEF-lr$LR-seed$SEED
[[ $MARGIN == each ]] || RUN=$RUN-$MARGIN
OUT=${OUT:-outputs/$RUN}                    # checkpoints, the supervised stage, a rehearsal's files
SMOKE=${SMOKE:-0}                           # 1: two steps of the same yaml with a tiny random model on a CPU
PYTHON=${PYTHON:-python}
# ---------------------------------------------------------------------------------------------------------------------

fail() {
  echo "contextrl recipe: $*" >&2
  exit 2
}

# lines ARRAY COMMAND...: the lines that COMMAND prints as an array; its failure is the recipe's.
lines() {
  local -n into=$1
  local text
  shift
  text=$("$@") || exit $?
  # shellcheck disable=SC2034  # a reference to the caller's array
  mapfile -t into <<<"$text"
}

list() { echo "[$1]"; } # a,b -> [a,b]

[[ $MARGIN =~ ^(each|averaged)$ ]] || fail "MARGIN is '$MARGIN'. Fix: MARGIN=each or MARGIN=averaged."
[[ $SMOKE =~ ^[01]$ ]] || fail "SMOKE is '$SMOKE'. Fix: SMOKE=1 for a rehearsal, SMOKE=0 for the run."
REHEARSAL=()
SFT_REHEARSAL=()
if [[ $SMOKE == 1 ]]; then
  OUT=${OUT%/}/smoke
  mkdir -p "$OUT"
  SMOKE_DATA=$(cd -- "$OUT" && pwd)/data
  eval "$("$PYTHON" -m contextrl_verl.patches.cpu.environment)"
  lines REHEARSAL "$PYTHON" -m contextrl_verl.demo.smoke "$SMOKE_FAMILY" --out "$SMOKE_DATA"
  [[ $ARM != da_sft ]] ||
    lines SFT_REHEARSAL "$PYTHON" -m contextrl_verl.demo.smoke "$SMOKE_FAMILY" --out "$SMOKE_DATA" --sft
  MODEL=$SMOKE_DATA/model
  ROWS=$SMOKE_DATA/train_rows.parquet VAL_ROWS=$SMOKE_DATA/val_rows.parquet
  PAIRS=$SMOKE_DATA/train_pairs.parquet VAL_PAIRS=$SMOKE_DATA/val_pairs.parquet
  ITEMS=8 RATIO=0.25 ROLLOUTS=2 UPDATES=1 NNODES=1 GPUS_PER_NODE=1 TP=1 STEPS=
fi

for files in ROWS VAL_ROWS PAIRS; do
  [[ -n ${!files:-} ]] || fail "$files is not set. Fix: $files=<file.parquet>, several with commas; docs/main_tasks.md and docs/trajectory_pairs.md make them, SMOKE=1 needs none."
done
lines ARM_KEYS "$PYTHON" -m contextrl_verl.arms "$ARM" --items "$ITEMS" --ratio "$RATIO" --rollouts "$ROLLOUTS" --updates "$UPDATES" \
  --ranks "$((NNODES * GPUS_PER_NODE))"

# Written the same way in both stages of da_sft.
PROMPT=(
  contextrl.seed="$SEED"
  contextrl.pairs.train_files="$(list "$PAIRS")"
  contextrl.pairs.val_files="$(list "$VAL_PAIRS")"
  contextrl.prompt.prefill="'$PREFILL'"
  ++contextrl.prompt.chat_template_kwargs="$CHAT_TEMPLATE_KWARGS" # keys that the yaml does not list
)

if [[ $ARM == da_sft && " $* " != *" --cfg "* ]]; then
  # Trained once; a second run of the recipe, after a requeue too, finds it. It gets no overrides of yours.
  MODEL=$("$PYTHON" -m contextrl_verl.sft.run --out "$OUT/sft" \
    model.path="$MODEL" "${PROMPT[@]}" \
    contextrl.epochs="$SFT_EPOCHS" optim.lr="$SFT_LR" data.train_batch_size="$SFT_BATCH" \
    data.max_prompt_length="$MAX_PAIR_TOKENS" data.max_token_len_per_gpu="$((MAX_PAIR_TOKENS + 1024))" \
    trainer.nnodes="$NNODES" trainer.n_gpus_per_node="$GPUS_PER_NODE" \
    "${SFT_REHEARSAL[@]}" | tail -n 1) || exit $?
fi

# verl's file logger otherwise writes where the shell stands.
mkdir -p "$OUT"
export VERL_FILE_LOGGER_PATH=${VERL_FILE_LOGGER_PATH:-$OUT/metrics.jsonl}

DATA=(
  data.train_files="$(list "$ROWS")"
  data.val_files="$(list "$VAL_ROWS")"
  contextrl.epochs="$EPOCHS"
  "${PROMPT[@]}"
)
MODEL_KEYS=(actor_rollout_ref.model.path="$MODEL")
if [[ $LORA_RANK != 0 ]]; then
  # verl sends adapters to vLLM, which therefore must load the base weights itself.
  MODEL_KEYS+=(
    actor_rollout_ref.model.lora_rank="$LORA_RANK"
    actor_rollout_ref.model.lora_alpha="$LORA_ALPHA"
    actor_rollout_ref.model.target_modules=all-linear
    actor_rollout_ref.rollout.load_format=safetensors
  )
fi
ACTOR=(
  contextrl.loss.coef="$COEF"
  contextrl.loss.margin="$MARGIN"
  actor_rollout_ref.actor.optim.lr="$LR"
  actor_rollout_ref.actor.fsdp_config.param_offload="$OFFLOAD"
  actor_rollout_ref.actor.fsdp_config.optimizer_offload="$OFFLOAD"
)
ROLLOUT=(actor_rollout_ref.rollout.tensor_model_parallel_size="$TP")
TRAINER=(
  trainer.nnodes="$NNODES"
  trainer.n_gpus_per_node="$GPUS_PER_NODE"
  trainer.experiment_name="$RUN"
  trainer.default_local_dir="$OUT/checkpoints"
  trainer.logger="$LOGGER"
)
# The objective of the arm contextrl alone; the others show a pair in one order.
if [[ $MARGIN == averaged && $ARM == contextrl ]]; then ORDERS=both; else ORDERS=random; fi
ACTOR+=(contextrl.pairs.orders="$ORDERS")
[[ -z $STEPS ]] || TRAINER+=(trainer.total_training_steps="$STEPS")

exec "$PYTHON" -m verl.trainer.main_ppo \
  --config-path=pkg://contextrl_verl.config --config-name="$CONFIG" \
  "${ARM_KEYS[@]}" "${DATA[@]}" "${MODEL_KEYS[@]}" "${ACTOR[@]}" "${ROLLOUT[@]}" "${TRAINER[@]}" "${REHEARSAL[@]}" \
  "$@"
