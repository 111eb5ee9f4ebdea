# SPDX-License-Identifier: Apache-2.0
# slurm.sh - what the job scripts here share.  docs/clusters.md explains it; the settings, all from the environment:
#
#   BQ_OUT        run directory, on a disk that all nodes share (the job's name with .run)
#   BQ_RECIPE     recipe (the script's own)            BQ_MODEL    model directory (the recipe's)
#   BQ_TOKENS     calibration tokens (the recipe's)    BQ_EVAL     tokens to evaluate on (the recipe's)
#   BQ_OPTIONS    more options of `blockq run`, as in "--stages 4 --set seed=1"
#   BQ_BLOCKQ     the program (that of BQ_HOME)         BQ_SETUP    a command before anything else, as in "module load openmpi"
#   BQ_SCRATCH    directory on each node's own disk, for streams that memory cannot hold
#   BQ_STAGE      1: copy the model there first        BQ_MPI      of srun --mpi (pmix)
#   BQ_GPU_BIND   of srun --gpu-bind (single:1)        BQ_SBATCH   more options of sbatch, for a job that goes on
#   BQ_ROUNDS     rounds without progress before a job gives up (3)
#   BQ_PATIENCE   seconds to wait for the end of another run in BQ_OUT (900)
#
# A job that the time limit stops (exit code 75) is queued again and goes on.  In BQ_OUT, at any time:
#   echo 2 >job.nodes   from the next round on, on 2 nodes        touch job.stop   after this round, no other one
# shellcheck shell=bash
set -euo pipefail
eval "${BQ_SETUP-}"
: "${BQ_OUT:=${SLURM_JOB_NAME:-blockq}.run}"
if [[ -e $BQ_HOME/CMakeLists.txt ]]; then : "${BQ_BLOCKQ:=$BQ_HOME/build/src/blockq}"; else : "${BQ_BLOCKQ:=$BQ_HOME/../../bin/blockq}"; fi
tasks=${SLURM_NTASKS_PER_NODE:-1}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-$((${SLURM_CPUS_ON_NODE:-$(nproc)} / tasks))}}
((OMP_NUM_THREADS > 0)) || OMP_NUM_THREADS=1
mkdir -p "$BQ_OUT"

me=${SLURM_JOB_ID-}
say() { echo "$(date '+%F %T') job $me: $*"; }

# launch NODES COMMAND...: on all tasks of so many nodes; without Slurm, on so many ranks.
launch() {
    local nodes=$1 gpus=()
    shift
    if [[ ! $me ]]; then
        mpirun --bind-to none -n "$nodes" "$@"
        return
    fi
    if [[ ${SLURM_GPUS_ON_NODE-} ]]; then gpus=(--gpu-bind="${BQ_GPU_BIND:-single:1}"); fi
    srun --mpi="${BQ_MPI:-pmix}" --kill-on-bad-exit=1 --nodes="$nodes" --ntasks=$((nodes * tasks)) --ntasks-per-node="$tasks" \
        --cpus-per-task="$OMP_NUM_THREADS" --cpu-bind=cores "${gpus[@]}" "$@"
}

# quantize NODES DIR: the recipe, in that run directory.
quantize() {
    local options=()
    if [[ ${BQ_MODEL-} ]]; then options+=(--set "model=$BQ_MODEL"); fi
    if [[ ${BQ_TOKENS-} ]]; then options+=(--set "calibration.tokens=$BQ_TOKENS"); fi
    if [[ ${BQ_EVAL-} ]]; then options+=(--set "eval.tokens=$BQ_EVAL"); fi
    if [[ ${BQ_SCRATCH-} ]]; then options+=(--scratch "$BQ_SCRATCH"); fi
    if [[ ${BQ_STAGE-} ]]; then options+=(--model-copy "$BQ_SCRATCH/model"); fi
    # shellcheck disable=SC2086 # words
    launch "$1" "$BQ_BLOCKQ" run "$BQ_RECIPE" --out "$2" --threads "$OMP_NUM_THREADS" "${options[@]}" ${BQ_OPTIONS-}
}

