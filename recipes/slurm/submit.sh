#!/usr/bin/env bash
# Submit a recipe to Slurm: one Ray cluster over the job's nodes, verl's trainer on top of it.
#
#   NODES=2 GPUS_PER_NODE=8 TIME=12:00:00 MODEL=... ROWS=... VAL_ROWS=... PAIRS=... \
#     recipes/slurm/submit.sh [--dry-run] trainer.save_freq=20 <your own overrides>
#
# --dry-run writes the job script and the resolved configuration, checks both, and exits. docs/slurm.md tells more.
set -euo pipefail

# ---- user-adjustable ------------------------------------------------------------------------------------------------
RECIPE=${RECIPE:-recipes/quickstart/train.sh}   # any script that hands its "$@" to one python -m verl.trainer.main_ppo
JOB_NAME=${JOB_NAME:-contextrl}
RUN_DIR=${RUN_DIR:-outputs/slurm/$JOB_NAME}     # on a file system that every node sees: checkpoints, logs, metrics
NODES=${NODES:-1}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
CPUS_PER_NODE=${CPUS_PER_NODE:-}                # empty: what Slurm gives
TIME=${TIME:-}                                  # empty: the partition's limit
PARTITION=${PARTITION:-} ACCOUNT=${ACCOUNT:-} QOS=${QOS:-}
SBATCH_ARGS=${SBATCH_ARGS:-}                    # more options, e.g. "--exclusive --constraint=h100"
GPU_OPTION=${GPU_OPTION:---gpus-per-node=$GPUS_PER_NODE} # or --gres=gpu:h100:8
SETUP=${SETUP:-}                                # a file sourced on every node first: module load, a virtual environment
SRUN_ARGS=${SRUN_ARGS:-}                        # pyxis: "--container-image=... --container-mounts=/tmp:/tmp,..."
WRAP=${WRAP:-}                                  # Apptainer: "apptainer exec --nv image.sif"
RAY_START_ARGS=${RAY_START_ARGS:-}              # e.g. --object-store-memory=...
RAY_TMP=${RAY_TMP:-/tmp}                        # local and short: socket names in it may have 107 bytes
INTERFACE=${INTERFACE:-}                        # network of the head's address, e.g. ib0; empty: the node's name
JOIN_SECONDS=${JOIN_SECONDS:-300}               # all nodes must have joined Ray by then
REQUEUE=${REQUEUE:-1}                           # 1: before the time limit and after preemption, go on in a new allocation
MAX_REQUEUES=${MAX_REQUEUES:-20}
SIGNAL_SECONDS=${SIGNAL_SECONDS:-120}           # Slurm warns so long before the limit; see docs/slurm.md, "Requeue"
CHECK=${CHECK:-1}                               # 0: no configuration here (a login node without the environment)
FORWARD=${FORWARD:-}                            # names of more variables of the recipe to write into the job script
# ---------------------------------------------------------------------------------------------------------------------

HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

fail() {
  echo "contextrl slurm: $*" >&2
  exit 2
}

DRY_RUN=0
OVERRIDES=()
for argument in "$@"; do
  case $argument in
    --dry-run) DRY_RUN=1 ;;
    -h | --help)
      sed -n '2,8p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'
      exit 0
      ;;
    --*) fail "$argument is no option. Fix: --dry-run, or Hydra overrides as key=value; sbatch's own go into SBATCH_ARGS." ;;
    *) OVERRIDES+=("$argument") ;;
  esac
done

for name in NODES JOIN_SECONDS SIGNAL_SECONDS MAX_REQUEUES; do
  [[ ${!name} =~ ^[0-9]+$ ]] || fail "$name is '${!name}', not a number. Fix: $name=<a whole number>."
done
[[ $NODES -ge 1 ]] || fail "NODES is 0. Fix: NODES=1 for one node."
[[ $GPUS_PER_NODE =~ ^[1-9][0-9]*$ ]] || fail "GPUS_PER_NODE is '$GPUS_PER_NODE'. Fix: GPUS_PER_NODE=1 or more."
[[ -z $CPUS_PER_NODE || $CPUS_PER_NODE =~ ^[1-9][0-9]*$ ]] ||
  fail "CPUS_PER_NODE is '$CPUS_PER_NODE'. Fix: CPUS_PER_NODE=1 or more, or leave it empty."
