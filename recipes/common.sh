# What all recipes share; each run_*.sh sets its model's values and sources this file. Not to be run by itself. Anything
# after the script's name goes to verl.
# shellcheck shell=bash

# ---- user-adjustable; the recipe's own values win -------------------------------------------------------------------
# P: the paper; R: the scripts released with it. Everything else is in contextrl_verl/config: $KIND.yaml, recipe_base.yaml.
case $KIND in
  agentic)
    LR=${LR:-2e-6}                            # P, R
    ITEMS=${ITEMS:-16}                        # P, R: rollout batch; pairs are part of it
    RATIO=${RATIO:-0.125}                     # P: 1,000 pairs of 8,000 items; R draws 16 pairs beside 16 rows
    UPDATES=${UPDATES:-2}                     # R: mini-batches of 8
    CHAT_TEMPLATE_KWARGS=${CHAT_TEMPLATE_KWARGS:-'{enable_thinking: false}'} # R: of the pairs
    MAX_PAIR_TOKENS=${MAX_PAIR_TOKENS:-32768} # R
    GPUS_PER_NODE=${GPUS_PER_NODE:-4}         # P: 4 H200
    TP=${TP:-2}                               # R: tensor parallel size of vLLM
    ;;
  multimodal)
    LR=${LR:-1e-6}                            # P, R
    ITEMS=${ITEMS:-256}                       # P, R
    RATIO=${RATIO:-0.15}                      # P: the best of 5 to 50 %; R draws 32 pairs beside 256 rows, used 4 times
    UPDATES=${UPDATES:-4}                     # R: mini-batches of 64
    MAX_PAIR_TOKENS=${MAX_PAIR_TOKENS:-16384} # R
    GPUS_PER_NODE=${GPUS_PER_NODE:-4}         # P: 4 H200
    ;;
  text)
    LR=${LR:-2e-6}                            # P for 8B models
    ITEMS=${ITEMS:-64}
    RATIO=${RATIO:-0.15}                      # P: the best
    UPDATES=${UPDATES:-2}
    MAX_PAIR_TOKENS=${MAX_PAIR_TOKENS:-8192}
    GPUS_PER_NODE=${GPUS_PER_NODE:-1}
    ;;
esac
ARM=${ARM:-contextrl}                       # contextrl | grpo | da_rl | da_sft | da_qca, see docs/arms.md
TASK=${TASK:-trace_qa}                      # trace_qa: rows with one answer; swe: repairs in a sandbox, docs/agents.md
SANDBOX=${SANDBOX:-auto}                    # of swe: what contextrl doctor names
TURNS=${TURNS:-35}                          # of swe, P
CONFIG=${CONFIG:-$KIND}
ROLLOUTS=${ROLLOUTS:-8}                     # P, R: n
EPOCHS=${EPOCHS:-3}                         # P; R: 2 for Klear-AgentForge
PREFILL=${PREFILL-}                         # what an answer to a pair begins with; R: nothing but for Klear-AgentForge
CHAT_TEMPLATE_KWARGS=${CHAT_TEMPLATE_KWARGS:-'{}'}
SEED=${SEED:-1}                             # order of rows, pairs and options; the same for all arms
STEPS=${STEPS:-}                            # updates of the rollout batch; empty: all of EPOCHS
VAL_PAIRS=${VAL_PAIRS:-}                    # held-out pairs, asked at every validation in every arm
MARGIN=${MARGIN:-each}                      # each order by itself, the paper's; averaged over both, docs/concept.md
NNODES=${NNODES:-1}
TP=${TP:-1}
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
[[ $TASK == trace_qa ]] || RUN=$RUN-$TASK
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

[[ $MARGIN =~ ^(each|averaged)$ ]] || fail "MARGIN is '$MARGIN'. Fix: MARGIN=each or MARGIN=averaged."
[[ $TASK =~ ^(trace_qa|swe)$ ]] || fail "TASK is '$TASK'. Fix: TASK=swe or TASK=trace_qa."
[[ $TASK == trace_qa || $KIND == agentic ]] || fail "TASK is '$TASK', and this recipe is $KIND. Fix: a recipe of recipes/agentic, or TASK=trace_qa."
[[ $SMOKE =~ ^[01]$ ]] || fail "SMOKE is '$SMOKE'. Fix: SMOKE=1 for a rehearsal, SMOKE=0 for the run."
REHEARSAL=()
SFT_REHEARSAL=()
if [[ $SMOKE == 1 ]]; then
  OUT=${OUT%/}/smoke
  mkdir -p "$OUT"
  DATA=$(cd -- "$OUT" && pwd)/data
  eval "$("$PYTHON" -m contextrl_verl.patches.cpu.environment)"
  lines REHEARSAL "$PYTHON" -m contextrl_verl.demo.smoke "$SMOKE_FAMILY" --out "$DATA" --task "$TASK"
  [[ $ARM != da_sft ]] || lines SFT_REHEARSAL "$PYTHON" -m contextrl_verl.demo.smoke "$SMOKE_FAMILY" --out "$DATA" --sft
  MODEL=$DATA/model ROWS=$DATA/train_rows.parquet VAL_ROWS=$DATA/val_rows.parquet
  PAIRS=$DATA/train_pairs.parquet VAL_PAIRS=$DATA/val_pairs.parquet
  ITEMS=8 RATIO=0.25 ROLLOUTS=2 UPDATES=1 NNODES=1 GPUS_PER_NODE=1 TP=1 STEPS=
