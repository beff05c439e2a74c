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
# ---------------------------------------------------------------------------------------------------------------------

HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

say() { echo "contextrl slurm: $*"; }
fail() {
  say "$*" >&2
  exit 2
}
# must NAME REGEX WHAT: a variable's value matches.
must() { [[ ${!1} =~ ^($2)$ ]] || fail "$1 is '${!1}'. Fix: $1=$3."; }
# whole NAME: the file's name from / on; empty stays empty.
whole() {
  [[ -z ${!1} || -f ${!1} ]] || fail "$1 is '${!1}', and there is no such file. Fix: name a shell file."
  [[ -z ${!1} ]] || printf -v "$1" %s "$(realpath -s -- "${!1}")"
}

DRY_RUN=0
OVERRIDES=()
for argument in "$@"; do
  case $argument in
    --dry-run) DRY_RUN=1 ;;
    -h | --help)
      sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --*) fail "$argument is no option. Fix: --dry-run, or Hydra overrides as key=value; sbatch's own go into SBATCH_ARGS." ;;
    *) OVERRIDES+=("$argument") ;;
  esac
done

for name in NODES GPUS_PER_NODE; do must "$name" '[1-9][0-9]*' '<1 or more>'; done
for name in JOIN_SECONDS SIGNAL_SECONDS MAX_REQUEUES; do must "$name" '[0-9]+' '<a whole number>'; done
must CPUS_PER_NODE '([1-9][0-9]*)?' '<1 or more>, or leave it empty'
must REQUEUE '[01]' '1 or REQUEUE=0'
for name in JOB_NAME RUN_DIR; do must "$name" '[^[:space:]%]+' '<without a space or %, which sbatch does not read>'; done
whole RECIPE
whole SETUP
# A folder for each task would have to reach overrides, check and requeue; one task after another needs nothing.
if [[ " ${SBATCH_ARGS//[\"\']/}" =~ [[:space:]](--array[=[:space:]]|-a[=[:space:]]*)([^[:space:]]+) && ${BASH_REMATCH[2]} != *%1 ]]; then
  fail "SBATCH_ARGS has --array=${BASH_REMATCH[2]}, whose tasks would run at once and share RUN_DIR and its checkpoints. Fix: --array=${BASH_REMATCH[2]%\%*}%1, where each goes on from the one before, or submit each run with a RUN_DIR of its own."
fi

mkdir -p "$RUN_DIR/logs"
RUN_DIR=$(realpath -s -- "$RUN_DIR")
# shellcheck disable=SC2034  # read by name
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
DIRECTIVES=(
  --job-name="$JOB_NAME" --nodes="$NODES" --ntasks-per-node=1 --output="$RUN_DIR/logs/slurm-%j.out" --open-mode=append
)
[[ ${VERL_PLATFORM:-} == cpu ]] || DIRECTIVES+=("$GPU_OPTION")
DIRECTIVES+=(
  ${CPUS_PER_NODE:+--cpus-per-task=$CPUS_PER_NODE} ${TIME:+--time=$TIME} ${PARTITION:+--partition=$PARTITION}
  ${ACCOUNT:+--account=$ACCOUNT} ${QOS:+--qos=$QOS}
)
if [[ $REQUEUE == 1 ]]; then DIRECTIVES+=(--requeue); else DIRECTIVES+=(--no-requeue); fi
# SBATCH_ARGS on one line as it stands: sbatch takes several options a line, and reads quotes itself.
DIRECTIVES+=(--signal="B:USR1@$SIGNAL_SECONDS" ${SBATCH_ARGS:+"${SBATCH_ARGS//$'\n'/ }"})
# The recipe's own variables, by its blocks of defaults. The rest of the environment comes with sbatch --export=ALL; keys
# stay out of the script.
EXPORTED=$({
  printf '%s\n' ARM MODEL ROWS VAL_ROWS PAIRS VAL_PAIRS CONFIG SMOKE VERL_PLATFORM VERL_ENGINE_DEVICE
  sed -nE 's/^ *([A-Z][A-Z0-9_]*)=\$\{\1.*/\1/p' "$RECIPE" "$HERE/../common.sh"
} | grep -vxE 'NNODES|GPUS_PER_NODE|OUT' | sort -u)

SCRIPT=$RUN_DIR/job.sbatch
{
  echo "#!/bin/bash"
  printf '#SBATCH %s\n' "${DIRECTIVES[@]}"
  echo "# Made by recipes/slurm/submit.sh; the part below the settings is recipes/slurm/ray_job.sh."
  for name in RECIPE RUN_DIR WORK_DIR NODES GPUS_PER_NODE CPUS_PER_NODE SETUP SRUN_ARGS WRAP RAY_START_ARGS RAY_TMP \
    INTERFACE JOIN_SECONDS REQUEUE MAX_REQUEUES SIGNAL_SECONDS; do
    printf '%s=%q\n' "$name" "${!name}"
  done
  for name in $EXPORTED; do
    [[ -z ${!name+set} ]] || printf 'export %s=%q\n' "$name" "${!name}"
  done
  # What a recipe with stages of its own must know of the allocation.
  printf 'export NNODES=%q GPUS_PER_NODE OUT=%q\n' "$NODES" "$RUN_DIR"
  printf 'ARGS=(\n'
  printf '  %q\n' "${ARGS[@]}"
  printf ')\n\n'
  sed '1,/^# ---- body/d' "$HERE/ray_job.sh"
} >"$SCRIPT.part"
bash -n "$SCRIPT.part"
mv -- "$SCRIPT.part" "$SCRIPT"
say "job script in $SCRIPT"

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
  say "resolved configuration in $RESOLVED"
fi

LATEST=$RUN_DIR/checkpoints/latest_checkpointed_iteration.txt
[[ ! -f $LATEST ]] || say "$RUN_DIR has a checkpoint of step $(<"$LATEST"); the job resumes from it."

if [[ $DRY_RUN == 1 ]]; then
  say "dry run, nothing submitted. To submit: sbatch $SCRIPT"
  exit 0
fi
command -v sbatch >/dev/null || fail "there is no sbatch on PATH. Fix: run this on a Slurm login node, or use --dry-run."
sbatch "$SCRIPT"
