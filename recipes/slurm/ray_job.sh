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

# ray_node NAME head|worker HEAD_IP PORT: Ray in the foreground until SIGTERM. It ends its own processes and no others.
# shellcheck disable=SC2329  # step calls it by name
ray_node() {
  local name=$1 role=$2 ip=$3 port=$4 status pid temp cpus
  local -a options extra
  prepare
  # A folder of its own, so that several jobs, or users, can share a node.
  temp=$(mktemp -d "$RAY_TMP/ray-$SLURM_JOB_ID.XXXX") || return 1
  read -ra extra <<<"$RAY_START_ARGS"
  options=(--block --node-name "$name" --temp-dir "$temp" --disable-usage-stats)
  cpus=${CPUS_PER_NODE:-${SLURM_CPUS_ON_NODE:-}}
  [[ -z $cpus ]] || options+=(--num-cpus "$cpus")
  # On GPUs Ray counts what Slurm made visible; on the CPU platform they are only a number.
  [[ ${VERL_PLATFORM:-} != cpu ]] || options+=(--num-gpus "$GPUS_PER_NODE")
  if [[ $role == head ]]; then
    # Ray's client server has a fixed port by default, which would collide with another job's on a shared node.
    options+=(--head --node-ip-address "$ip" --port "$port" --ray-client-server-port "$((port + 1))")
    options+=(--include-dashboard false)
  else
    options+=(--address "$ip:$port")
  fi
  RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 ray start "${options[@]}" "${extra[@]}" &
  pid=$!
  trap 'kill -TERM "$pid" 2>/dev/null' TERM INT
  wait "$pid"
  status=$?
  while kill -0 "$pid" 2>/dev/null; do
    wait "$pid"
    status=$?
  done
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
# step NODE SRUN_OPTION... -- FUNCTION ARGUMENT...: a step on one node, next to the others, with all of its resources.
step() {
  local node=$1
  local -a options=()
  shift
  while [[ $1 != -- ]]; do
    options+=("$1")
    shift
  done
  shift
  # srun does not take --cpus-per-task from sbatch since Slurm 22.05.
  [[ -z $CPUS_PER_NODE ]] || options+=("--cpus-per-task=$CPUS_PER_NODE")
  # exec: the step's process id is srun's, and a signal to it goes on to the node.
  exec srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" --cpu-bind=none --export=ALL "${options[@]}" \
    "${SRUN_OPTIONS[@]}" "${WRAPPER[@]}" bash -c "$(declare -f prepare "$1"); \"\$@\"" ray-job "$@"
}

head_address() {
  local ip
  if [[ -n $INTERFACE ]]; then
    ip -4 -o addr show dev "$INTERFACE" | awk '{split($4, part, "/"); print part[1]; exit}'
    return
  fi
  ip=$(getent ahostsv4 "${HOSTS[0]}" | awk '{print $1; exit}')
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

# The first node whose Ray has ended, if any.
lost_node() {
  local host
  for host in "${HOSTS[@]}"; do
    if [[ -n ${NODE_PIDS[$host]:-} ]] && ! alive "${NODE_PIDS[$host]}"; then
      echo "$host"
      return
    fi
  done
}

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
  local status=143 state
  [[ $STOP != USR1 ]] || status=138
  say "stopping after SIG$STOP."
  end_all "$status"
  if [[ $REQUEUE != 1 ]]; then
    say "not requeued: REQUEUE=0."
    exit "$status"
  fi
  if ((ATTEMPT >= MAX_REQUEUES)); then
    say "not requeued: this was restart $ATTEMPT, and MAX_REQUEUES is $MAX_REQUEUES."
    exit "$status"
  fi
  state=$(scontrol show job -o "$SLURM_JOB_ID" 2>/dev/null | grep -o 'JobState=[A-Z_]*' | head -n 1)
  if [[ $state == JobState=CANCELLED ]]; then
    say "not requeued: the job was cancelled."
    exit "$status"
  fi
  say "requeue; the next attempt resumes from step $(latest_checkpoint)."
  scontrol requeue "$SLURM_JOB_ID" || say "scontrol could not requeue the job; if Slurm did not do it itself, submit again: sbatch $RUN_DIR/job.sbatch"
  exit "$status"
}

# follow PID: until that step ends; returns 1 if a node is lost first, 2 after a signal.
follow() {
  local lost
  while alive "$1"; do
    [[ -z $STOP ]] || return 2
    lost=$(lost_node)
    if [[ -n $lost ]]; then
      tail -n 15 -- "$LOG_DIR/node-$lost.log" 2>/dev/null
      say "Ray on $lost ended before the job did. Fix: read $LOG_DIR/node-$lost.log, whose end is above."
      return 1
    fi
    pause
  done
  return 0
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
for try in 1 2 3; do
  while answers "$HEAD_IP" "$port" || answers "$HEAD_IP" "$((port + 1))"; do port=$((port + 2)); done
  step "$HEAD" --output="$LOG_DIR/node-$HEAD.log" --open-mode=append -- ray_node "$HEAD" head "$HEAD_IP" "$port" &
  NODE_PIDS[$HEAD]=$!
  while alive "${NODE_PIDS[$HEAD]}" && ! answers "$HEAD_IP" "$port"; do
    [[ -z $STOP ]] || stopped
    if ((SECONDS > deadline)); then
      say "Ray on $HEAD does not answer at $HEAD_IP:$port after $JOIN_SECONDS s. Fix: read $LOG_DIR/node-$HEAD.log; is INTERFACE right?"
      finish 1
    fi
    pause
  done
  alive "${NODE_PIDS[$HEAD]}" && break
  unset "NODE_PIDS[$HEAD]"
  # Another program may have taken the port in between; anything else will show again.
  if ((try == 3)); then
    tail -n 15 -- "$LOG_DIR/node-$HEAD.log"
    say "Ray did not start on $HEAD. Fix: read $LOG_DIR/node-$HEAD.log; its end is above. Does SETUP put ray on PATH?"
    finish 1
  fi
  port=$((port + 2))
done
export RAY_ADDRESS=$HEAD_IP:$port
say "Ray's head is $RAY_ADDRESS"

# ---- the other nodes, and everyone's arrival ------------------------------------------------------------------------
for host in "${HOSTS[@]:1}"; do
  # RAY_ADDRESS is the trainer's; ray start gets the address as an option.
  (unset RAY_ADDRESS && step "$host" --output="$LOG_DIR/node-$host.log" --open-mode=append -- \
    ray_node "$host" worker "$HEAD_IP" "$port") &
  NODE_PIDS[$host]=$!
done
step "$HEAD" -- trainer python -m contextrl_verl.slurm.wait "${HOSTS[@]}" --gpus-per-node "$GPUS_PER_NODE" \
  --seconds "$((deadline - SECONDS))" --logs "$LOG_DIR" &
DRIVER=$!
follow "$DRIVER"
case $? in
  1) finish 1 ;;
  2) stopped ;;
esac
wait "$DRIVER"
status=$?
DRIVER=""
((status == 0)) || finish "$status"

# ---- the recipe -----------------------------------------------------------------------------------------------------
step "$HEAD" -- trainer bash "$RECIPE" "${ARGS[@]}" "$@" &
DRIVER=$!
while :; do
  follow "$DRIVER"
  case $? in
    0) break ;;
    1) finish 1 ;;
    2)
      [[ $STOP != USR1 ]] || await_checkpoint
      alive "$DRIVER" || break
      stopped
      ;;
  esac
done
wait "$DRIVER"
status=$?
DRIVER=""
say "the recipe ended with exit status $status."
finish "$status"