fi

for files in ROWS VAL_ROWS PAIRS; do
  [[ -n ${!files:-} ]] || fail "$files is not set. Fix: $files=<file.parquet>, several with commas; docs/main_tasks.md and docs/trajectory_pairs.md make them, SMOKE=1 needs none."
done
lines KEYS "$PYTHON" -m contextrl_verl.arms "$ARM" --items "$ITEMS" --ratio "$RATIO" --rollouts "$ROLLOUTS" \
  --updates "$UPDATES" --ranks "$((NNODES * GPUS_PER_NODE))"

# The window of Qwen3, 40960 tokens, of which an episode has more than a pair.
TASK_KEYS=()
if [[ $TASK == swe ]]; then
  MAX_PAIR_TOKENS=$((MAX_PAIR_TOKENS < 16384 ? MAX_PAIR_TOKENS : 16384))
  TASK_KEYS=(
    data.max_prompt_length=16384
    data.max_response_length=24576 # of a whole episode
    contextrl.agent.turns="$TURNS"
    contextrl.agent.turn_tokens=4096 # P, R
    contextrl.agent.sandbox="$SANDBOX"
    contextrl.agent.records="$(realpath -m -- "$OUT")/episodes"
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=20480 # times two GPUs: the longest row
    actor_rollout_ref.rollout.max_model_len=40960
    actor_rollout_ref.rollout.max_num_batched_tokens=40960
  )
fi

# The same in both stages of da_sft.
SHARED=(
  contextrl.seed="$SEED"
  contextrl.pairs.train_files="[$PAIRS]"
  contextrl.pairs.val_files="[$VAL_PAIRS]"
  contextrl.prompt.prefill="'$PREFILL'"
  ++contextrl.prompt.chat_template_kwargs="$CHAT_TEMPLATE_KWARGS" # keys that the yaml does not list
  trainer.nnodes="$NNODES"
  trainer.n_gpus_per_node="$GPUS_PER_NODE"
)
if [[ $ARM == da_sft && " $* " != *" --cfg "* ]]; then
  # Trained once; a second run of the recipe, after a requeue too, finds it. It gets no overrides of yours.
  MODEL=$("$PYTHON" -m contextrl_verl.sft.run --out "$OUT/sft" model.path="$MODEL" "${SHARED[@]}" \
    contextrl.epochs="$SFT_EPOCHS" optim.lr="$SFT_LR" data.train_batch_size="$SFT_BATCH" \
    data.max_prompt_length="$MAX_PAIR_TOKENS" data.max_token_len_per_gpu="$((MAX_PAIR_TOKENS + 1024))" \
    "${SFT_REHEARSAL[@]}" | tail -n 1) || exit $?
fi

# verl's file logger otherwise writes where the shell stands.
mkdir -p "$OUT"
export VERL_FILE_LOGGER_PATH=${VERL_FILE_LOGGER_PATH:-$OUT/metrics.jsonl}

# The objective of the arm contextrl alone can average margins; the others show a pair in one order.
if [[ $MARGIN == averaged && $ARM == contextrl ]]; then ORDERS=both; else ORDERS=random; fi
KEYS+=(
  "${SHARED[@]}"
  data.train_files="[$ROWS]"
  data.val_files="[$VAL_ROWS]"
  contextrl.epochs="$EPOCHS"
  contextrl.pairs.orders="$ORDERS"
  contextrl.loss.coef="$COEF"
  contextrl.loss.margin="$MARGIN"
  actor_rollout_ref.model.path="$MODEL"
  actor_rollout_ref.actor.optim.lr="$LR"
  actor_rollout_ref.actor.fsdp_config.param_offload="$OFFLOAD"
  actor_rollout_ref.actor.fsdp_config.optimizer_offload="$OFFLOAD"
  actor_rollout_ref.rollout.tensor_model_parallel_size="$TP"
  trainer.experiment_name="$RUN"
  trainer.default_local_dir="$OUT/checkpoints"
  trainer.logger="$LOGGER"
)
[[ -z $STEPS ]] || KEYS+=(trainer.total_training_steps="$STEPS")
# verl sends adapters to vLLM, which therefore must load the base weights itself.
[[ $LORA_RANK == 0 ]] || KEYS+=(
  actor_rollout_ref.model.lora_rank="$LORA_RANK"
  actor_rollout_ref.model.lora_alpha="$LORA_ALPHA"
  actor_rollout_ref.model.target_modules=all-linear
  actor_rollout_ref.rollout.load_format=safetensors
)

exec "$PYTHON" -m verl.trainer.main_ppo \
  --config-path=pkg://contextrl_verl.config --config-name="$CONFIG" "${KEYS[@]}" "${TASK_KEYS[@]}" "${REHEARSAL[@]}" "$@"