# The model on each node's own disk; what is there already stays.
stage() {
    [[ ${BQ_STAGE-} ]] || return 0
    : "${BQ_SCRATCH:?BQ_STAGE needs BQ_SCRATCH}" "${BQ_MODEL:?BQ_STAGE needs BQ_MODEL}"
    local copy=(bash -c 'mkdir -p "$2" && cp -ruL --preserve=timestamps "$1/." "$2"' copy "$BQ_MODEL" "$BQ_SCRATCH/model")
    if [[ $me ]]; then srun --ntasks-per-node=1 --ntasks="$SLURM_JOB_NUM_NODES" "${copy[@]}"; else "${copy[@]}"; fi
}

runs() { ls -d "$BQ_OUT/ckpt" "$BQ_OUT"/*.run/ckpt 2>/dev/null | sed 's,/ckpt$,,'; }
look() { for run in $(runs); do "$BQ_BLOCKQ" status --json "$run"; done; }
progress() { look | grep '"progress":' || true; }

# What is left of the round before on a lost node has to end first.
await_others() {
    local end=$((SECONDS + ${BQ_PATIENCE:-900}))
    while look | grep -q '"state": "running"' && ((SECONDS < end)); do
        say "another run is at work in $BQ_OUT"
        sleep 5
    done
}

# The same job once more: this one queued again, or another one on another number of nodes.
again() {
    local nodes id name options=()
    trap - TERM
    nodes=$(cat "$BQ_OUT/job.nodes" 2>/dev/null || echo "$SLURM_JOB_NUM_NODES")
    if [[ $nodes == "$SLURM_JOB_NUM_NODES" ]]; then
        say "to be queued again"
        if scontrol requeue "$me"; then sleep 300 && exit 75; fi # Slurm ends this script meanwhile
    fi
    options=(--dependency=singleton --job-name="$SLURM_JOB_NAME" --partition="$SLURM_JOB_PARTITION" --nodes="$nodes"
        --ntasks-per-node="$tasks" --time="$(squeue -h -j "$me" -o %l)"
        --output="$(scontrol show job "$me" | sed -n 's/^ *StdOut=//p')")
    if [[ ${SLURM_JOB_ACCOUNT-} ]]; then options+=(--account="$SLURM_JOB_ACCOUNT"); fi
    for name in ${!SLURM_@}; do [[ $name == SLURM_CONF ]] || unset "$name"; done
    # shellcheck disable=SC2086 # words
    id=$(sbatch --parsable "${options[@]}" ${BQ_SBATCH-} "$0")
    say "job $id goes on, on $nodes nodes"
}

# job COMMAND...: run it, and see to it that it goes on when it was stopped.
job() {
    local code=0 before rounds cancelled=
    if [[ -e $BQ_OUT/job.stop ]]; then
        say "$BQ_OUT/job.stop is there; remove it to go on"
        exit 1
    fi
    await_others
    stage
    before=$(progress)
    trap 'cancelled=1' TERM
    say "$* on ${SLURM_JOB_NUM_NODES:-1} nodes"
    "$@" || code=$?
    # The first rank to leave may take one with it that was about to: what counts is on the disk.
    if ((code > 128)) && look | grep -q '"state": "stopped"'; then code=75; fi
    say "ended with code $code"
    ((code == 75)) && [[ ! $cancelled && $me ]] || exit $code
    rounds=$(cat "$BQ_OUT/job.rounds" 2>/dev/null || echo 0)
    if [[ $(progress) == "$before" ]]; then rounds=$((rounds + 1)); else rounds=0; fi
    echo $rounds >"$BQ_OUT/job.rounds"
    if ((rounds >= ${BQ_ROUNDS:-3})); then echo "no progress in $rounds rounds" | tee "$BQ_OUT/job.stop"; fi
    if [[ -e $BQ_OUT/job.stop ]]; then exit $code; fi
    again
}