[[ $REQUEUE =~ ^[01]$ ]] || fail "REQUEUE is '$REQUEUE'. Fix: REQUEUE=1 or REQUEUE=0."
[[ -f $RECIPE ]] || fail "RECIPE is '$RECIPE', and there is no such file. Fix: name a script of recipes/."
[[ -z $SETUP || -f $SETUP ]] || fail "SETUP is '$SETUP', and there is no such file. Fix: name a shell file, or leave it empty."
[[ $JOB_NAME$RUN_DIR != *[[:space:]%]* ]] ||
  fail "JOB_NAME or RUN_DIR has a space or a %: '$JOB_NAME', '$RUN_DIR'. Fix: sbatch reads neither; rename."
for name in $FORWARD; do
  [[ $name =~ ^[A-Za-z_][A-Za-z0-9_]*$ && -n ${!name+set} ]] ||
    fail "FORWARD names '$name', and no variable of that name is set. Fix: $name=<value> beside it, or take it out of FORWARD (names with spaces between them)."
done
# A folder for each task would have to reach overrides, check and requeue; one task after another needs nothing.
if [[ " ${SBATCH_ARGS//[\"\']/}" =~ [[:space:]](--array[=[:space:]]|-a[=[:space:]]*)([^[:space:]]+) ]]; then
  tasks=${BASH_REMATCH[2]}
  [[ $tasks == *%1 ]] ||
    fail "SBATCH_ARGS has --array=$tasks, whose tasks would run at once and share RUN_DIR and its checkpoints. Fix: --array=${tasks%\%*}%1, where each goes on from the one before, or submit each run with a RUN_DIR of its own."
