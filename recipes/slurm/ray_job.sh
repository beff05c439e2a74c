#!/bin/bash
# The job itself, on the first node of the allocation: Ray on every node, then the recipe, then an orderly end.
# submit.sh puts the #SBATCH lines and the settings (RECIPE ... SIGNAL_SECONDS, ARGS) in front of the body.
ARGS=()
# ---- body -----------------------------------------------------------------------------------------------------------
set -uo pipefail
cd -- "$WORK_DIR" || exit 1

unset RAY_ADDRESS
say() { echo "contextrl slurm [$(date +%T)]: $*"; }

ATTEMPT=${SLURM_RESTART_COUNT:-0}
LOG_DIR=$RUN_DIR/logs/$SLURM_JOB_ID.$ATTEMPT
mkdir -p -- "$LOG_DIR"
rm -f -- "$LOG_DIR/failed"
read -ra SRUN_OPTIONS <<<"$SRUN_ARGS"
read -ra WRAPPER <<<"$WRAP"
mapfile -t HOSTS < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
if ((${#HOSTS[@]} != NODES)); then
  say "Slurm gave ${#HOSTS[@]} node(s) (${HOSTS[*]}), and the job was written for $NODES. Fix: NODES=${#HOSTS[@]} recipes/slurm/submit.sh, or submit without an own --nodes."
  exit 1
fi

# verl's file logger empties its file when it starts, so each attempt gets a file of its own.
number=0
while [[ -e $RUN_DIR/metrics.$number.jsonl ]]; do number=$((number + 1)); done
export VERL_FILE_LOGGER_PATH=$RUN_DIR/metrics.$number.jsonl
# One W&B run over all attempts, and over the tasks of an array, which share the checkpoints too.
export WANDB_RUN_ID=${WANDB_RUN_ID:-slurm-${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}} WANDB_RESUME=${WANDB_RESUME:-allow}
# A key of this job's own: without one, whoever reaches the head's port can run code as this user. Older Rays ignore it.
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
if [[ $RAY_AUTH_MODE == token && -z ${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-} ]]; then
  RAY_AUTH_TOKEN=$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')
  export RAY_AUTH_TOKEN
fi
export SETUP RAY_START_ARGS RAY_TMP LOG_DIR CPUS_PER_NODE GPUS_PER_NODE

# ---- on each node, inside the container -----------------------------------------------------------------------------
# prepare: what Ray and the trainer share.
# shellcheck disable=SC2329  # step hands it to every node
prepare() {
  # shellcheck source=/dev/null
  [[ -z $SETUP ]] || source "$SETUP"
  # Slurm sets ROCR_VISIBLE_DEVICES beside the others on many clusters, and verl's workers refuse that.
  [[ -z ${CUDA_VISIBLE_DEVICES:-}${HIP_VISIBLE_DEVICES:-} ]] || unset ROCR_VISIBLE_DEVICES
  # Ray has a socket for every process.
  (($(ulimit -Sn) >= 65536)) || ulimit -Sn 65536 2>/dev/null || ulimit -Sn hard
}

# ray_node NAME OPTION...: Ray in the foreground until SIGTERM. It ends its own processes and no others.
# shellcheck disable=SC2329  # step calls it by name
ray_node() {
  local name=$1 status pid temp cpus
  local -a options extra
  shift
  prepare
  # A folder of its own, so that several jobs, or users, can share a node.
  temp=$(mktemp -d "$RAY_TMP/ray-$SLURM_JOB_ID.XXXX") || return 1
  read -ra extra <<<"$RAY_START_ARGS"
  options=(--block --node-name "$name" --temp-dir "$temp" --disable-usage-stats "$@")
  cpus=${CPUS_PER_NODE:-${SLURM_CPUS_ON_NODE:-}}
  [[ -z $cpus ]] || options+=(--num-cpus "$cpus")
  # On GPUs Ray counts what Slurm made visible; on the CPU platform they are only a number.
  [[ ${VERL_PLATFORM:-} != cpu ]] || options+=(--num-gpus "$GPUS_PER_NODE")
  # RAY_ADDRESS is the trainer's; ray start gets the address as an option.
  unset RAY_ADDRESS
  RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 ray start "${options[@]}" "${extra[@]}" &
  pid=$!
  trap 'kill -TERM "$pid" 2>/dev/null' TERM INT
  while
    wait "$pid"
    status=$?
    kill -0 "$pid" 2>/dev/null
  do :; done
  if [[ -e $LOG_DIR/failed && -d $temp/session_latest/logs ]]; then
    cp -rL -- "$temp/session_latest/logs" "$LOG_DIR/ray-$name" || true
  fi
  rm -rf -- "$temp"
  return "$status"
}

# trainer COMMAND...: in the same environment as Ray.
# shellcheck disable=SC2329  # step calls it by name
trainer() {
  prepare
  exec "$@"
}

# ---- on the first node ----------------------------------------------------------------------------------------------
# step NODE FUNCTION ARGUMENT...: a step on one node, next to the others, with all of its resources. Ray has its own log.
step() {
  local node=$1
  local -a options=(--overlap --nodes=1 --ntasks=1 --nodelist="$node" --cpu-bind=none --export=ALL)
  shift
  [[ $1 != ray_node ]] || options+=(--output="$LOG_DIR/node-$node.log" --open-mode=append)
  # srun does not take --cpus-per-task from sbatch since Slurm 22.05.
  [[ -z $CPUS_PER_NODE ]] || options+=("--cpus-per-task=$CPUS_PER_NODE")
  # exec: the step's process id is srun's, and a signal to it goes on to the node.
  exec srun "${options[@]}" "${SRUN_OPTIONS[@]}" "${WRAPPER[@]}" \
    bash -c "$(declare -f prepare "$1"); \"\$@\"" ray-job "$@"
}

head_address() {
  local ip
  if [[ -n $INTERFACE ]]; then
    ip -4 -o addr show dev "$INTERFACE" | awk '{split($4, part, "/"); print part[1]; exit}'
    return
  fi
  ip=$(getent ahostsv4 "$HEAD" | awk '{print $1; exit}')
  # Some systems give their own name a loopback address, which no other node can reach.
  [[ -n $ip && $ip != 127.* ]] || ip=$(hostname -I | awk '{print $1}')
  echo "$ip"
}

answers() { (: <"/dev/tcp/$1/$2") 2>/dev/null; }
alive() { kill -0 "$1" 2>/dev/null; }
# A sleep that a trapped signal ends at once.
pause() {
  sleep 1 &
  wait $!
}

STOP=""
trap 'STOP=USR1' USR1
trap 'STOP=TERM' TERM INT
declare -A NODE_PIDS=()
DRIVER=""

# end_steps SECONDS PID...: SIGTERM, and SIGKILL for what is still there after SECONDS.
end_steps() {
  local limit=$((SECONDS + $1)) pid
  shift
  for pid in "$@"; do kill -TERM "$pid" 2>/dev/null; done
  for pid in "$@"; do
    while alive "$pid" && ((SECONDS < limit)); do pause; done
    kill -KILL "$pid" 2>/dev/null && say "a step did not end in time and was killed."
    wait "$pid" 2>/dev/null
  done
}

# end_all STATUS: everything this job has started, the trainer first. Ray's logs are kept unless STATUS is 0.
end_all() {
  (($1 == 0)) || touch -- "$LOG_DIR/failed"
  [[ -z $DRIVER ]] || end_steps 10 "$DRIVER"
  ((${#NODE_PIDS[@]} == 0)) || end_steps 15 "${NODE_PIDS[@]}"
}

finish() {
  end_all "$1"
  exit "$1"
}

# ray_failed HOST WHAT FIX: the end of its log, a sentence, and the end of the job.
ray_failed() {
  tail -n 15 -- "$LOG_DIR/node-$1.log" 2>/dev/null
  say "$2. Fix: read $LOG_DIR/node-$1.log, whose end is above.$3"
  finish 1
}

CHECKPOINTS=$RUN_DIR/checkpoints
for argument in "${ARGS[@]}" "$@"; do
  case $argument in trainer.default_local_dir=*) CHECKPOINTS=${argument#*=} ;; esac
done
latest_checkpoint() { cat -- "$CHECKPOINTS/latest_checkpointed_iteration.txt" 2>/dev/null || echo none; }

# The time limit is near: let the trainer write its next checkpoint, if it does so in time.
await_checkpoint() {
  local before limit=$((SECONDS + SIGNAL_SECONDS - 60))
  before=$(latest_checkpoint)
  say "SIGUSR1, $SIGNAL_SECONDS s before the time limit; latest checkpoint: step $before."
  while [[ $STOP == USR1 ]] && alive "$DRIVER" && ((SECONDS < limit)) && [[ $(latest_checkpoint) == "$before" ]]; do
    pause
  done
  say "latest checkpoint: step $(latest_checkpoint)."
}

# stopped: after a signal; ends everything, asks for a new allocation where that is wanted, and exits.
stopped() {
  local status=143 why=""
  [[ $STOP != USR1 ]] || status=138
  say "stopping after SIG$STOP."
  end_all "$status"
  if [[ $REQUEUE != 1 ]]; then
    why="REQUEUE=0"
  elif ((ATTEMPT >= MAX_REQUEUES)); then
    why="this was restart $ATTEMPT, and MAX_REQUEUES is $MAX_REQUEUES"
  elif scontrol show job -o "$SLURM_JOB_ID" 2>/dev/null | grep -q 'JobState=CANCELLED'; then
    why="the job was cancelled"
  fi
  if [[ -n $why ]]; then
    say "not requeued: $why."
  else
    say "requeue; the next attempt resumes from step $(latest_checkpoint)."
    scontrol requeue "$SLURM_JOB_ID" || say "scontrol could not requeue the job; if Slurm did not do it itself, submit again: sbatch $RUN_DIR/job.sbatch"
  fi
  exit "$status"
}

# drive COMMAND...: as a step on the first node, until it ends, a node is lost, or a signal comes; returns its status.
drive() {
  local host status
  step "$HEAD" trainer "$@" &
  DRIVER=$!
  while alive "$DRIVER"; do
    if [[ -n $STOP ]]; then
      [[ $STOP != USR1 || $1 != bash ]] || await_checkpoint
      alive "$DRIVER" || break
      stopped
    fi
    for host in "${!NODE_PIDS[@]}"; do
      alive "${NODE_PIDS[$host]}" || ray_failed "$host" "Ray on $host ended before the job did" ""
    done
    pause
  done
  wait "$DRIVER"
  status=$?
  DRIVER=""
  return "$status"
}

# ---- Ray on the first node ------------------------------------------------------------------------------------------
HEAD=${HOSTS[0]}
HEAD_IP=$(head_address)
if [[ -z $HEAD_IP ]]; then
  say "no IPv4 address of $HEAD${INTERFACE:+ on interface $INTERFACE}. Fix: INTERFACE=<a network all nodes share, see ip -4 addr>."
  exit 1
fi
say "job $SLURM_JOB_ID, attempt $ATTEMPT, ${#HOSTS[@]} node(s): ${HOSTS[*]}; logs in $LOG_DIR"
deadline=$((SECONDS + JOIN_SECONDS))
# Below the ports that systems give out themselves, and another start for every job.
port=$((20000 + SLURM_JOB_ID % 5000 * 2))
# start_head: Ray's head on the next free port; fails where Ray ends before it answers.
start_head() {
  while answers "$HEAD_IP" "$port" || answers "$HEAD_IP" "$((port + 1))"; do port=$((port + 2)); done
  # Ray's client server has a fixed port by default, which would collide with another job's on a shared node.
  step "$HEAD" ray_node "$HEAD" --head --node-ip-address "$HEAD_IP" --port "$port" \
    --ray-client-server-port "$((port + 1))" --include-dashboard false &
  NODE_PIDS[$HEAD]=$!
  while alive "${NODE_PIDS[$HEAD]}"; do
    [[ -z $STOP ]] || stopped
    ! answers "$HEAD_IP" "$port" || return 0
    ((SECONDS <= deadline)) ||
      ray_failed "$HEAD" "Ray on $HEAD does not answer at $HEAD_IP:$port after $JOIN_SECONDS s" " Is INTERFACE right?"
    pause
  done
  port=$((port + 2))
  return 1
}
# Another job may take the port in between; anything else will show again.
start_head || start_head || start_head || ray_failed "$HEAD" "Ray did not start on $HEAD" " Does SETUP put ray on PATH?"
export RAY_ADDRESS=$HEAD_IP:$port
say "Ray's head is $RAY_ADDRESS"

# ---- the other nodes, everyone's arrival, the recipe ----------------------------------------------------------------
for host in "${HOSTS[@]:1}"; do
  step "$host" ray_node "$host" --address "$RAY_ADDRESS" &
  NODE_PIDS[$host]=$!
done
drive python -m contextrl_verl.slurm.wait "${HOSTS[@]}" --gpus-per-node "$GPUS_PER_NODE" \
  --seconds "$((deadline - SECONDS))" --logs "$LOG_DIR" || finish $?

drive bash "$RECIPE" "${ARGS[@]}" "$@"
status=$?
say "the recipe ended with exit status $status."
finish "$status"