fi
# What Slurm is asked for must be what verl is told. The CPU platform asks for none.
for place in GPU_OPTION SBATCH_ARGS; do
  [[ ${VERL_PLATFORM:-} != cpu ]] || break
  while read -r option value; do
    gpus=0
    for part in ${value//,/ }; do
      [[ $option != --gres || $part =~ ^gpu(:|$) ]] || continue
      part=${part##*:}
      [[ $part =~ ^[0-9]+$ ]] || part=1 # a kind without a number is one
      gpus=$((gpus + part))
    done
    ((gpus == 0 || gpus == GPUS_PER_NODE)) ||
      fail "$place has $option=$value, $gpus GPU(s) a node, and GPUS_PER_NODE, which verl is told, is $GPUS_PER_NODE. Fix: GPUS_PER_NODE=$gpus, or ask for $GPUS_PER_NODE in $place."
  done < <(tr -d "\"'" <<<"${!place}" | grep -oE -e '--(gres|gpus-per-node|gpus-per-task)[=[:space:]][^[:space:]]+' | sed 's/=/ /')
done

mkdir -p "$RUN_DIR/logs"
RUN_DIR=$(cd -- "$RUN_DIR" && pwd)
RECIPE=$(cd -- "$(dirname -- "$RECIPE")" && pwd)/$(basename -- "$RECIPE")
[[ -z $SETUP ]] || SETUP=$(cd -- "$(dirname -- "$SETUP")" && pwd)/$(basename -- "$SETUP")
# shellcheck disable=SC2034  # read by name in assignments
WORK_DIR=$PWD

# What the allocation decides; the caller's overrides come last and win.
ARGS=(
  trainer.nnodes="$NODES"
  trainer.n_gpus_per_node="$GPUS_PER_NODE"
  trainer.resume_mode=auto
  trainer.default_local_dir="$RUN_DIR/checkpoints"
  # Ray refuses both of a driver that joins a running cluster.
  ++ray_kwargs.ray_init.num_cpus=null
  ++ray_kwargs.ray_init.num_gpus=null
  "${OVERRIDES[@]}"
)

directives() {
  echo "#!/bin/bash"
  echo "#SBATCH --job-name=$JOB_NAME"
  echo "#SBATCH --nodes=$NODES"
  echo "#SBATCH --ntasks-per-node=1"
  echo "#SBATCH --output=$RUN_DIR/logs/slurm-%j.out"
  echo "#SBATCH --open-mode=append"
  [[ ${VERL_PLATFORM:-} == cpu ]] || echo "#SBATCH $GPU_OPTION"
  [[ -z $CPUS_PER_NODE ]] || echo "#SBATCH --cpus-per-task=$CPUS_PER_NODE"
  [[ -z $TIME ]] || echo "#SBATCH --time=$TIME"
  [[ -z $PARTITION ]] || echo "#SBATCH --partition=$PARTITION"
  [[ -z $ACCOUNT ]] || echo "#SBATCH --account=$ACCOUNT"
  [[ -z $QOS ]] || echo "#SBATCH --qos=$QOS"
  if [[ $REQUEUE == 1 ]]; then
    echo "#SBATCH --requeue"
  else
    echo "#SBATCH --no-requeue"
  fi
  echo "#SBATCH --signal=B:USR1@$SIGNAL_SECONDS"
  # On one line as it stands: sbatch takes several options a line, and reads quotes itself.
  [[ -z $SBATCH_ARGS ]] || echo "#SBATCH ${SBATCH_ARGS//$'\n'/ }"
}

# The variables that the recipes read, by their blocks of defaults.
recipe_variables() {
  {
    printf '%s\n' ARM MODEL ROWS VAL_ROWS PAIRS VAL_PAIRS CONFIG SMOKE VERL_PLATFORM VERL_ENGINE_DEVICE
    sed -nE 's/^([A-Z][A-Z0-9_]*)=\$\{\1.*/\1/p' "$RECIPE" "$HERE/../common.sh"
  } | grep -vxE 'NNODES|GPUS_PER_NODE|OUT' | sort -u
}

assignments() {
  local name argument
  echo "# Made by recipes/slurm/submit.sh; the part below the settings is recipes/slurm/ray_job.sh."
  for name in RECIPE RUN_DIR WORK_DIR NODES GPUS_PER_NODE CPUS_PER_NODE SETUP SRUN_ARGS WRAP RAY_START_ARGS RAY_TMP \
    INTERFACE JOIN_SECONDS REQUEUE MAX_REQUEUES SIGNAL_SECONDS; do
    printf '%s=%q\n' "$name" "${!name}"
  done
  # The recipe's own variables. The rest of the environment comes with sbatch --export=ALL; keys stay out of this file.
  for name in $(recipe_variables) $FORWARD; do
    [[ -z ${!name+set} ]] || printf 'export %s=%q\n' "$name" "${!name}"
  done
  # What a recipe with stages of its own must know of the allocation.
  printf 'export NNODES=%q GPUS_PER_NODE OUT=%q\n' "$NODES" "$RUN_DIR"
  printf 'ARGS=('
  for argument in "${ARGS[@]}"; do
    printf '\n  %q' "$argument"
  done
  printf '\n)\n\n'
}

SCRIPT=$RUN_DIR/job.sbatch
{
  directives
  assignments
  sed '1,/^# ---- body/d' "$HERE/ray_job.sh"
} >"$SCRIPT.part"
bash -n "$SCRIPT.part"
mv -- "$SCRIPT.part" "$SCRIPT"
echo "contextrl slurm: job script in $SCRIPT"

if [[ $CHECK == 1 ]]; then
  RESOLVED=$RUN_DIR/config.yaml
  (
    set +u # as on the nodes
    # shellcheck source=/dev/null
    [[ -z $SETUP ]] || source "$SETUP"
    read -ra wrap <<<"$WRAP"
    # A recipe that loses --cfg would train here; verl imports the module, which then ends it. After WRAP, for
    # containers that begin with an empty environment.
    guard=${VERL_USE_EXTERNAL_MODULES:+$VERL_USE_EXTERNAL_MODULES,}contextrl_verl.slurm.config_only
    "${wrap[@]}" env VERL_USE_EXTERNAL_MODULES="$guard" \
      bash "$RECIPE" "${ARGS[@]}" --cfg job --resolve >"$RESOLVED.part" 2>"$RESOLVED.log" ||
      {
        tail -n 15 "$RESOLVED.log" >&2
        fail "the configuration of $RECIPE cannot be composed; the lines above are the end of $RESOLVED.log. Fix: correct the override or variable they name, or CHECK=0 if this is a login node without the environment."
      }
    mv -- "$RESOLVED.part" "$RESOLVED"
    rm -f -- "$RESOLVED.log"
    "${wrap[@]}" python -m contextrl_verl.slurm.check "$RESOLVED" --nodes "$NODES" \
      --gpus-per-node "$GPUS_PER_NODE" --requeue "$REQUEUE"
  ) || exit $?
  echo "contextrl slurm: resolved configuration in $RESOLVED"
fi

LATEST=$RUN_DIR/checkpoints/latest_checkpointed_iteration.txt
[[ ! -f $LATEST ]] || echo "contextrl slurm: $RUN_DIR has a checkpoint of step $(<"$LATEST"); the job resumes from it."

if [[ $DRY_RUN == 1 ]]; then
  echo "contextrl slurm: dry run, nothing submitted. To submit: sbatch $SCRIPT"
  exit 0
fi
command -v sbatch >/dev/null || fail "there is no sbatch on PATH. Fix: run this on a Slurm login node, or use --dry-run."
sbatch "$SCRIPT"
